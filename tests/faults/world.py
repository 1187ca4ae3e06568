"""A Postgres, a hub, producers and clients, with a network between them that faults can be made in."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from hub.postgres import postmaster
from hub.postgres.embedded import Embedded
from tests.faults import judge
from tests.faults.disk import Disk
from tests.faults.follower import Follower, Stream, WebSocket
from tests.faults.process import Process
from tests.faults.producers import CHANNELS, FAILURES, Notifier, Producer
from tests.proxy import Proxy, proxy

HEARTBEAT = 0.4
HASTE: Any = {"hurry": 4, "padding": 2_000}
LIMIT = 60.0  # seconds that anything may take; none of them is measured by it
COMMITTED = "SELECT id, channel, payload FROM hub.events WHERE id > $1"
ENDS = "INSERT INTO hub.events (channel, payload) SELECT unnest($1::text[]), $2::text::jsonb"
ENDS_NOTIFY = "SELECT pg_notify(unnest($1::text[]), $2)"


class World:
    """All that takes part; `embedded` serves on `disk`, `database` and `network` are the ways to it and to the hub."""

    def __init__(self, embedded: Embedded, disk: Disk, database: Proxy, process: Process) -> None:
        self.embedded = embedded
        self.disk = disk
        self.database = database
        self.hub = process
        self.network: Proxy
        self.producers: list[Producer] = []
        self.notifiers: dict[int, Notifier] = {}
        self.followers: list[Follower] = []
        self._segment = 0
        self._last = 0  # id of the newest event that was judged

    def populate(self, seed: int, producers: int) -> None:
        """Producers of every kind, and clients: quick and lazy ones, with names and patterns, and streams."""
        chance = random.Random(seed)
        for number in range(producers):
            self.producers.append(
                Producer(self.embedded.dsn, number, random.Random(seed + number), hurry=4, padding=2_000)
            )
        for number in range(producers, producers + 2):
            self.notifiers[number] = Notifier(
                self.embedded.dsn, number, random.Random(seed + number), hurry=4, padding=2_000
            )
        kinds: list[tuple[type[Follower], bool]] = [(WebSocket, False), (Stream, False), (WebSocket, True)]
        for kind, lazy in [*kinds, (Stream, True)]:
            some = chance.sample(CHANNELS, 3)
            for names in (some, ["faults.*"], [*some, "**"]):
                self.followers.append(kind(lambda: self.network.port, names, HEARTBEAT, lazy=lazy))

    @property
    def everybody(self) -> list[Producer]:
        return [*self.producers, *self.notifiers.values()]

    async def traffic(self, transactions: int = 15) -> None:
        """Return after so many more transactions."""
        goal = self._done() + transactions
        await until(lambda: self._done() >= goal)

    def _done(self) -> int:
        return sum(producer.done for producer in self.everybody)

    async def logged(self, event: str, after: int) -> list[dict[str, Any]]:
        """The log from its line `after` on, once `event` stands in it."""
        await until(lambda: any(line["event"] == event for line in self.hub.logged()[after:]))
        return self.hub.logged()[after:]

    def lines(self) -> int:
        return len(self.hub.logged())

    async def ready(self, wanted: bool = True) -> None:
        """Return once the hub says that it is ready, or that it is not."""
        async with aiohttp.ClientSession() as http, asyncio.timeout(LIMIT):
            while True:
                async with http.get(f"{self.hub.url}/readyz") as answer:
                    if (answer.status == 200) is wanted:
                        return
                await asyncio.sleep(0.01)  # nothing tells

    async def backends(self) -> list[int]:
        """The processes of Postgres that serve the hub's listener and its tail."""
        names = ["pghub listener", "pghub tail"]
        rows = await self._fetch("SELECT pid FROM pg_stat_activity WHERE application_name = ANY($1)", names)
        return [row["pid"] for row in rows]

    def kill_postgres(self, number: signal.Signals) -> None:
        found = postmaster.read(self.disk.folder / "postgres")
        assert found is not None
        os.kill(found.pid, number)

    @property
    def postgres_runs(self) -> bool:
        return postmaster.running(self.disk.folder / "postgres") is not None

    async def _fetch(self, query: str, *arguments: object) -> list[Any]:
        """Rows of the database, as soon as it gives some."""
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    connection = await asyncpg.connect(self.embedded.dsn, timeout=5)
                    try:
                        return await connection.fetch(query, *arguments)
                    finally:
                        connection.terminate()
                except FAILURES:
                    await self.embedded.start()  # where it has given up itself
                    await asyncio.sleep(0.02)

    async def settle(self) -> tuple[float, Counter[str]]:
        """Let everybody get everything: the seconds that it took, and what was wrong with it."""
        start = time.perf_counter()
        for producer in self.everybody:
            producer.going.clear()
        for follower in self.followers:
            follower.reading.set()
        await self._fetch("SELECT 1")  # only with a Postgres can a producer get to its end
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*(producer.idle.wait() for producer in self.everybody))
        self._segment += 1
        mark = f'{{"mark": {self._segment}}}'
        await self._fetch(ENDS, list(CHANNELS), mark)
        await until(lambda: not self._without(durable=True), lambda: self._without(durable=True))
        seconds = time.perf_counter() - start
        async with asyncio.timeout(LIMIT):
            while self._without(durable=False):
                await self._fetch(ENDS_NOTIFY, list(CHANNELS), mark)  # again, for those who were not there
                await asyncio.sleep(0.05)
        return seconds, await self._judge()

    def _without(self, *, durable: bool) -> list[Follower]:
        """Who has not got this segment's mark in all channels that it wants, or hears."""
        return [
            follower
            for follower in self.followers
            for channel in filter(follower.wants if durable else follower.hears, CHANNELS)
            if follower.marks.get((channel, durable)) != self._segment
        ]

    async def _judge(self) -> Counter[str]:
        """What was wrong since the last judgement; then everybody goes on."""
        rows = await self._fetch(COMMITTED, self._last)
        facts = {row["id"]: judge.fact(row["channel"], row["payload"]) for row in rows}
        self._last = max(facts)
        wrong: Counter[str] = Counter(committed=len(facts))
        for follower in self.followers:
            wrong += judge.durable(follower.ids, follower.wants, facts) + judge.ephemeral(follower, self.notifiers)
            wrong["received"] += sum(isinstance(entry, dict) for entry in follower.story)
            follower.story.clear()
            follower.reading.clear() if follower.lazy else None
        for notifier in self.notifiers.values():
            for numbers in (*notifier.committed.values(), *notifier.doubtful.values()):
                wrong["NOTIFYs"] += len(numbers)
                numbers.clear()
        for producer in self.everybody:
            producer.going.set()
        return wrong


async def until(condition: Callable[[], bool], state: Callable[[], object] = lambda: "") -> None:
    """Return when `condition` holds, which nothing signals; raises what is the `state` when it never does."""
    try:
        async with asyncio.timeout(LIMIT):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError as error:
        raise AssertionError(state()) from error


@asynccontextmanager
async def world(folder: Path, *, seed: int, producers: int, module: str) -> AsyncIterator[World]:
    """A world in full swing below `folder`."""
    with Disk.below(folder) as disk:
        async with (
            Embedded(disk.folder, options={"max_connections": "100"}) as embedded,
            proxy(embedded.dsn) as between,
        ):
            hub = Process(
                folder / "hub.log",
                module=module,
                HUB_DATABASE_URL=between.dsn,
                HUB_HEARTBEAT=str(HEARTBEAT),
                HUB_DRAIN_SECONDS="0.2",
            )
            made = World(embedded, disk, between, hub)
            await hub.start()
            try:
                async with proxy(lambda: hub.port) as made.network:
                    made.populate(seed, producers)
                    tasks = [asyncio.create_task(follower.run()) for follower in made.followers]
                    try:
                        await asyncio.gather(*(follower.live.wait() for follower in made.followers))
                        tasks += [asyncio.create_task(producer.run()) for producer in made.everybody]
                        yield made
                        assert not [task for task in tasks if task.done()]
                    finally:
                        for task in tasks:
                            task.cancel()
                        await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                await hub.end(signal.SIGTERM)
