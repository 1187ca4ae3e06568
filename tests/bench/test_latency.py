"""Commit to receipt: the hub beside a bare asyncpg listener.

One producer, one subscriber, 100 events a second; producer, hub and subscriber are a process each. The difference is
what the way through the hub costs.
"""

from __future__ import annotations

import asyncio
import sys
import time

import asyncpg
import orjson
import pytest
import uvloop

from tests.bench.receiver import receive
from tests.bench.server import serving
from tests.bench.table import percentile, show, spread

RATE, EVENTS, ROUNDS = 100, 2_000, 5
CHANNEL = "latency"


async def produce(dsn: str) -> None:
    module = ["-m", "tests.bench.producer", dsn, CHANNEL, str(RATE), str(EVENTS)]
    process = await asyncio.create_subprocess_exec(sys.executable, *module)
    assert await process.wait() == 0


async def bare(dsn: str) -> list[float]:
    taken: list[float] = []
    done = asyncio.Event()

    def on_notification(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        now = time.perf_counter_ns()
        taken.append((now - int(payload)) / 1e6)
        if len(taken) == EVENTS:
            done.set()

    listener = await asyncpg.connect(dsn)
    await listener.add_listener(CHANNEL, on_notification)
    await produce(dsn)
    await done.wait()
    await listener.close()
    return taken


async def through_hub(url: str, dsn: str) -> list[float]:
    taken: list[float] = []
    live, done = asyncio.Event(), asyncio.Event()

    def on_frame(frame: bytes) -> None:
        now = time.perf_counter_ns()
        message = orjson.loads(frame)
        if message["type"] == "subscribed":
            live.set()
        taken.extend((now - item["payload"]) / 1e6 for item in message.get("events", ()))
        if len(taken) == EVENTS:
            done.set()

    transport = await receive(f"{url}?channel={CHANNEL}", on_frame)
    await live.wait()
    await produce(dsn)
    await done.wait()
    transport.close()
    return taken


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_latency_from_commit_to_receipt(database: str) -> None:
    async def rounds(url: str) -> tuple[list[list[float]], list[list[float]]]:
        ours, theirs = [], []
        for _ in range(ROUNDS):
            theirs.append(await bare(database))
            ours.append(await through_hub(url, database))
        return ours, theirs

    with serving(database) as (url, _):
        ours, theirs = uvloop.run(rounds(url))
    rows = []
    for percent in (50, 99):
        hub = [percentile(taken, percent) for taken in ours]
        plain = [percentile(taken, percent) for taken in theirs]
        ratio = [a / b for a, b in zip(hub, plain, strict=True)]
        rows.append([f"p{percent}", spread(plain), spread(hub), spread(ratio)])
    show(
        f"Milliseconds from commit to receipt, {ROUNDS} rounds of {EVENTS} events at {RATE} a second",
        ["", "bare listener", "through the hub", "ratio"],
        rows,
    )
