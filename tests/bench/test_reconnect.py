"""Ten thousand clients that come back at once, with cursors, to a hub that was killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import uvloop

from hub.postgres.embedded import Embedded
from tests.bench.clients import Client, connect, memory
from tests.bench.server import free_port, serving
from tests.bench.table import show

CLIENTS, CHANNELS, MISSED = 10_000, 100, 1_000


class Crowd:
    """What all clients got: ids by client, each one's cursor, and who is live."""

    def __init__(self) -> None:
        self.number: dict[Client, int] = {}
        self.ids: dict[int, list[int]] = defaultdict(list)
        self.cursors: dict[int, str] = {}
        self.gaps = 0
        self.live: set[int] = set()
        self.changed = asyncio.Event()

    def take(self, client: Client, frame: bytes) -> None:
        message: dict[str, Any] = orjson.loads(frame)
        number = self.number[client]
        self.ids[number] += [event["id"] for event in message.get("events", ())]
        if cursor := message.get("cursor"):
            self.cursors[number] = cursor
        self.gaps += message["type"] == "gap"
        if message["type"] == "subscribed":
            self.live.add(number)
        self.changed.set()

    async def come(self, url: str) -> None:
        """All clients connect, with their cursors if they have one, and get live."""
        self.live.clear()
        queries = [f"channel=c{n % CHANNELS}" + self.since(n) for n in range(CLIENTS)]
        waiting: list[tuple[Client, bytes]] = []
        self.number.clear()

        def on_frame(client: Client, frame: bytes) -> None:
            if client in self.number:
                self.take(client, frame)
            else:
                waiting.append((client, frame))

        for number, client in enumerate(await connect(url, queries, on_frame, at_once=500)):
            self.number[client] = number
        for client, frame in waiting:
            self.take(client, frame)
        await self.until(lambda: len(self.live) == CLIENTS)

    def since(self, number: int) -> str:
        return f"&since={self.cursors[number]}" if number in self.cursors else ""

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(120):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


async def publish(dsn: str, first: int, count: int) -> None:
    connection = await asyncpg.connect(dsn)
    for number in range(first, first + count):
        await connection.execute('SELECT hub.publish($1, \'{"some": "event"}\')', f"c{number % CHANNELS}")
    await connection.close()


def queries(log: Path) -> int:
    """Statements of replays that the server has logged."""
    lines = log.read_text(errors="replace").splitlines()
    return sum(line.startswith("pghub replay|") and "execute" in line for line in lines)


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_ten_thousand_come_back_at_once(data_dir: Path) -> None:
    embedded = Embedded(data_dir, options={"log_statement": "all", "log_line_prefix": "%a|"})
    asyncio.run(embedded.start())
    environment = {"HUB_PORT": str(free_port())}

    async def course() -> list[str]:
        crowd = Crowd()
        with serving(embedded.dsn, **environment) as (url, process):
            await crowd.come(url)
            await publish(embedded.dsn, 0, CHANNELS)
            await crowd.until(lambda: sum(map(len, crowd.ids.values())) == CLIENTS)
            os.kill(process, signal.SIGKILL)
        await publish(embedded.dsn, 0, MISSED)
        before = queries(data_dir / "postgres.log")
        with serving(embedded.dsn, **environment) as (url, process):
            start = time.perf_counter()
            await crowd.come(url)
            seconds = time.perf_counter() - start
            await publish(embedded.dsn, 0, CHANNELS)
            expected = 2 + MISSED // CHANNELS
            await crowd.until(lambda: all(len(ids) >= expected for ids in crowd.ids.values()))
            megabytes = memory(process)
        lost = sum(expected - len(set(ids)) for ids in crowd.ids.values())
        twice = sum(len(ids) - len(set(ids)) for ids in crowd.ids.values())
        assert (lost, twice, crowd.gaps) == (0, 0, 0)
        asked = queries(data_dir / "postgres.log") - before
        return [f"{seconds:.1f}", f"{asked}", f"{lost}", f"{twice}", f"{megabytes:.0f}"]

    try:
        row = uvloop.run(course())
    finally:
        asyncio.run(embedded.stop())
    show(
        f"{CLIENTS} clients on {CHANNELS} channels come back after a SIGKILL; each missed {MISSED // CHANNELS} events",
        ["seconds until all are live", "queries on the log", "lost", "twice", "MB of the hub"],
        [row],
    )
