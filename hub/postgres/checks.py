"""What the doctor asks of Postgres."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

from hub.errors import SetupError
from hub.postgres import selftest
from hub.postgres.connect import Connection, Target, connected
from hub.postgres.finding import Finding
from hub.postgres.migrate import pending

_QUEUE_FULL = 0.5  # of Postgres's notification queue; at 1.0 every NOTIFY fails
_LONG_OPEN = 300.0  # seconds after which an open transaction is worth a word
_SKEW = 1.0  # seconds by which clocks may differ before the age of an event means nothing
_SPARE = 20  # connections that a hub may take, with the usual settings
_DEAD = 100_000  # rows, from which on a table that is mostly dead is worth a word


async def examine(pooled: Target, direct: Target, sql: Path) -> AsyncIterator[Finding]:
    """Connect by both ways and look; raises SetupError where Postgres cannot be reached at all."""
    async with connected(direct, purpose="doctor") as connection:
        yield await _server(connection)
        yield await _role(connection)
        yield await _clock(connection)
        for finding in await _settings(connection):
            yield finding
        yield await _migrations(connection, sql)
        yield await _queue(connection)
        yield await _oldest_reader(connection)
        durable = await connection.fetchval("SELECT pg_catalog.to_regclass('hub.events')") is not None
        if durable:
            yield await _log(connection)
            yield await _bloat(connection)
            yield await _oldest_writer(connection)
        if await connection.fetchval("SELECT pg_catalog.to_regclass('hub.watched')") is not None:
            for finding in await _watched(connection):
                yield finding
        if (found := await _places(connection)) is not None:
            yield found
    async for finding in selftest.ways(pooled, direct, durable=durable):
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


async def _clock(connection: Connection) -> Finding:
    """How far Postgres's clock is from this machine's, as of the middle of a round trip."""
    before = time.time()
    there: float = await connection.fetchval("SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8")
    skew = there - (before + time.time()) / 2
    if abs(skew) < _SKEW:
        return Finding("ok", "clock", f"differs from Postgres's by {1000 * abs(skew):.0f} ms")
    late = "behind" if skew > 0 else "ahead of"
    text = f"This machine's clock is {abs(skew):.1f} s {late} Postgres's, so ages are told wrong. Use NTP on both."
    return Finding("warn", "clock", text)


async def _settings(connection: Connection) -> list[Finding]:
    """One for each setting of the server that costs something, or one for all."""
    row = await connection.fetchrow(
        """
        SELECT current_setting('fsync')::bool AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
               current_setting('track_activities')::bool AS activities,
               (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'idle_session_timeout') AS idle,
               (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'statement_timeout') AS statement,
               current_setting('max_connections')::int AS most,
               (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend') AS used
        """
    )
    assert row is not None
    wrong = []
    if not row["fsync"]:
        wrong.append("fsync is off: a crash of the machine may destroy the database. Set it on.")
    if row["synchronous_commit"] == "off":
        wrong.append("synchronous_commit is off: a crash takes back what clients have seen, whom a gap tells.")
    if not row["activities"]:
        wrong.append("track_activities is off: nobody sees who holds the log back. Set it on.")
    if row["idle"]:
        wrong.append(f"idle_session_timeout is {row['idle']} ms and ends what listens. Set it to 0 for the hub's role.")
    if 0 < row["statement"] < 10_000:
        wrong.append(f"statement_timeout is {row['statement']} ms: long replays may fail. Raise it for the hub's role.")
    if (free := row["most"] - row["used"]) < _SPARE:
        wrong.append(f"{free} of {row['most']} connections are free; a hub may take {_SPARE}. Raise max_connections.")
    if not wrong:
        return [Finding("ok", "settings", f"{row['used']} of {row['most']} connections are in use")]
    return [Finding("warn", "settings", text) for text in wrong]


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


async def _bloat(connection: Connection) -> Finding:
    """How many rows of the log are dead, as the statistics have it."""
    row = await connection.fetchrow(
        """
        SELECT n_live_tup AS live, n_dead_tup AS dead, last_autovacuum AS vacuumed
          FROM pg_catalog.pg_stat_all_tables WHERE relid = 'hub.events'::pg_catalog.regclass
        """
    )
    live, dead, vacuumed = (row["live"], row["dead"], row["vacuumed"]) if row is not None else (0, 0, None)
    if dead < _DEAD or dead < live:
        return Finding("ok", "bloat", f"about {dead} of {live + dead} rows of the log are dead")
    last = "never" if vacuumed is None else f"last {vacuumed:%Y-%m-%d %H:%M:%S} UTC"
    text = (
        f"About {dead} of {live + dead} rows of the log are dead; autovacuum came {last}. Let it work (autovacuum_* of "
        "hub.events), see who holds it back, or VACUUM hub.events by hand."
    )
    return Finding("warn", "bloat", text)


async def _oldest_reader(connection: Connection) -> Finding:
    """Vacuum takes nothing that the oldest snapshot may still see, in whatever table."""
    row = await connection.fetchrow(
        """
        SELECT format('process %s (%s)', pid, coalesce(nullif(application_name, ''), usename, backend_type)) AS who,
               state, extract(epoch FROM now() - xact_start)::float8 AS seconds
          FROM pg_catalog.pg_stat_activity
         WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()
         ORDER BY xact_start LIMIT 1
        """
    )
    if row is None or (row["seconds"] or 0) < _LONG_OPEN:
        return Finding("ok", "snapshots", "nobody holds vacuum back")
    text = (
        f"{row['who']} has had a snapshot for {row['seconds'] / 60:.0f} min ({row['state']}): vacuum takes nothing "
        "that was deleted since. Commit it, or end it with pg_terminate_backend."
    )
    return Finding("warn", "snapshots", text)


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


async def _places(connection: Connection) -> Finding | None:
    """Nothing is said where there is no PostGIS."""
    row = await connection.fetchrow(
        """
        SELECT format('PostGIS %s in the schema %I', e.extversion, n.nspname) AS text,
               to_regclass('hub.placed') IS NOT NULL AS made
          FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
         WHERE e.extname = 'postgis'
        """
    )
    if row is None:
        return None
    if row["made"]:
        return Finding("ok", "places", row["text"])
    text = f"{row['text']}, which no hub has made use of. If places are wanted, `pip install 'pghub[geo]'` there."
    return Finding("warn", "places", text)
