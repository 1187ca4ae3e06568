"""Producers of every kind that go on whatever happens to their connections, and say what they did.

python -m tests.faults.producers DSN SECONDS SEED
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

import asyncpg
import orjson
import uvloop

PRODUCERS = 40
CHANNELS = tuple(f"faults.{number}" for number in range(10))
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
NOTIFY = "SELECT pg_notify($1, $2)"
PUBLISH = "SELECT hub.publish($1, $2::text::jsonb)"
INSERT = "INSERT INTO hub.events (channel, payload) VALUES ($1, $2::text::jsonb)"


class Producer:
    """Trades as long as `going` is set. Its numbers rise, with holes where it rolled back."""

    def __init__(self, dsn: str, number: int, chance: random.Random, *, hurry: float = 1.0, padding: int = 0) -> None:
        self.going = asyncio.Event()
        self.going.set()
        self.idle = asyncio.Event()
        self.done = 0  # transactions that ended as they should
        self.failures: dict[type[Exception], int] = {}
        self._dsn = dsn
        self._number = number
        self._chance = chance
        self._hurry = hurry  # by so much its pauses are divided
        self._padding = padding  # bytes at the most that make a payload larger
        self._count = 0

    async def run(self) -> None:
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=5, command_timeout=20)
            except FAILURES as error:
                await self._fail(error)
                continue
            try:
                while True:
                    await self._pause()
                    await self._trade(connection)
                    self.done += 1
            except FAILURES as error:  # cut off: what was not committed is nobody's loss
                await self._fail(error)
            finally:
                connection.terminate()

    async def _fail(self, error: Exception) -> None:
        self.failures[type(error)] = self.failures.get(type(error), 0) + 1
        await self._sleep(0.3)

    async def _pause(self) -> None:
        if not self.going.is_set():
            self.idle.set()
            await self.going.wait()
            self.idle.clear()
        await self._sleep(self._chance.uniform(0, 0.1))

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._hurry)

    def _payload(self, **fields: object) -> str:
        self._count += 1
        padding = "x" * self._chance.randint(0, self._padding)
        return orjson.dumps({"by": self._number, "n": self._count, "padding": padding} | fields).decode()

    async def _trade(self, connection: asyncpg.Connection) -> None:
        """One transaction: early or late with its xid, slow or quick, in part or as a whole rolled back."""
        chance = self._chance
        await connection.execute(f"BEGIN ISOLATION LEVEL {'REPEATABLE READ' if self._number % 2 else 'READ COMMITTED'}")
        if chance.random() < 0.2:
            await connection.execute("SELECT pg_current_xact_id()")
            await self._sleep(chance.uniform(0, 1) ** 3)
        if chance.random() < 0.2:
            await connection.execute("SAVEPOINT gone")
            await self._publish(connection)
            await connection.execute("ROLLBACK TO gone")
        for _ in range(chance.randint(1, 4)):
            await self._publish(connection)
        await connection.execute("ROLLBACK" if chance.random() < 0.15 else "COMMIT")

    async def _publish(self, connection: asyncpg.Connection) -> None:
        """An event that names the newest one that its producer has seen."""
        saw = await connection.fetchval("SELECT max(id) FROM hub.events")
        statement = PUBLISH if self._chance.random() < 0.5 else INSERT
        await connection.execute(statement, self._chance.choice(CHANNELS), self._payload(saw=saw))


class Notifier(Producer):
    """Sends NOTIFYs, and knows what became of each, by channel: `committed`, or `doubtful` where nobody told."""

    def __init__(self, dsn: str, number: int, chance: random.Random, *, hurry: float = 1.0, padding: int = 0) -> None:
        super().__init__(dsn, number, chance, hurry=hurry, padding=padding)
        self.committed: dict[str, set[int]] = {name: set() for name in CHANNELS}
        self.doubtful: dict[str, set[int]] = {name: set() for name in CHANNELS}

    async def _trade(self, connection: asyncpg.Connection) -> None:
        rolls_back = self._chance.random() < 0.15
        sent: list[tuple[str, int]] = []
        await connection.execute("BEGIN")
        for _ in range(self._chance.randint(1, 4)):
            channel, payload = self._chance.choice(CHANNELS), self._payload()
            sent.append((channel, self._count))
            await connection.execute(NOTIFY, channel, payload)
        if rolls_back:
            await connection.execute("ROLLBACK")
            return
        for channel, number in sent:
            self.doubtful[channel].add(number)
        await connection.execute("COMMIT")
        for channel, number in sent:
            self.doubtful[channel].discard(number)
            self.committed[channel].add(number)


async def main(dsn: str, seconds: float, seed: int) -> None:
    producers = [Producer(dsn, number, random.Random(seed + number)) for number in range(PRODUCERS)]
    until = time.monotonic() + seconds
    tasks = [asyncio.create_task(producer.run()) for producer in producers]
    await asyncio.sleep(until - time.monotonic())
    for producer in producers:
        producer.going.clear()
    await asyncio.gather(*(producer.idle.wait() for producer in producers))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
