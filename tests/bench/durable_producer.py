"""A producer in a process of its own: durable events with a number and the time when they were sent, at an even pace.

python -m tests.bench.durable_producer DSN CHANNEL RATE FIRST COUNT [PADDING]
"""

from __future__ import annotations

import asyncio
import sys
import time

import asyncpg
import uvloop


async def produce(dsn: str, channel: str, rate: float, first: int, count: int, padding: str) -> None:
    connection = await asyncpg.connect(dsn)
    publish = "SELECT hub.publish($1, jsonb_build_array($2::int, $3::bigint, $4::text))"
    start = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        await connection.execute(publish, channel, first + number, time.perf_counter_ns(), padding)
    await connection.close()


if __name__ == "__main__":
    dsn, channel, rate, first, count, *padding = sys.argv[1:]
    uvloop.run(produce(dsn, channel, float(rate), int(first), int(count), "".join(padding)))
