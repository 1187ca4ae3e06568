"""Two thousand clients that come and go for long: what the hub consists of, over time and when they have gone.

HUB_SOAK_MINUTES says how long: 1 unless it says 30.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import uvloop

from hub.postgres.embedded import Embedded
from tests.bench import clients
from tests.bench.clients import Client, cpu, memory
from tests.bench.table import show
from tests.faults.process import Process

MINUTES = float(os.environ.get("HUB_SOAK_MINUTES", "1"))
CLIENTS, CHANNELS, RATE, LIVES = 2_000, 100, 40, 20.0  # a life is so many seconds on average
ROWS = 12
GARBAGE = (b"\xff\xff" * 40, b"\x81\x01x", b"\x81\xff" + bytes([0x7F] * 12), b"\x82\x80\0\0\0\0", b"\x88\x80\0\0\0\0")
BUSY = "SELECT hub.publish($1, $2::text::jsonb), pg_notify($1, $2)"


class Visitors:
    """Clients that stay some seconds each: half with patterns, some that stop reading, some that send garbage."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._chance = random.Random(seed)
        self.counts: Counter[str] = Counter()

    async def one(self, end: float) -> None:
        """One after the other, until the time is up."""
        while time.monotonic() < end:
            (client,) = await clients.connect(self._url, [self._query()], self._take)
            self.counts["connections"] += 1
            try:
                with suppress(RuntimeError):  # uvloop: the handle is closed
                    await self._stay(client, min(end, time.monotonic() + self._chance.uniform(0, 2 * LIVES)))
                    self._part(client)
            finally:
                client.transport.abort()

    def _query(self) -> str:
        chance = self._chance
        if chance.random() < 0.5:
            return f"channel=soak.{chance.randrange(10)}.*&last={chance.randint(1, 50)}"
        return "&".join(f"channel={_channel(chance)}" for _ in range(chance.randint(1, 4)))

    async def _stay(self, client: Client, until: float) -> None:
        kind = self._chance.random()
        if kind < 0.1:
            client.pause()
            self.counts["stopped reading"] += 1
        elif kind < 0.2:
            client.transport.write(self._chance.choice(GARBAGE))
            self.counts["sent garbage"] += 1
        while not client.closed and time.monotonic() < until:
            await asyncio.sleep(0.2)

    def _part(self, client: Client) -> None:
        """Politely, or not at all."""
        if self._chance.random() < 0.5 and not client.closed:
            client.transport.write(b"\x88\x82\0\0\0\0\x03\xe8")
            client.transport.close()
        client.transport.abort()

    def _take(self, _client: Client, frame: bytes) -> None:
        self.counts["bytes"] += len(frame)


def _channel(chance: random.Random) -> str:
    number = chance.randrange(CHANNELS)
    return f"soak.{number // 10}.{number % 10}"


async def publish(dsn: str, chance: random.Random) -> None:
    """RATE events a second of each tier, some of them large."""
    connection = await asyncpg.connect(dsn)
    try:
        while True:
            padding = "x" * (7_000 if chance.random() < 0.05 else 200)
            await connection.execute(BUSY, _channel(chance), orjson.dumps({"padding": padding}).decode())
            await asyncio.sleep(1 / RATE)
    finally:
        connection.terminate()


class Observer:
    """Asks the hub what it consists of."""

    def __init__(self, hub: Process, path: Path) -> None:
        self._hub = hub
        self._path = path
        self._number = 0

    async def ask(self) -> dict[str, Any]:
        self._number += 1
        self._hub.signal(signal.SIGUSR1)
        async with asyncio.timeout(60):
            while True:
                with suppress(FileNotFoundError):
                    found: dict[str, Any] = orjson.loads(self._path.read_bytes())
                    if found["number"] == self._number:
                        return found | {"memory": memory(self._hub.pid), "cpu": cpu(self._hub.pid)}
                await asyncio.sleep(0.01)  # the answer is a file

    async def alone(self, tasks: int) -> dict[str, Any]:
        """What it consists of when all have gone, as soon as they have."""
        async with asyncio.timeout(150):  # the last to go are those that do not read
            while True:
                found = await self.ask()
                if not found["sessions"] and found["tasks"] <= tasks:
                    return found
                await asyncio.sleep(0.2)


@pytest.mark.bench
@pytest.mark.timeout(300 + 90 * MINUTES)
def test_clients_that_come_and_go(data_dir: Path, tmp_path: Path) -> None:
    embedded = Embedded(data_dir)
    asyncio.run(embedded.start())
    report = tmp_path / "report"
    settings = {"HUB_DATABASE_URL": embedded.dsn, "HUB_STALL_TIMEOUT": "15", "HUB_TEST_REPORT": str(report)}
    hub = Process(tmp_path / "log", module="tests.bench.observed", **settings)
    seed = random.randrange(1 << 30)

    async def course() -> tuple[list[list[str]], dict[str, Any], dict[str, Any], Counter[str]]:
        await hub.start()
        observer, visitors = Observer(hub, report), Visitors(hub.ws, seed)
        before = await observer.ask()
        rows, start = [_row(0, before)], time.monotonic()
        end = start + 60 * MINUTES
        publishing = asyncio.create_task(publish(embedded.dsn, random.Random(seed)))
        visiting = [asyncio.create_task(visitors.one(end)) for _ in range(CLIENTS)]
        try:
            for row in range(1, ROWS + 1):
                await asyncio.sleep(max(0.0, start + 60 * MINUTES * row / ROWS - time.monotonic()))
                rows.append(_row(time.monotonic() - start, await observer.ask()))
            await asyncio.gather(*visiting)
            after = await observer.alone(before["tasks"])
            rows.append(_row(time.monotonic() - start, after))
            assert await hub.end(signal.SIGTERM) == 0
        finally:
            await hub.end(signal.SIGKILL)
            for task in (publishing, *visiting):
                task.cancel()
            await asyncio.gather(publishing, *visiting, return_exceptions=True)
        return rows, before, after, visitors.counts

    try:
        rows, before, after, counts = uvloop.run(course())
    finally:
        asyncio.run(embedded.stop())
    head = ["minute", "memory, MB", "CPU, s", "sessions", "behind", "groups", "channels", "tasks", "fds"]
    show(f"{CLIENTS} clients come and go, seed {seed}: {dict(counts)}", head, rows)
    assert (after["sessions"], after["groups"], after["channels"]) == (0, 0, 0)
    assert after["tasks"] <= before["tasks"]
    assert [line for line in hub.logged() if line["level"] in ("error", "critical")] == []


def _row(seconds: float, found: dict[str, Any]) -> list[str]:
    names = ("sessions", "behind", "groups", "channels", "tasks", "fds")
    return [
        f"{seconds / 60:.1f}",
        f"{found['memory']:.0f}",
        f"{found['cpu']:.0f}",
        *(str(found[name]) for name in names),
    ]
