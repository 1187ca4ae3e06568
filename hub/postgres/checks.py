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
from hub.postgres.connect import Connection, Target, connect_listening, connected
from hub.postgres.listening import ListeningConnection
from hub.postgres.migrate import pending

_QUEUE_FULL = 0.5  # of Postgres's notification queue; at 1.0 every NOTIFY fails
_ROUND_TRIP = 5.0  # seconds
_LONG_OPEN = 300.0  # seconds after which an open transaction is worth a word


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. A `warn` or `fail` says what to do."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    text: str


async def examine(pooled: Target, direct: Target, sql: Path) -> AsyncIterator[Finding]:
    """Connect by both ways and look; raises SetupError where Postgres cannot be reached at all."""
    async with connected(direct, purpose="doctor") as connection:
        yield await _server(connection)
        yield await _role(connection)
        yield await _migrations(connection, sql)
        yield await _queue(connection)
        if await connection.fetchval("SELECT pg_catalog.to_regclass('hub.events')") is not None:
            yield await _log(connection)
            yield await _oldest_writer(connection)
        if await connection.fetchval("SELECT pg_catalog.to_regclass('hub.watched')") is not None:
            for finding in await _watched(connection):
                yield finding
    for finding in await _ways(pooled, direct):
        yield finding


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


async def _log(connection: Connection) -> Finding:
    """How much is kept, and since when. The number is the planner's: counting would read all of it."""
    ((size, events, oldest, standing),) = await connection.fetch(
        """
        SELECT pg_catalog.pg_size_pretty(pg_catalog.pg_total_relation_size('hub.events')),
               (SELECT greatest(reltuples, 0)::bigint FROM pg_catalog.pg_class WHERE oid = 'hub.events'::regclass),
               (SELECT published_at FROM hub.events ORDER BY xid, id LIMIT 1),
               (SELECT count(*) FROM (SELECT 1 FROM hub.events LIMIT 1) AS one)
        """
    )
    if not standing:
        return Finding("ok", "log", f"empty, {size}")
    return Finding("ok", "log", f"about {events} events since {oldest:%Y-%m-%d %H:%M:%S} UTC, {size}")


async def _oldest_writer(connection: Connection) -> Finding:
    """Retention deletes nothing that came after the oldest transaction still open has begun to write."""
    row = await connection.fetchrow(
        """
        SELECT who, since, extract(epoch FROM now() - since)::float8 AS seconds FROM (
            SELECT format('process %s (%s)', pid, coalesce(nullif(application_name, ''), usename, backend_type)) AS who,
                   xact_start AS since
              FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
             UNION ALL
            SELECT format('the prepared transaction %L', gid), prepared FROM pg_catalog.pg_prepared_xacts) AS open
         ORDER BY since LIMIT 1
        """
    )
    if row is None or row["seconds"] < _LONG_OPEN:
        return Finding("ok", "retention", "nobody holds it back")
    text = (
        f"{row['who']} has had a transaction open for {row['seconds'] / 60:.0f} min: what was published since cannot "
        "be deleted. Commit it, or end it with pg_terminate_backend or ROLLBACK PREPARED."
    )
    return Finding("warn", "retention", text)


async def _watched(connection: Connection) -> list[Finding]:
    """One for each watched table whose changes may pass unseen, and one for all the others."""
    rows = await connection.fetch('SELECT "table", amiss FROM hub.watched ORDER BY "table"')
    wrong = [Finding("warn", "watch", f"{row['table']}: {row['amiss']}") for row in rows if row["amiss"] is not None]
    well = len(rows) - len(wrong)
    if well:
        return [*wrong, Finding("ok", "watch", f"{well} table{'s' * (well > 1)} watched")]
    return wrong


async def _ways(pooled: Target, direct: Target) -> list[Finding]:
    """Whether the way of the pool is what the settings say, and whether the listener's brings what it is to bring."""
    listening = await connect_listening(direct, purpose="doctor")
    try:
        async with connected(pooled, purpose="doctor") as sending:
            return [*await _pooler(pooled, sending), await _notifications(listening, sending)]
    finally:
        listening.terminate()


async def _pooler(pooled: Target, sending: Connection) -> list[Finding]:
    """PgBouncer, and what is like it, gives its clients other process numbers than Postgres's."""
    if pooled.pgbouncer or await sending.fetchval("SELECT pg_catalog.pg_backend_pid()") == sending.get_server_pid():
        return []
    text = "PgBouncer, or what is like it, answers. Unless it pools sessions, set HUB_PGBOUNCER=1."
    return [Finding("warn", "pool", text)]


async def _notifications(listening: ListeningConnection, sending: Connection) -> Finding:
    """Send a NOTIFY by the way of the pool and wait for it on a connection like the listener's."""
    channel, arrived = f"hub_probe_{secrets.token_hex(8)}", asyncio.Event()
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
    return Finding("ok", "notify", f"arrives, in {1000 * (time.perf_counter() - started):.1f} ms")
