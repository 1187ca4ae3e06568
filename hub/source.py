"""The Postgres that the settings name, and how to connect to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hub.postgres import tls
from hub.postgres.connect import Target
from hub.postgres.embedded import Embedded
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


def target(settings: Database, dsn: str) -> Target:
    """How the pool connects."""
    return Target(dsn, pgbouncer=settings.pgbouncer, files=_files(settings), direct_tls=settings.direct_tls)


def direct_target(settings: Database, dsn: str) -> Target:
    """How connections of their own connect, which PgBouncer must not come between."""
    return Target(settings.direct_url or dsn, files=_files(settings), direct_tls=settings.direct_tls)


def _files(settings: Database) -> Files:
    return Files(settings.database_ca, settings.database_cert, settings.database_key)
