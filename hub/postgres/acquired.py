"""A pooled connection for a request, which does not wait for it for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, cast

import asyncpg
import structlog

from hub.errors import Code, CommandError
from hub.postgres.connect import Connection, Pool

PATIENCE: Final = 5.0
"""Seconds to wait for a connection, where nobody says otherwise."""
FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What using a connection may raise."""
_RESET: Final = 10.0  # seconds

log = structlog.get_logger()


@asynccontextmanager
async def acquired(pool: Pool, patience: float = PATIENCE) -> AsyncIterator[Connection]:
    """A connection of `pool`. Raises CommandError (`unavailable`) where none comes within `patience` seconds."""
    try:
        connection = await pool.acquire(timeout=patience)
    except TimeoutError:
        busy = pool.get_size() == pool.get_max_size() and not pool.get_idle_size()
        reason = f"All {pool.get_max_size()} connections for this are in use." if busy else "Postgres does not answer."
        raise CommandError(Code.UNAVAILABLE, reason) from None
    except FAILURES as error:
        log.warning("postgres_unreachable", error=str(error) or type(error).__name__)  # where it is, is not for clients
        raise CommandError(Code.UNAVAILABLE, "Postgres cannot be reached; try again.") from error
    try:
        yield cast("Connection", connection)
    finally:
        # One that cannot be made as new is closed, and what it was used for is done. asyncpg would take `patience`.
        with suppress(*FAILURES):
            await pool.release(connection, timeout=_RESET)
