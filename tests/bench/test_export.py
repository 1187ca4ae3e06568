"""Ways out of the log: COPY or a cursor, payloads as they are or parsed, statements prepared or not."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import asyncpg
import orjson
import pytest
from aiohttp import ClientSession

from hub.postgres import past
from hub.postgres.connect import Target, connect
from hub.postgres.embedded import Embedded
from hub.postgres.history import opened
from hub.postgres.moment import STANDS, beginning, position
from hub.postgres.tail import PLAN
from hub.query import Query
from hub.selection import select
from tests.bench.clients import memory
from tests.bench.server import serving
from tests.bench.table import show
from tests.conftest import temporary_folder

ROUNDS, ROWS, PAGES = 5, 100_000, 500
SIZES = (10_000, 1_000_000)
FILL = """
    INSERT INTO hub.events (channel, payload, tags)
    SELECT 'a', jsonb_build_object('n', n, 'text', repeat('x', 100)), '{x}' FROM generate_series(1, $1::int) AS n
"""


async def by_copy(connection: Any) -> int:
    size = 0

    async def write(data: bytes) -> None:
        nonlocal size
        size += len(data)

    async with opened(connection, Query()) as export:
        await export.copy(write)
    return size


async def formatted_here(connection: Any) -> int:
    size = 0
    async with connection.transaction():
        async for row in connection.cursor(
            "SELECT id, channel, published_at, payload::text, tags FROM hub.events ORDER BY id", prefetch=100
        ):
            line = io.StringIO()
            csv.writer(line).writerow((*row[:2], row[2].isoformat(), row[3], orjson.dumps(row[4]).decode()))
            size += len(line.getvalue())
    return size


async def lines(connection: Any) -> int:
    async with opened(connection, Query()) as export:
        return sum([len(line) async for batch in export.batches() for line in batch])


async def parsed_again(connection: Any) -> int:
    """The same, but the payload becomes objects and then text again, by the connection's codec."""
    size = 0
    async with connection.transaction():
        async for row in connection.cursor(
            "SELECT id, channel, payload, tags, published_at AS at FROM hub.events ORDER BY id", prefetch=100
        ):
            size += len(orjson.dumps(dict(row)))
    return size


WAYS: dict[str, Callable[[Any], Awaitable[int]]] = {
    "CSV by COPY": by_copy,
    "CSV, fetched and formatted in Python": formatted_here,
    "NDJSON by a cursor, payloads as they are": lines,
    "NDJSON by a cursor, payloads parsed and dumped": parsed_again,
}


async def pages(dsn: str, cache: int) -> float:
    """Pages of 100 events a second, planned as the hub has them planned."""
    connection = await asyncpg.connect(dsn, statement_cache_size=cache, server_settings=PLAN)
    stands = await connection.fetchrow(STANDS)
    query = Query(select(["a"]), limit=100)
    started = time.perf_counter()
    for number in range(PAGES):
        text, arguments = past.page_of(query, beginning(stands), position(stands), number)
        assert len(await connection.fetch(text, *arguments)) == 100
    await connection.close()
    return PAGES / (time.perf_counter() - started)


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_what_goes_out() -> None:
    async def course(dsn: str, ws: str, process: int) -> None:
        connection = await connect(Target(dsn), purpose="bench")
        await connection.execute(FILL.replace("$1::int", str(ROWS)), timeout=300)
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        rates: dict[int, list[float]] = {100: [], 0: []}
        for _ in range(ROUNDS):
            for name, way in WAYS.items():
                started = time.perf_counter()
                await way(connection)
                seconds[name].append(time.perf_counter() - started)
            for cache, found in rates.items():
                found.append(await pages(dsn, cache))
        show(
            f"{ROWS:,} events, medians of {ROUNDS} interleaved rounds",
            ["", "events a second"],
            [[name, f"{ROWS / median(found):,.0f}"] for name, found in seconds.items()],
        )
        rows = [[f"statement_cache_size={cache}", f"{median(found):,.0f}"] for cache, found in rates.items()]
        show("Pages of 100 events a second, one connection", ["", ""], rows)
        kept = [["before", f"{memory(process):.0f}"]]
        async with ClientSession() as http:
            for size in SIZES:
                have = await connection.fetchval("SELECT count(*) FROM hub.events")
                await connection.execute(FILL.replace("$1::int", str(max(0, size - have))), timeout=300)
                url = ws.replace("ws://", "http://").removesuffix("/ws") + f"/events?limit={size}"
                async with http.get(url, headers={"Accept": "application/x-ndjson"}) as answer:
                    assert sum([chunk.count(b"\n") async for chunk in answer.content.iter_any()]) == size
                kept.append([f"after {size:,} events", f"{memory(process):.0f}"])
        show("Memory of the hub, MB, NDJSON by a cursor", ["", ""], kept)
        await connection.close()

    with temporary_folder() as folder:
        embedded = Embedded(folder / "data")
        asyncio.run(embedded.start())
        try:
            with serving(embedded.dsn) as (ws, process):
                asyncio.run(course(embedded.dsn, ws, process))
        finally:
            asyncio.run(embedded.stop())
