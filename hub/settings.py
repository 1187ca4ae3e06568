"""All settings, as frozen values that are read once, at the edge: flags over environment over `.env`."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from hub.errors import SetupError
from hub.loop import Name as Loop

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_positive = validators.Number(gt=0)


def default_data_dir() -> Path:
    """Where the embedded Postgres lives if nobody says otherwise.

    Not below root's home: Postgres refuses to run as root, and another user cannot get in there.
    """
    if os.name == "posix" and os.geteuid() == 0:
        return Path("/var/lib/pghub")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pghub"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Database:
    """How to reach Postgres."""

    database_url: Annotated[
        str | None,
        Parameter(help="Postgres to use, as a URL. Without one the hub runs an embedded Postgres."),
    ] = None
    direct_url: Annotated[
        str | None,
        Parameter(help="The same database without PgBouncer between, for what PgBouncer cannot carry."),
    ] = None
    pgbouncer: Annotated[
        bool, Parameter(help="The database URL leads through PgBouncer: no prepared statements.", negative="")
    ] = False
    database_ca: Annotated[
        Path | None,
        Parameter(help="A file of CA certificates that Postgres's certificate must be signed by."),
    ] = None
    database_cert: Annotated[Path | None, Parameter(help="The hub's client certificate for Postgres.")] = None
    database_key: Annotated[Path | None, Parameter(help="The key of the client certificate.")] = None
    direct_tls: Annotated[
        bool, Parameter(help="Speak TLS from the first byte, for proxies that expect it.", negative="")
    ] = False
    data_dir: Annotated[
        Path | None,
        Parameter(help="The embedded Postgres's folder; by default ~/.local/share/pghub, for root /var/lib/pghub."),
    ] = None
    pg_bin: Annotated[Path | None, Parameter(help="The folder of the Postgres programs to embed.")] = None
    loop: Annotated[Loop, Parameter(help="The event loop to run on.")] = "uvloop"
    log_level: Annotated[str, Parameter(help="debug, info, warning or error.")] = "info"

    def __post_init__(self) -> None:
        if self.log_level.lower() not in ("debug", "info", "warning", "error"):
            raise SetupError(f"HUB_LOG_LEVEL is {self.log_level!r}. Set it to debug, info, warning or error.")

    @property
    def folder(self) -> Path:
        return (self.data_dir or default_data_dir()).expanduser().absolute()

    def tls(self) -> ssl.SSLContext | None:
        """The TLS context that the certificate settings ask for; None leaves it to the URL's sslmode."""
        if self.database_ca is None and self.database_cert is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.database_ca)
            if self.database_cert is not None:
                context.load_cert_chain(self.database_cert, self.database_key)
        except (OSError, ssl.SSLError) as error:
            raise SetupError(
                f"The TLS files for Postgres cannot be used: {error}. "
                "Check HUB_DATABASE_CA, HUB_DATABASE_CERT and HUB_DATABASE_KEY."
            ) from None
        return context


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Settings(Database):
    """All that `pghub serve` takes."""

    host: Annotated[str, Parameter(help="The address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int, Parameter(help="The port; 0 takes a free one.", validator=validators.Number(gte=0, lte=65535))
    ] = 8080
    reuse_port: Annotated[
        bool, Parameter(help="Share the port with other hubs on this machine that say so, too; the kernel deals out.")
    ] = False
    compression: Annotated[
        Literal["off", "on"], Parameter(help="Whether events are deflated for clients that offer it.")
    ] = "off"
    origins: Annotated[str, Parameter(help="Origins of web pages that may use this hub, separated by commas.")] = ""
    retention: Annotated[str, Parameter(help="How long durable events are kept: 90s, 15m, 36h, 7d, or forever.")] = "7d"
    retention_count: Annotated[
        int,
        Parameter(help="How many durable events are kept; 0 for any number.", validator=validators.Number(gte=0)),
    ] = 10_000_000
    pool_min: Annotated[
        int, Parameter(help="Connections of the pool that are kept open.", validator=validators.Number(gte=0))
    ] = 1
    pool_max: Annotated[int, Parameter(help="Connections of the pool at the most.", validator=_positive)] = 10
    stream_max: Annotated[
        int, Parameter(help="Exports, tables and loads streamed at the same time.", validator=_positive)
    ] = 4
    max_clients: Annotated[int, Parameter(help="Websockets at the most.", validator=_positive)] = 20_000
    max_channels: Annotated[int, Parameter(help="Subscriptions of one client.", validator=_positive)] = 1_000
    max_frame: Annotated[int, Parameter(help="Bytes of a frame from a client.", validator=_positive)] = 1 << 20
    max_buffer: Annotated[
        int,
        Parameter(
            help="Bytes that may wait for a slow client before it misses NOTIFYs; durable events wait in the log.",
            validator=_positive,
        ),
    ] = 1 << 20
    heartbeat: Annotated[
        float, Parameter(help="Seconds in which every client hears something.", validator=_positive)
    ] = 25.0
    stall_timeout: Annotated[
        float,
        Parameter(help="Seconds after which a client that reads nothing is cut off.", validator=_positive),
    ] = 120.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.retention_age  # says at the start what is wrong with it

    @property
    def retention_age(self) -> timedelta | None:
        """The age after which events go; None where they stay."""
        if self.retention == "forever":
            return None
        if (found := re.fullmatch(r"([1-9]\d{0,8})([smhd])", self.retention)) is None:
            raise SetupError(f"HUB_RETENTION is {self.retention!r}. Write it as 90s, 15m, 36h or 7d, or as forever.")
        return int(found[1]) * timedelta(**{_UNITS[found[2]]: 1})

    @property
    def origin_list(self) -> tuple[str, ...]:
        return tuple(origin.strip() for origin in self.origins.split(",") if origin.strip())
