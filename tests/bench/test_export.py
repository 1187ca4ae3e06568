"""Ways out of the log: COPY or a cursor, payloads as they are or parsed, the command, and the memory of each.

HUB_BENCH_ROWS says how many events memory is watched with.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import pytest
from aiohttp import ClientSession

from hub.postgres.connect import Connection, Target, connect
from hub.postgres.embedded import Embedded
from tests.bench.clients import memory
from tests.bench.exporter import WAYS
from tests.bench.server import serving
from tests.bench.table import show, spread
from tests.conftest import temporary_folder

ROUNDS, ROWS = 5, 100_000
SIZES = (10_000, int(os.environ.get("HUB_BENCH_ROWS", "1000000")))
FILL = """
    INSERT INTO hub.events (channel, payload, tags)
    SELECT 'a', jsonb_build_object('n', n, 'text', repeat('x', 100)), '{{x}}' FROM generate_series(1, {}) AS n
"""
FIRST = "CSV by COPY"


async def fill(connection: Connection, count: int) -> None:
    """Make it `count` events, where there are fewer."""
    have = await connection.fetchval("SELECT count(*) FROM hub.events")
    if count > have:
        await connection.execute(FILL.format(count - have), timeout=600)


def command(dsn: str, form: str, file: Path) -> None:
    arguments = [sys.executable, "-m", "hub", "export", "--format", form, "-o", file]
    subprocess.run(arguments, env=os.environ | {"HUB_DATABASE_URL": dsn}, capture_output=True, check=True)


async def rates(dsn: str, folder: Path, connection: Connection) -> list[list[str]]:
    def commanded(form: str) -> Callable[[], Awaitable[object]]:
        return lambda: asyncio.to_thread(command, dsn, form, folder / f"events.{form}")

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        name: partial(way, connection, ROWS) for name, way in WAYS.items()
    }
    ways |= {f"pghub export, {form}, with the start of Python": commanded(form) for form in ("csv", "ndjson")}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            await way()
            found[name].append(ROWS / (time.perf_counter() - started))
    return [
        [name, f"{median(each):,.0f}", spread([a / b for a, b in zip(each, found[FIRST], strict=True)])]
        for name, each in found.items()
    ]


def most(dsn: str, way: str, limit: int) -> str:
    """The most memory of a process that exports so many, in megabytes."""
    arguments = [sys.executable, "-m", "tests.bench.exporter", dsn, way, str(limit)]
    return f"{float(subprocess.run(arguments, capture_output=True, check=True).stdout):.0f}"


@contextmanager
def postgres() -> Iterator[tuple[str, Path]]:
    with temporary_folder() as folder:
        embedded = Embedded(folder / "data")
        asyncio.run(embedded.start())
        try:
            yield embedded.dsn, folder
        finally:
            asyncio.run(embedded.stop())


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_what_goes_out() -> None:
    async def course(dsn: str, ws: str, process: int, folder: Path) -> None:
        connection = await connect(Target(dsn), purpose="bench")
        await fill(connection, ROWS)
        found = await rates(dsn, folder, connection)
        show(f"{ROWS:,} events, medians of {ROUNDS} interleaved rounds", ["", "events a second", "of COPY"], found)
        kept = [["before", f"{memory(process):.0f}"]]
        async with ClientSession() as http:
            for size in SIZES:
                await fill(connection, size)
                url = ws.replace("ws://", "http://").removesuffix("/ws") + f"/events?limit={size}"
                async with http.get(url, headers={"Accept": "application/x-ndjson"}) as answer:
                    assert sum([chunk.count(b"\n") async for chunk in answer.content.iter_any()]) == size
                kept.append([f"after {size:,} events", f"{memory(process):.0f}"])
        show("Memory of the hub, MB, NDJSON by a cursor", ["", ""], kept)
        sizes = (1, *SIZES)
        peaks = [[way, *(most(dsn, way, size) for size in sizes)] for way in WAYS]
        show("The most memory of a process that exports, MB", ["events", *(f"{size:,}" for size in sizes)], peaks)
        await connection.close()

    with postgres() as (dsn, folder), serving(dsn) as (ws, process):
        asyncio.run(course(dsn, ws, process, folder))
