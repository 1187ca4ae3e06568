"""All settings, as frozen values that are read once, at the edge: flags over environment over `.env`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from hub import duration
from hub.errors import SetupError
from hub.loop import Name as Loop

_SIZES = {"KB": 10, "MB": 20, "GB": 30, "TB": 40}
_LEVELS = ("debug", "info", "warning", "error")
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
    ] = field(default=None, repr=False)  # there may be a password in it
    direct_url: Annotated[
        str | None,
        Parameter(help="The same database without PgBouncer between, for what PgBouncer cannot carry."),
    ] = field(default=None, repr=False)
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
    log_levels: Annotated[
        str, Parameter(help="Levels of some loggers by name, hub.postgres=debug,asyncpg=error say.")
    ] = ""
    slow_query: Annotated[
        str, Parameter(help="How long a statement may take before it is logged: 500ms, 2s, or 0 for ever.")
    ] = "500ms"
    log_arguments: Annotated[
        bool,
        Parameter(help="Show the text in arguments of slow statements, payloads and keys among it.", negative=""),
    ] = False

    def __post_init__(self) -> None:
        _ = self.slow_seconds, self.levels  # say at the start what is wrong with them
        if self.log_level.lower() not in _LEVELS:
            raise SetupError(f"HUB_LOG_LEVEL is {self.log_level!r}. Set it to debug, info, warning or error.")

    @property
    def levels(self) -> dict[str, str]:
        """The levels of some loggers, by name."""
        pairs = [pair.strip().partition("=") for pair in self.log_levels.split(",") if pair.strip()]
        for name, _, level in pairs:
            if not name or level.lower() not in _LEVELS:
                raise SetupError(
                    f"HUB_LOG_LEVELS has {name!r} at {level!r}. Write it as hub.postgres=debug,asyncpg=error; levels "
                    "are debug, info, warning and error."
                )
        return {name: level for name, _, level in pairs}

    @property
    def slow_seconds(self) -> float:
        """The seconds from which on a statement is slow; 0 where none is."""
        if (found := re.fullmatch(r"([0-9]{1,9})(ms|s)?", self.slow_query)) is None:
            raise SetupError(f"HUB_SLOW_QUERY is {self.slow_query!r}. Write it as 500ms or 2s, or 0 to log none.")
        return int(found[1]) * (1 if found[2] == "s" else 0.001)

    @property
    def folder(self) -> Path:
        return (self.data_dir or default_data_dir()).expanduser().absolute()


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Keys:
    """Whose tokens are good."""

    secret: Annotated[
        str | None,
        Parameter(help="Clients need tokens; those by HS256 with this secret are good. 32 bytes or more."),
    ] = field(default=None, repr=False)
    public_key: Annotated[
        Path | None,
        Parameter(
            help="Clients need tokens; those by RS256, ES256 or EdDSA with a key of this file, PEM or JWKS, are good."
        ),
    ] = None
    audience: Annotated[str | None, Parameter(help="What tokens have to name as their audience (`aud`).")] = None

    @property
    def wants_tokens(self) -> bool:
        return self.secret is not None or self.public_key is not None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Settings(Keys, Database):
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
    retention_size: Annotated[
        str, Parameter(help="About how much durable events may take on the disk: 500MB, 10GB, or any.")
    ] = "10GB"
    pool_min: Annotated[
        int, Parameter(help="Connections of the pool that are kept open.", validator=validators.Number(gte=0))
    ] = 1
    pool_max: Annotated[int, Parameter(help="Connections of the pool at the most.", validator=_positive)] = 10
    pool_timeout: Annotated[
        float, Parameter(help="Seconds that a request waits for a connection, before it gets 503.", validator=_positive)
    ] = 5.0
    stream_max: Annotated[
        int, Parameter(help="Exports, tables and loads streamed at the same time.", validator=_positive)
    ] = 4
    max_clients: Annotated[int, Parameter(help="Websockets and live streams at the most.", validator=_positive)] = (
        20_000
    )
    max_clients_per_address: Annotated[
        int, Parameter(help="Websockets and live streams of one address; of IPv6, a /64 is one.", validator=_positive)
    ] = 10_000
    max_rate: Annotated[
        int,
        Parameter(
            help="Messages of one client a second; twice that may come at once. 0 for any number.",
            validator=validators.Number(gte=0),
        ),
    ] = 5_000
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

    handshake_timeout: Annotated[
        float,
        Parameter(help="Seconds in which a connection has to ask for something, or to ask again.", validator=_positive),
    ] = 10.0
    idle_timeout: Annotated[
        float,
        Parameter(
            help="Seconds that a websocket may stay which has no subscription and sends no command.",
            validator=_positive,
        ),
    ] = 600.0
    drain_seconds: Annotated[
        float,
        Parameter(
            help="Seconds in which clients are sent away, and requests can end, when the hub stops.",
            validator=validators.Number(gte=0),
        ),
    ] = 5.0
    trusted_proxies: Annotated[
        str,
        Parameter(help="Addresses or networks of proxies whose X-Forwarded-For is believed, separated by commas."),
    ] = ""
    tls_cert: Annotated[
        Path | None, Parameter(help="The hub's own certificate with its chain, PEM: it then serves https and wss only.")
    ] = None
    tls_key: Annotated[Path | None, Parameter(help="The key of it, if that is in another file.")] = None

    auth_timeout: Annotated[
        float, Parameter(help="Seconds in which a websocket has to send a good token.", validator=_positive)
    ] = 10.0
    authorize_cache: Annotated[
        float,
        Parameter(
            help="Seconds for which an answer of hub.authorize, if there is one, is kept.",
            validator=validators.Number(gte=0),
        ),
    ] = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.retention_age, self.retention_bytes  # say at the start what is wrong with them

    @property
    def retention_age(self) -> timedelta | None:
        """The age after which events go; None where they stay."""
        if self.retention == "forever":
            return None
        if (found := duration.parse(self.retention)) is None:
            raise SetupError(f"HUB_RETENTION is {self.retention!r}. Write it as 90s, 15m, 36h or 7d, or as forever.")
        return found

    @property
    def retention_bytes(self) -> int | None:
        """The size that the log may have; None for any."""
        if self.retention_size == "any":
            return None
        if (found := re.fullmatch(r"([1-9]\d{0,5})([KMGT]B)", self.retention_size)) is None:
            raise SetupError(f"HUB_RETENTION_SIZE is {self.retention_size!r}. Write it as 500MB or 10GB, or as any.")
        return int(found[1]) << _SIZES[found[2]]

    @property
    def origin_list(self) -> tuple[str, ...]:
        return tuple(origin.strip() for origin in self.origins.split(",") if origin.strip())
