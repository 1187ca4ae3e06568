"""GET /watched: rows a second beside to_jsonb in Postgres, and the hub's memory as the table grows."""

from __future__ import annotations

import asyncio
import json
import time
from statistics import median

import asyncpg
import pytest
from aiohttp import ClientSession

from hub.postgres.embedded import Embedded
from tests.bench.clients import memory
from tests.bench.server import serving
from tests.bench.table import show, spread
from tests.conftest import temporary_folder

ROUNDS, ROWS = 5, 100_000
SIZES = (10_000, 1_000_000)
MAKE = """
CREATE TABLE {0} AS SELECT n AS id, gen_random_uuid() AS reference, 'customer ' || n AS customer, n % 7 = 0 AS paid,
       (n * 1.25)::numeric(12,2) AS total, n / 3.0::float8 AS ratio, now() - n * interval '1 s' AS ordered_at,
       current_date - n % 1000 AS due, ARRAY['a', 'b' || n] AS tags, jsonb_build_object('n', n, 'note', 'x') AS details
  FROM generate_series(1, {1}) AS n;
ALTER TABLE {0} ADD PRIMARY KEY (id);
SELECT hub.watch('{0}');
"""
LINES = {"Accept": "application/x-ndjson"}


async def read(http: ClientSession, url: str) -> tuple[int, int, float]:
    """Lines, bytes, seconds."""
    started, lines, size = time.perf_counter(), 0, 0
    async with http.get(url, headers=LINES) as response:
        assert response.status == 200, await response.text()
        async for chunk in response.content.iter_any():
            lines += chunk.count(b"\n")
            size += len(chunk)
    return lines, size, time.perf_counter() - started


async def by_postgres(dsn: str, table: str) -> float:
    """Seconds for the same rows as text that Postgres makes, by a cursor too, and joined in lines."""
    connection = await asyncpg.connect(dsn)
    started = time.perf_counter()
    rows, out = 0, []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        cursor = await connection.cursor(f"SELECT to_jsonb(t.*)::text FROM {table} AS t")
        while batch := await cursor.fetch(500):
            rows += len(batch)
            out = [("\n".join([row[0] for row in batch]) + "\n").encode()]
    assert rows == ROWS
    assert out
    seconds = time.perf_counter() - started
    await connection.close()
    return seconds


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_the_rows_of_a_watched_table() -> None:
    async def course(dsn: str, ws: str, process: int) -> None:
        base = ws.replace("ws://", "http://").removesuffix("/ws") + "/watched/"
        connection = await asyncpg.connect(dsn)
        for name, rows in (("t100000", ROWS), *((f"t{rows}", rows) for rows in SIZES)):
            if rows != ROWS or name == "t100000":
                await connection.execute(MAKE.format(name, rows), timeout=300)
        await connection.execute("VACUUM ANALYZE")
        hub, postgres = [], []
        async with ClientSession() as http:
            await read(http, base + "t100000")
            for _ in range(ROUNDS):
                lines, size, seconds = await read(http, base + "t100000")
                assert lines == ROWS + 1
                hub.append(seconds)
                postgres.append(await by_postgres(dsn, "t100000"))
            kept = [["before", f"{memory(process):.0f}"]]
            for rows in SIZES:
                lines, _, _ = await read(http, f"{base}t{rows}")
                assert lines == rows + 1
                kept.append([f"after {rows:,} rows", f"{memory(process):.0f}"])
            async with http.get(base + "t10000") as response:
                whole = json.loads(await response.text())
        assert len(whole["rows"]) == 10_000
        ratio = spread([b / a for a, b in zip(hub, postgres, strict=True)])
        show(
            f"{ROWS:,} rows of ten columns, {size / ROWS:.0f} bytes each, medians of {ROUNDS} interleaved rounds",
            ["", "rows a second"],
            [
                ["GET /watched, typed rows, as NDJSON", f"{ROWS / median(hub):,.0f}"],
                ["to_jsonb in Postgres, fetched by a cursor", f"{ROWS / median(postgres):,.0f}"],
                ["ratio", ratio],
            ],
        )
        show("Memory of the hub, MB", ["", ""], kept)
        await connection.close()

    with temporary_folder() as folder:
        embedded = Embedded(folder / "data")
        asyncio.run(embedded.start())
        try:
            with serving(embedded.dsn) as (ws, process):
                asyncio.run(course(embedded.dsn, ws, process))
        finally:
            asyncio.run(embedded.stop())
