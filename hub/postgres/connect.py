"""The one way to Postgres: every connection of the hub, pooled or of its own, is made here."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias
from urllib.parse import SplitResult, parse_qs, urlsplit

import asyncpg

from hub.errors import SetupError
from hub.postgres import tls
from hub.postgres.codecs import set_codecs
from hub.postgres.listening import ListeningConnection
from hub.postgres.record import Record
from hub.postgres.telemetry import Telemetry, TellingConnection
from hub.postgres.waiting import Pool as Pool

OLDEST: Final = 14
_CLOSING: Final = 1.0  # seconds that a pool may take to give its connections back

# How a connection refuses to be closed whose server has gone: there is nobody left to say goodbye to. TimeoutError is
# an OSError.
_GONE: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)

# asyncpg sets no keepalive on its sockets, and how to reach those is its own affair. So the server watches the
# connection instead: a hub that is gone without a word holds no lock and no LISTEN for more than a minute. The other
# way round, each connection that waits for long has its heartbeat.
#
# The path is closed to others: an operator or a function of their own in `public` that fits the arguments better than
# Postgres's would run with the hub's rights.
_SESSION: Final = {
    "timezone": "UTC",
    "search_path": "pg_catalog, pg_temp",
    "tcp_keepalives_idle": "30",
    "tcp_user_timeout": "30000",
}

_UNREADABLE: Final = (
    "The database URL cannot be read. One looks like postgresql://user:password@host:5432/database; "
    "inside user and password, write @ as %40, : as %3A, / as %2F, ? as %3F and # as %23."
)

NO_SETTINGS: Final[Mapping[str, str]] = {}

_POOL: Final[Mapping[str, Any]] = {"max_queries": 50_000, "max_inactive_connection_lifetime": 300.0, "loop": None}
"""What asyncpg.create_pool says where nobody says otherwise."""

Connection: TypeAlias = "asyncpg.Connection[Record]"


@dataclass(frozen=True, slots=True)
class Target:
    """A database and how to get there. Timeouts are seconds; `dsn` stays out of the repr, for its password."""

    dsn: str = field(repr=False)
    pgbouncer: bool = False
    files: tls.Files = tls.NO_FILES
    direct_tls: bool = False
    timeout: float = 10.0
    command_timeout: float = 60.0
    telemetry: Telemetry = field(default_factory=Telemetry, repr=False, compare=False)


async def connect(target: Target, *, purpose: str, settings: Mapping[str, str] = NO_SETTINGS) -> Connection:
    """A connection of its own; `purpose` stands in its application_name, `settings` are the session's.

    Raises SetupError, with what to do, where the target cannot be reached or is none for the hub.
    """
    connection: Connection = await _connect(target, purpose, TellingConnection, settings)
    return connection


@asynccontextmanager
async def connected(target: Target, *, purpose: str) -> AsyncIterator[Connection]:
    """The same for as long as the block lasts."""
    connection = await connect(target, purpose=purpose)
    try:
        yield connection
    finally:
        with suppress(*_GONE):
            await connection.close()


async def connect_listening(target: Target, *, purpose: str = "listener") -> ListeningConnection:
    """The same, for LISTEN."""
    connection: ListeningConnection = await _connect(target, purpose, ListeningConnection, NO_SETTINGS)
    return connection


async def _connect(target: Target, purpose: str, connection_class: type[Any], settings: Mapping[str, str]) -> Any:
    try:
        connection = await asyncpg.connect(**_options(target, purpose, settings), connection_class=connection_class)
    except _FAILURES as error:
        _explain(target, error)
    try:
        _check(connection)
        target.telemetry.watch(connection, purpose)
        await set_codecs(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


@asynccontextmanager
async def pool(
    target: Target,
    *,
    min_size: int,
    max_size: int,
    purpose: str = "pool",
    settings: Mapping[str, str] = NO_SETTINGS,
    codecs: Callable[[Any], Awaitable[None]] = set_codecs,
) -> AsyncIterator[Pool]:
    """A pool of `min_size` to `max_size` connections, closed at the end. Raises SetupError as `connect` does.

    Each connection is given to `codecs` once. Acquiring waits when all are in use: that is the throttle that protects
    Postgres, so callers bound their wait.
    """

    async def init(connection: Any) -> None:
        _check(connection)
        target.telemetry.watch(connection, purpose)
        await codecs(connection)

    try:
        options = _options(target, purpose, settings)
        opened = await Pool(
            **_POOL,
            **options,
            connection_class=TellingConnection,
            min_size=min_size,
            init_size=min_size,
            max_size=max_size,
            init=init,
            connect=_dialling(target),
        )
    except _FAILURES as error:
        _explain(target, error)
    try:
        yield opened
    finally:
        with suppress(*_GONE):  # asyncpg then cuts off what is left
            async with asyncio.timeout(_CLOSING):
                await opened.close()


def _dialling(target: Target) -> Any:
    """How a pool makes its connections: by certificates as they are then, not as they were when it was opened."""

    async def dial(*arguments: Any, **options: Any) -> Any:
        try:
            context = tls.context(target.files, target.dsn)
        except SetupError as error:  # which nobody expects of a pool in use
            raise ConnectionError(str(error)) from None
        return await asyncpg.connect(*arguments, **options | ({} if context is None else {"ssl": context}))

    return dial


def _options(target: Target, purpose: str, settings: Mapping[str, str]) -> dict[str, Any]:
    split(target.dsn)
    options: dict[str, Any] = {
        "dsn": target.dsn,
        "timeout": target.timeout,
        "command_timeout": target.command_timeout,
        "record_class": Record,
        "server_settings": {"application_name": f"pghub {purpose}"},
    }
    if (context := tls.context(target.files, target.dsn)) is not None:
        options["ssl"] = context
    if target.direct_tls:
        options["direct_tls"] = True
    if target.pgbouncer:
        # In transaction mode the next statement may meet another server, which does not know what was prepared.
        # And PgBouncer refuses startup parameters that it does not know.
        options["statement_cache_size"] = 0
    else:
        options["server_settings"] |= _SESSION | dict(settings)
        if target.direct_tls:
            # asyncpg's request to cancel a statement asks for TLS first, so that no such proxy takes it: the connection
            # is closed instead, and Postgres has to look whether it still has whom it works for.
            options["server_settings"]["client_connection_check_interval"] = "1s"
    return options


def _check(connection: Connection) -> None:
    version = connection.get_server_version()
    if version.major < OLDEST:
        raise SetupError(f"This is Postgres {version.major}; the hub needs {OLDEST} or later.")
    if (encoding := connection.get_settings().server_encoding) != "UTF8":
        raise SetupError(
            f"The database's encoding is {encoding}; the hub needs UTF8. "
            "Make one with CREATE DATABASE hub TEMPLATE template0 ENCODING 'UTF8'."
        )


_FAILURES: Final = (OSError, ValueError, OverflowError, asyncpg.PostgresError, asyncpg.InterfaceError)


def _explain(target: Target, error: Exception) -> NoReturn:
    """Raise the SetupError for `error`.

    The password never shows: no server repeats it, and what fails to parse the URL is not quoted.
    """
    where = _place(target.dsn)
    match error:
        case _ if (why := tls.refused(error)) is not None:
            text = f"Postgres at {where} refuses the hub's certificate: {why}"
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            text = f"Postgres at {where} refuses the login: {error}. Check user and password of the database URL."
        case asyncpg.InvalidCatalogNameError():
            text = f"Postgres at {where} has no such database: {error}. Create it with createdb, or correct the URL."
        case asyncpg.TooManyConnectionsError():
            text = f"Postgres at {where}: {error}. Raise max_connections, or lower HUB_POOL_MAX."
        case asyncpg.CannotConnectNowError():
            text = f"Postgres at {where} is not ready: {error}. Try again in a moment."
        case ssl.SSLCertVerificationError():
            text = f"The certificate of {where} is not trusted: {tls.distrust(error)}"
        case ssl.SSLError():
            text = f"No TLS with {where}: {error.reason or error}. Check sslmode and the TLS settings."
        case socket.gaierror():
            text = f"The host in {where} is not known: {error.strerror}. Correct the database URL."
        case TimeoutError():
            text = f"Postgres at {where} did not answer within {target.timeout:g} s. Check host, port and firewall."
        case ConnectionError() if "SSL" in str(error):
            text = f"Postgres at {where} speaks no TLS, which sslmode asks for. Switch ssl on there, or change sslmode."
        case ConnectionError() if target.direct_tls:
            text = f"{where} hangs up on TLS from the first byte. Unset HUB_DIRECT_TLS, or use Postgres 17 or later."
        case OSError():
            reason = error.strerror or str(error) or "it hangs up without a word"
            text = f"Postgres cannot be reached at {where}: {reason}. See that it runs, and check host and port."
        case asyncpg.ProtocolViolationError() if "startup parameter" in str(error):
            text = (
                f"PgBouncer answers at {where}. Set HUB_PGBOUNCER=1, and HUB_DIRECT_URL to the same database without "
                "PgBouncer, which swallows LISTEN."
            )
        case asyncpg.PostgresError():
            text = f"Postgres at {where} refuses: {error}."
        case asyncpg.InterfaceError():
            text = f"The settings for {where} cannot be used: {error}.{tls.advice(error)}"
        case _:
            text = _UNREADABLE
    raise SetupError(text) from None


def split(dsn: str) -> SplitResult:
    """The parts of `dsn`. Raises SetupError where they are not what its author meant.

    An @ too many, or one in the wrong place, is a password that was not encoded: some of it would pass for the host
    or the database, and be shown.
    """
    try:
        parts = urlsplit(dsn)
    except ValueError:
        raise SetupError(_UNREADABLE) from None
    logins = parts.netloc.count("@")
    astray = "@" in parts.path or parts.fragment or logins > 1 or (not logins and "@" in parts.query)
    if parts.scheme not in ("postgresql", "postgres") or astray:
        raise SetupError(_UNREADABLE)
    return parts


def _place(dsn: str) -> str:
    """Host, port and database of `dsn`, and nothing secret."""
    parts = split(dsn)
    host = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", ["the default socket"])[0]
    return f"{host}, database {parts.path[1:]!r}" if parts.path[1:] else host
