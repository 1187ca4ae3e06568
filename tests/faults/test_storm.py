"""Two minutes of everything that can go wrong: what was committed, what each client got of it, and in which order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import uvloop

from hub import patterns
from hub.postgres import postmaster
from hub.postgres.embedded import Embedded
from tests.bench import clients
from tests.bench.server import Hub
from tests.bench.table import show
from tests.faults import judge
from tests.faults.producers import CHANNELS, FAILURES, PRODUCERS

CLIENTS, SECONDS = 200, float(os.environ.get("HUB_BENCH_SECONDS", "120"))
HUB_KILLS, RESTARTS = 5, 2


class Follower:
    """A client that keeps its cursor with what it got, and is cut off again and again."""

    def __init__(self, url: str, number: int) -> None:
        self.chance = random.Random(number)
        some = self.chance.sample(CHANNELS, self.chance.randint(1, 4))
        self.names = self.chance.choice([some, some, ["faults.*"], ["**"], [*some, "faults.**"]])
        self.url = url
        self.story: list[int] = []
        self.cursor: str | None = None
        self.live = asyncio.Event()
        self.ended: set[str] = set()
        self.gaps: Counter[str] = Counter()
        self.connections = 0
        self.calm = False
        self._current: clients.Client | None = None

    def wants(self, channel: str) -> bool:
        return any(patterns.matches(name, channel) for name in self.names)

    @property
    def done(self) -> bool:
        return self.ended >= {channel for channel in CHANNELS if self.wants(channel)}

    async def run(self) -> None:
        while True:
            query = "&".join(f"channel={name}" for name in self.names)
            since = f"&since={self.cursor}" if self.cursor else ""
            with suppress(OSError, RuntimeError):  # uvloop: the handle is closed
                (self._current,) = await clients.connect(self.url, [query + since], self._take)
                self.connections += 1
                await self._stay(self._current)
            await asyncio.sleep(self.chance.uniform(0.02, 0.5))

    async def _stay(self, client: clients.Client) -> None:
        """Until the connection is lost, by the hub or by us; now and then without reading."""
        until = time.monotonic() + self.chance.choice((0.05, 0.5, 3, 8))
        while not client.closed and (self.calm or not self.live.is_set() or time.monotonic() < until):
            if not self.calm and self.chance.random() < 0.05:
                client.pause()
                await asyncio.sleep(self.chance.uniform(0, 2))
                if not client.closed:
                    client.go_on()
            await asyncio.sleep(0.1)
        self.drop()

    def drop(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.transport.abort()

    def _take(self, client: clients.Client, frame: bytes) -> None:
        if self._current not in (client, None) or client.closed:
            return  # of a connection that was given up
        message: dict[str, Any] = orjson.loads(frame)
        for event in message.get("events", ()):
            self.story.append(event["id"])
            if event["payload"].get("end"):
                self.ended.add(event["channel"])
        self.cursor = message.get("cursor", self.cursor)
        if message["type"] == "subscribed":
            self.live.set()
        if message["type"] == "gap":
            self.gaps[message["reason"]] += 1


async def faults(embedded: Embedded, data_dir: Path, hub: Hub, chance: random.Random) -> Counter[str]:
    """Let things go wrong for SECONDS, evenly spread and in random order."""
    planned = ["hub killed"] * HUB_KILLS + ["Postgres restarted", "Postgres crashed"][:RESTARTS]
    chance.shuffle(planned)
    done: Counter[str] = Counter()
    for fault in planned:
        until = time.monotonic() + SECONDS / (len(planned) + 1)
        while time.monotonic() < until:
            done["backends terminated"] += await terminate(embedded.dsn, chance)
            await asyncio.sleep(chance.uniform(0.2, 2))
        done[fault] += 1
        if fault == "hub killed":
            await hub.kill()
        else:
            if fault == "Postgres crashed" and (found := postmaster.read(data_dir / "postgres")):
                os.kill(found.pid, signal.SIGQUIT)
            await embedded.stop()
            await embedded.start()
    return done


async def terminate(dsn: str, chance: random.Random) -> int:
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except FAILURES:
        return 0
    try:
        pids = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
        for row in chance.sample(pids, min(len(pids), 2)):
            await connection.execute("SELECT pg_terminate_backend($1) WHERE $1 <> pg_backend_pid()", row["pid"])
    except FAILURES:
        return 0
    finally:
        connection.terminate()
    return 2


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_comes_twice(data_dir: Path) -> None:
    seed = random.randrange(1 << 30)
    embedded = Embedded(data_dir, options={"max_connections": "150"})
    asyncio.run(embedded.start())
    hub = Hub(embedded.dsn)

    async def course() -> tuple[Counter[str], Counter[str], Counter[str], int]:
        await hub.start()
        followers = [Follower(hub.url, seed + number) for number in range(CLIENTS)]
        running = [asyncio.create_task(follower.run()) for follower in followers]
        await asyncio.gather(*(follower.live.wait() for follower in followers))
        command = [sys.executable, "-m", "tests.faults.producers", embedded.dsn, str(SECONDS), str(seed)]
        producers = await asyncio.create_subprocess_exec(*command)
        done = await faults(embedded, data_dir, hub, random.Random(seed))
        await producers.wait()
        connection = await asyncpg.connect(embedded.dsn)
        for channel in CHANNELS:
            await connection.execute("SELECT hub.publish($1, '{\"end\": true}')", channel)
        for follower in followers:
            follower.calm = True
        async with asyncio.timeout(60):
            while not all(follower.done for follower in followers):
                assert not [task for task in running if task.done()]
                await asyncio.sleep(0.1)
        rows = await connection.fetch("SELECT id, channel, payload FROM hub.events")
        await connection.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for follower in followers:
            follower.drop()
        committed = {row["id"]: judge.fact(row["channel"], row["payload"]) for row in rows}
        wrong: Counter[str] = Counter()
        totals: Counter[str] = Counter()
        for follower in followers:
            wrong += judge.durable(follower.story, follower.wants, committed)
            totals += follower.gaps
            totals["connections"] += follower.connections
            totals["received"] += len(follower.story)
        return done, wrong, totals, len(committed)

    try:
        done, wrong, totals, committed = uvloop.run(course())
    finally:
        hub.close()
        asyncio.run(embedded.stop())
    rows = [["committed", str(committed)], *([name, str(count)] for name, count in sorted(done.items()))]
    rows += [[name, str(totals[name])] for name in ("received", "connections", "expired", "reset", "failover")]
    rows += [
        [name, str(wrong[name])] for name in ("lost", "twice", "never committed", "out of order", "before their cause")
    ]
    show(f"{PRODUCERS} producers, {CLIENTS} clients, {SECONDS:.0f} s, seed {seed}", ["", ""], rows)
    assert not +wrong
    assert not totals["expired"] + totals["reset"] + totals["failover"]
