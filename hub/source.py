"""The Postgres that the settings name, and how to connect to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hub.postgres import tls
from hub.postgres.connect import Target
from hub.postgres.embedded import Embedded
from hub.postgres.telemetry import Telemetry
from hub.postgres.tls import Files
from hub.settings import Database


@asynccontextmanager
async def database(settings: Database) -> AsyncIterator[Embedded | str]:
    """The Postgres that the settings name: its URL, or the embedded one, started and at the end stopped."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    tls.context(_files(settings), "")  # says what is wrong before anything is started
    async with Embedded(settings.folder, bin_dir=settings.pg_bin) as embedded:
        yield embedded


def dsn(found: Embedded | str) -> str:
    """The URL of either."""
    return found if isinstance(found, str) else found.dsn


def target(settings: Database, dsn: str, telemetry: Telemetry | None = None) -> Target:
    """How the pool connects; `telemetry`, or one of its own, takes note of what its connections do."""
    return Target(
        dsn,
        pgbouncer=settings.pgbouncer,
        files=_files(settings),
        direct_tls=settings.direct_tls,
        telemetry=telemetry or telemetry_of(settings),
    )


def direct_target(settings: Database, dsn: str, telemetry: Telemetry | None = None) -> Target:
    """How connections of their own connect, which PgBouncer must not come between."""
    return Target(
        settings.direct_url or dsn,
        files=_files(settings),
        direct_tls=settings.direct_tls,
        telemetry=telemetry or telemetry_of(settings),
    )


def telemetry_of(settings: Database) -> Telemetry:
    """What takes note of connections, as the settings say."""
    return Telemetry(slow=settings.slow_seconds, arguments=settings.log_arguments)


def _files(settings: Database) -> Files:
    return Files(settings.database_ca, settings.database_cert, settings.database_key)
