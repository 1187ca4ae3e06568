"""Filters by tag and time have no index: what a search takes without one, what one would gain, and what it would cost.

The cost is Postgres's CPU for a publish, which has to stay that of an INSERT. HUB_BENCH_ROWS says how long the log is.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from statistics import median
from typing import Final

import pytest

from hub import assets
from hub.postgres import history, past
from hub.postgres.connect import Connection, Target, connect
from hub.postgres.embedded import Embedded
from hub.postgres.migrate import migrate
from hub.postgres.moment import STANDS, beginning, position
from hub.query import Query
from tests.bench.clients import cpu
from tests.bench.table import show, spread
from tests.conftest import temporary_folder

ROUNDS, PUBLISHES = 5, 50_000
ROWS = int(os.environ.get("HUB_BENCH_ROWS", "2000000"))
INDEXES: Final = {
    "none": "",
    "BRIN on published_at": "CREATE INDEX extra ON hub.events USING brin (published_at)",
    "B-tree on published_at": "CREATE INDEX extra ON hub.events (published_at)",
    "GIN on tags": "CREATE INDEX extra ON hub.events USING gin (tags)",
}
TAGS: Final = {"no tags": "'{}'", "two tags": "ARRAY['customer-' || n % 1000, 'paid']"}
PUBLISH: Final = """
    SELECT count(hub.publish('bench', '{{"order": 12345, "status": "paid", "total": 17.25}}', {}))
      FROM generate_series(1, {}) AS n
"""
FILL: Final = """
    INSERT INTO hub.events (channel, payload, tags)
    SELECT 'a', jsonb_build_object('n', n, 'text', repeat('x', 100)),
           CASE n % 100000 WHEN 5 THEN ARRAY['rare'] ELSE ARRAY['t' || n % 1000] END FROM generate_series(1, {}) AS n
"""
# A search by such an index has all that is found sorted.
BITMAP: Final = history._LOCAL.replace("enable_bitmapscan = off", "enable_bitmapscan = on") + (
    "; SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off"
)


async def index(connection: Connection, statement: str) -> None:
    await connection.execute(f"DROP INDEX IF EXISTS hub.extra; {statement}", timeout=600)


async def cost(connection: Connection) -> list[list[str]]:
    """Microseconds of CPU for a publish, with each index."""
    process = await connection.fetchval("SELECT pg_backend_pid()")
    found: dict[tuple[str, str], list[float]] = {(tags, name): [] for tags in TAGS for name in INDEXES}
    for _ in range(ROUNDS):
        for (tags, name), each in found.items():
            await connection.execute("TRUNCATE hub.events")
            await index(connection, INDEXES[name])
            before = cpu(process)
            await connection.execute(PUBLISH.format(TAGS[tags], PUBLISHES), timeout=300)
            each.append((cpu(process) - before) / PUBLISHES * 1e6)
    return [
        [
            tags,
            name,
            f"{median(each):.1f}",
            spread([a / b for a, b in zip(each, found[tags, "none"], strict=True)]),
        ]
        for (tags, name), each in found.items()
    ]


async def search(connection: Connection, query: Query, session: str) -> str:
    """Seconds for all that there is, the least of three."""
    stands = await connection.fetchrow(STANDS)
    assert stands is not None
    text, arguments = past.rows_of(query, beginning(stands), position(stands), 0)
    seconds = []
    for _ in range(3):
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await connection.execute(session)
            started = time.perf_counter()
            await connection.fetch(text, *arguments, timeout=300)
            seconds.append(time.perf_counter() - started)
    return f"{min(seconds):.3f}"


async def gain(connection: Connection) -> list[list[str]]:
    """Seconds of searches without an index and with one; at last when retention has had all rows replaced."""

    async def moment() -> Query:
        middle = await connection.fetchval(
            "SELECT min(published_at) + (max(published_at) - min(published_at)) / 2 FROM hub.events"
        )
        return Query(begin=middle, end=middle + timedelta(milliseconds=1))

    await index(connection, "TRUNCATE hub.events")
    await connection.execute(FILL.format(ROWS), timeout=600)
    await connection.execute("VACUUM ANALYZE hub.events", timeout=600)
    rare, short = Query(tags=("rare",)), await moment()
    rows = [
        ["a tag of one in 100,000", "none", await search(connection, rare, history._LOCAL)],
        ["a millisecond", "none", await search(connection, short, history._LOCAL)],
    ]
    await index(connection, INDEXES["GIN on tags"])
    rows.append(["a tag of one in 100,000", "GIN on tags", await search(connection, rare, BITMAP)])
    await index(connection, INDEXES["BRIN on published_at"])
    rows.append(["a millisecond", "BRIN on published_at", await search(connection, short, BITMAP)])
    for _ in range(2):
        oldest = f"SELECT id FROM hub.events ORDER BY id LIMIT {ROWS // 2}"
        await connection.execute(f"DELETE FROM hub.events WHERE id IN ({oldest})", timeout=600)
        await connection.execute("VACUUM hub.events", timeout=600)
        await connection.execute(FILL.format(ROWS // 2), timeout=600)
    await connection.execute("VACUUM ANALYZE hub.events", timeout=600)
    rows.append(["the same, later", "BRIN on published_at", await search(connection, await moment(), BITMAP)])
    return rows


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_filters() -> None:
    async def course(dsn: str) -> None:
        connection = await connect(Target(dsn), purpose="bench")
        await migrate(connection, assets.folder("sql"))
        costs, gains = await cost(connection), await gain(connection)
        await connection.close()
        show(
            f"Microseconds of Postgres's CPU for a publish, medians of {ROUNDS} interleaved rounds",
            ["", "index", "µs", "of none"],
            costs,
        )
        show(f"Seconds to find among {ROWS:,} events", ["", "index", "s"], gains)

    with temporary_folder() as folder:
        embedded = Embedded(folder / "data")
        asyncio.run(embedded.start())
        try:
            asyncio.run(course(embedded.dsn))
        finally:
            asyncio.run(embedded.stop())
