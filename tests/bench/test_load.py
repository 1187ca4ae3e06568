"""How fast events get in: COPY by `pghub load` and by POST, beside executemany, arrays and single POSTs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import asyncpg
import orjson
import pytest
from aiohttp import ClientSession, TCPConnector

from hub.postgres.embedded import Embedded
from tests.bench.clients import memory
from tests.bench.server import serving
from tests.bench.table import show, spread
from tests.conftest import temporary_folder

ROUNDS, ROWS, FEW, AT_ONCE = 5, 200_000, 4_000, 64
LARGE = 2_000_000  # rows of the load that memory is watched in
PAYLOAD = '{"order": 12345, "status": "paid", "customer": "somebody with a name", "total": 17.25, "items": ["a", "b"]}'
LINE = b'{"channel":"bench","payload":%b,"tags":["a"]}\n' % PAYLOAD.encode()
ROW = '"bench","{}","{{a}}"\n'.format(PAYLOAD.replace('"', '""')).encode()
INSERT = "INSERT INTO hub.events (channel, payload, tags) VALUES ($1, $2::text::jsonb, $3)"
LINES, JSON = {"Content-Type": "application/x-ndjson"}, {"Content-Type": "application/json"}


def command(dsn: str, file: Path) -> int:
    """Load `file` by `pghub load`; returns how many there were."""
    env = os.environ | {"HUB_DATABASE_URL": dsn}
    return int(
        subprocess.run([sys.executable, "-m", "hub", "load", file], env=env, capture_output=True, check=True).stdout
    )


class Ways:
    """The ways in; each publishes and says how many."""

    def __init__(self, dsn: str, url: str, http: ClientSession, folder: Path) -> None:
        self.dsn = dsn
        self.url = url
        self.http = http
        self.lines, self.csv = folder / "events.ndjson", folder / "events.csv"
        self.lines.write_bytes(LINE * ROWS)
        self.csv.write_bytes(b"channel,payload,tags\n" + ROW * ROWS)
        self.all: dict[str, Callable[[], Awaitable[int]]] = {
            "pghub load, CSV": lambda: asyncio.to_thread(command, dsn, self.csv),
            "pghub load, NDJSON": lambda: asyncio.to_thread(command, dsn, self.lines),
            "POST, NDJSON": self.post_lines,
            "POST, arrays of 1,000": self.post_arrays,
            f"POST, one event, {AT_ONCE} at a time": self.post_singles,
            "asyncpg, executemany": self.many,
        }

    async def post(self, body: object, headers: dict[str, str]) -> dict[str, object]:
        async with self.http.post(self.url, data=body, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            return await answer.json()

    async def post_lines(self) -> int:
        with self.lines.open("rb") as file:
            answer = await self.post(file, LINES)
        assert answer == {"events": ROWS}
        return ROWS

    async def post_arrays(self) -> int:
        array = orjson.dumps([orjson.loads(LINE)] * 1_000)
        for _ in range(ROWS // 10_000):
            await self.post(array, JSON)
        return ROWS // 10

    async def post_singles(self) -> int:
        async def some() -> None:
            for _ in range(FEW // AT_ONCE):
                await self.post(LINE, JSON)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        return FEW // AT_ONCE * AT_ONCE

    async def many(self) -> int:
        connection = await asyncpg.connect(self.dsn)
        await connection.executemany(INSERT, [("bench", PAYLOAD, ["a"])] * (ROWS // 10))
        await connection.close()
        return ROWS // 10


async def course(dsn: str, ws: str, process: int, folder: Path) -> None:
    url = ws.replace("ws://", "http://").removesuffix("/ws") + "/events"
    owner = await asyncpg.connect(dsn)
    async with ClientSession(connector=TCPConnector(limit=AT_ONCE)) as http:
        ways = Ways(dsn, url, http, folder)
        rates: dict[str, list[float]] = {name: [] for name in ways.all}
        for _ in range(ROUNDS):
            for name, way in ways.all.items():
                started = time.perf_counter()
                count = await way()
                rates[name].append(count / (time.perf_counter() - started))
            await owner.execute("TRUNCATE hub.events")
        kept = [["before", f"{memory(process):.0f}"]]
        ways.lines.write_bytes(LINE * LARGE)
        with ways.lines.open("rb") as file:
            task = asyncio.create_task(ways.post(file, LINES))
            most = 0.0
            while not task.done():
                most = max(most, memory(process))
                await asyncio.sleep(0.1)
            assert (await task) == {"events": LARGE}
    await owner.close()
    show(
        f"Events a second, {len(LINE)} bytes each, a hub listening, medians of {ROUNDS} interleaved rounds",
        ["", "events a second", "of executemany"],
        [
            [
                name,
                f"{median(found):,.0f}",
                spread([a / b for a, b in zip(found, rates["asyncpg, executemany"], strict=True)]),
            ]
            for name, found in rates.items()
        ],
    )
    show(f"Memory of the hub, MB, while {LARGE:,} lines are posted", ["", ""], [*kept, ["at the most", f"{most:.0f}"]])


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_events_in() -> None:
    with temporary_folder() as folder:
        embedded = Embedded(folder / "data")
        asyncio.run(embedded.start())
        try:
            with serving(embedded.dsn) as (ws, process):
                asyncio.run(course(embedded.dsn, ws, process, folder))
        finally:
            asyncio.run(embedded.stop())
