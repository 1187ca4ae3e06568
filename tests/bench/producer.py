"""A producer in a process of its own: NOTIFYs that carry the time when they were sent, at an even pace.

python -m tests.bench.producer DSN CHANNEL RATE COUNT
"""

from __future__ import annotations

import asyncio
import sys
import time

import asyncpg
import uvloop


async def produce(dsn: str, channel: str, rate: float, count: int) -> None:
    connection = await asyncpg.connect(dsn)
    start = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        # perf_counter is the system's monotonic clock on Linux: the receiver, another process, reads the same one.
        await connection.execute("SELECT pg_notify($1, $2)", channel, str(time.perf_counter_ns()))
    await connection.close()


if __name__ == "__main__":
    uvloop.run(produce(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
