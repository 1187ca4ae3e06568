"""What the doctor asks of Postgres."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hub.errors import SetupError
from hub.postgres.connect import Connection, Target, connect, connect_listening
from hub.postgres.migrate import pending

_QUEUE_FULL = 0.5  # of Postgres's notification queue; at 1.0 every NOTIFY fails
_ROUND_TRIP = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. A `warn` or `fail` says what to do."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    text: str


async def examine(pooled: Target, direct: Target, sql: Path) -> AsyncIterator[Finding]:
    """Connect by both ways and look; raises SetupError where Postgres cannot be reached at all."""
    connection = await connect(direct, purpose="doctor")
    try:
        yield await _server(connection)
        yield await _role(connection)
        yield await _migrations(connection, sql)
        yield await _queue(connection)
    finally:
        await connection.close()
    yield await _notifications(pooled, direct)


async def _server(connection: Connection) -> Finding:
    ((standby, name),) = await connection.fetch(
        "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_version')"
    )
    if standby:
        return Finding("fail", "server", f"Postgres {name} is a standby, which has no NOTIFY. Use the primary.")
    return Finding("ok", "server", f"Postgres {name}, UTF8")


async def _role(connection: Connection) -> Finding:
    ((role, database, may),) = await connection.fetch(
        "SELECT current_user, current_database(), "
        "has_database_privilege(current_database(), 'CREATE') OR to_regnamespace('hub') IS NOT NULL"
    )
    if may:
        return Finding("ok", "role", f"{role} on {database}")
    return Finding("fail", "role", f"{role} may make no schema: GRANT CREATE ON DATABASE {database} TO {role}.")


async def _migrations(connection: Connection, sql: Path) -> Finding:
    try:
        missing = await pending(connection, sql)
    except SetupError as error:
        return Finding("fail", "migrations", str(error))
    if missing:
        text = f"{len(missing)} to apply; `pghub migrate` or the next `pghub serve` does it"
        return Finding("warn", "migrations", text)
    return Finding("ok", "migrations", "all applied")


async def _queue(connection: Connection) -> Finding:
    usage = await connection.fetchval("SELECT pg_catalog.pg_notification_queue_usage()")
    if usage < _QUEUE_FULL:
        return Finding("ok", "queue", f"{usage:.0%} of the notification queue is used")
    text = f"The notification queue is {usage:.0%} full. Look for a session that listens in a long transaction."
    return Finding("warn", "queue", text)


async def _notifications(pooled: Target, direct: Target) -> Finding:
    """Send a NOTIFY by the way of the pool and wait for it on a connection like the listener's."""
    channel, arrived = f"hub_probe_{secrets.token_hex(8)}", asyncio.Event()
    listening = await connect_listening(direct, purpose="doctor")
    sending = await connect(pooled, purpose="doctor")
    try:
        listening.on_notification = lambda _: arrived.set()
        await listening.listen([channel])
        started = time.perf_counter()
        await sending.execute("SELECT pg_catalog.pg_notify($1, '')", channel)
        async with asyncio.timeout(_ROUND_TRIP):
            await arrived.wait()
    except TimeoutError:
        text = (
            "A NOTIFY did not arrive. PgBouncer in transaction mode swallows LISTEN: "
            "set HUB_DIRECT_URL to the same database without it."
        )
        return Finding("fail", "notify", text)
    else:
        return Finding("ok", "notify", f"arrives, in {1000 * (time.perf_counter() - started):.1f} ms")
    finally:
        listening.terminate()
        sending.terminate()
