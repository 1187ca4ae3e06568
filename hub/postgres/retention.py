"""Retention: takes the oldest events from the log, by age, count and size, a few thousand at a time.

The horizon rises in the transaction that deletes, so whoever reads the log learns in the same statement what is no
longer there. What goes is always whole transactions, none that anybody is still inside of or could not see yet, and
never the newest: its xid is what cursors are tightened to.

Deleting makes no file smaller, so a size is turned into a count, by what an event of now weighs on the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NoReturn, cast

import structlog

from hub.postgres.connect import Connection, Pool
from hub.postgres.places import Places

_BATCH: Final = 5_000
_KEYS: Final = timedelta(hours=24)
_TIMEOUT: Final = 300.0
# Whether there may be something to do: one statement, since it is asked every minute for ever. Watched tables have
# nothing to do with retention, but they are to be looked at as often.
_DUE: Final = """
/* retention due */
SELECT (SELECT published_at < clock_timestamp() - $1::interval FROM hub.events
         WHERE events.xid < (SELECT newest.xid FROM hub.events AS newest ORDER BY newest.xid DESC LIMIT 1)
         ORDER BY events.xid, id LIMIT 1)
    OR (SELECT max(id) - min(id) >= $2 FROM hub.events)
    OR EXISTS (SELECT FROM hub.keys WHERE used_at < now() - $3::interval) AS events,
       hub.watches_due() AS watches,
       pg_total_relation_size('hub.events') > $4 AS large,
       pg_relation_size('hub.events') / current_setting('block_size')::int AS blocks
"""
_SAMPLE: Final = 100  # blocks, at random
# What an event takes: its row and its entries in three indexes, as measured; and what is more than fits into a page is
# cut to pieces, which fill theirs less well.
_WEIGH: Final = """
/* retention weigh */
SELECT avg(190 + 2 * pg_column_size(channel) + pg_column_size(tags)
           + pg_column_size(payload) * CASE WHEN pg_column_size(payload) > 2000 THEN 1.1 ELSE 1 END)::float AS weight,
       (SELECT max(id) - min(id) + 1 FROM hub.events) AS most
  FROM hub.events TABLESAMPLE SYSTEM ($1)
"""
# Another hub that is at it holds the row; then this one lets it be.
_LOCK: Final = """
SELECT horizon::text::bigint AS horizon, to_regclass('hub.places') IS NOT NULL AS places
  FROM hub.log FOR UPDATE SKIP LOCKED
"""
# The first transaction of which something is among the newest events.
_KEPT: Final = "SELECT xid::text::bigint FROM hub.events ORDER BY events.xid DESC, id DESC OFFSET $1 - 1 LIMIT 1"
_OLDEST: Final = f"""
/* retention oldest */
SELECT xid::text::bigint AS xid, count(*) AS events, bool_and(published_at < clock_timestamp() - $2::interval) AS old
  FROM hub.events
 WHERE events.xid >= $1::text::xid8
   AND events.xid < pg_snapshot_xmin(pg_current_snapshot())
   AND events.xid < (SELECT newest.xid FROM hub.events AS newest ORDER BY newest.xid DESC LIMIT 1)
 GROUP BY events.xid ORDER BY events.xid LIMIT {_BATCH}
"""  # noqa: S608 - made of constants
_DELETE: Final = "/* retention delete */ DELETE FROM hub.events WHERE xid >= $1::text::xid8 AND xid <= $2::text::xid8"
_DELETE_PLACES: Final = """
/* retention delete places */
DELETE FROM hub.places WHERE xid >= $1::text::xid8 AND xid <= $2::text::xid8
"""
_RAISE: Final = "UPDATE hub.log SET horizon = $1::text::xid8"
_FORGET_KEYS: Final = """
DELETE FROM hub.keys WHERE key IN (SELECT key FROM hub.keys WHERE used_at < now() - $1::interval LIMIT 5000)
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Keep:
    """What stays: events up to an age, so many of them, and about so many bytes on the disk; None for any."""

    age: timedelta | None = None
    count: int | None = None
    size: int | None = None


async def run(pool: Pool, keep: Keep, *, interval: float = 60.0, places: Places | None = None) -> NoReturn:
    """Apply retention every `interval` seconds, until cancelled. PostGIS is looked for as often, for `places`."""
    while True:
        await asyncio.sleep(interval)
        try:
            async with pool.acquire() as connection:
                if places is not None:
                    await places.look(cast("Connection", connection))
                gone = 0
                async for deleted in apply(cast("Connection", connection), keep):
                    gone += deleted
                if gone:
                    log.info("retention", events=gone)
        except Exception as error:  # the next time may be better, and till then nothing is lost
            log.warning("retention_failed", reason=str(error) or type(error).__name__)


async def apply(connection: Connection, keep: Keep) -> AsyncIterator[int]:
    """Delete batch by batch, each in a transaction of its own; yields how many events each had.

    Then follow watched tables that are not as they were.
    """
    due = await connection.fetchrow(_DUE, keep.age, keep.count, _KEYS, keep.size, timeout=_TIMEOUT)
    assert due is not None
    count, too_many = keep.count, False
    if due["large"] and keep.size is not None:
        count, too_many = await _fitting(connection, keep.size, due["blocks"], count)
    if due["events"] or too_many:
        async for deleted in _delete_all(connection, keep.age, count):
            yield deleted
    if due["watches"]:
        await connection.execute("/* watch again */ SELECT hub.rewatch()", timeout=_TIMEOUT)


async def _fitting(connection: Connection, size: int, blocks: int, count: int | None) -> tuple[int | None, bool]:
    """How many events fit into `size` bytes, but not more than `count`; and whether there may be more than that."""
    share = min(100.0, 100.0 * _SAMPLE / max(blocks, 1))
    row = await connection.fetchrow(_WEIGH, share, timeout=_TIMEOUT)
    if row is None or row["weight"] is None:
        return count, False  # nothing but dead rows where it looked
    fitting = max(1, int(size / row["weight"]))
    return (fitting if count is None else min(count, fitting)), row["most"] > fitting


async def _delete_all(connection: Connection, age: timedelta | None, count: int | None) -> AsyncIterator[int]:
    while True:
        async with connection.transaction(isolation="read_committed"):
            batch = await _delete(connection, age, count)
        if not batch:
            break
        yield batch
    while await connection.execute(_FORGET_KEYS, _KEYS) != "DELETE 0":
        pass


async def _delete(connection: Connection, age: timedelta | None, count: int | None) -> int:
    locked = await connection.fetchrow(_LOCK)
    if locked is None:
        return 0
    horizon = locked["horizon"]
    kept = None if count is None else await connection.fetchval(_KEPT, count, timeout=_TIMEOUT)
    events, upto = 0, 0
    for row in await connection.fetch(_OLDEST, str(horizon), age or timedelta(0), timeout=_TIMEOUT):
        too_old, too_many = age is not None and row["old"], kept is not None and row["xid"] < kept
        if not (too_old or too_many) or (events and events + row["events"] > _BATCH):
            break
        events += row["events"]
        upto = row["xid"]
    if upto:
        await connection.execute(_DELETE, str(horizon), str(upto), timeout=_TIMEOUT)
        if locked["places"]:
            await connection.execute(_DELETE_PLACES, str(horizon), str(upto), timeout=_TIMEOUT)
        await connection.execute(_RAISE, str(upto + 1))
    return events
