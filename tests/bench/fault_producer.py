"""Forty producers of every kind in one process, that go on whatever happens to their connections.

python -m tests.bench.fault_producer DSN SECONDS SEED
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
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)


async def produce(dsn: str, number: int, until: float, chance: random.Random) -> None:
    while time.monotonic() < until:
        try:
            connection = await asyncpg.connect(dsn, timeout=5, command_timeout=20)
        except FAILURES:
            await asyncio.sleep(chance.uniform(0.05, 0.3))
            continue
        try:
            while time.monotonic() < until:
                await trade(connection, number, chance)
                await asyncio.sleep(chance.uniform(0, 0.1))
        except FAILURES:
            pass  # cut off: what was not committed is nobody's loss
        finally:
            connection.terminate()


async def trade(connection: asyncpg.Connection, number: int, chance: random.Random) -> None:
    """One transaction: early or late with its xid, slow or quick, in part or as a whole rolled back."""
    await connection.execute(f"BEGIN ISOLATION LEVEL {'REPEATABLE READ' if number % 2 else 'READ COMMITTED'}")
    if chance.random() < 0.2:
        await connection.execute("SELECT pg_current_xact_id()")
        await asyncio.sleep(chance.uniform(0, 1) ** 3)
    if chance.random() < 0.2:
        await connection.execute("SAVEPOINT gone")
        await publish(connection, chance)
        await connection.execute("ROLLBACK TO gone")
    for _ in range(chance.randint(1, 4)):
        await publish(connection, chance)
    await connection.execute("ROLLBACK" if chance.random() < 0.15 else "COMMIT")


async def publish(connection: asyncpg.Connection, chance: random.Random) -> None:
    """An event that names the newest one that its producer has seen."""
    saw = await connection.fetchval("SELECT max(id) FROM hub.events")
    payload = orjson.dumps({"saw": saw}).decode()
    if chance.random() < 0.5:
        await connection.execute("SELECT hub.publish($1, $2::text::jsonb)", chance.choice(CHANNELS), payload)
    else:
        insert = "INSERT INTO hub.events (channel, payload) VALUES ($1, $2::text::jsonb)"
        await connection.execute(insert, chance.choice(CHANNELS), payload)


async def main(dsn: str, seconds: float, seed: int) -> None:
    until = time.monotonic() + seconds
    await asyncio.gather(*(produce(dsn, each, until, random.Random(seed + each)) for each in range(PRODUCERS)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
