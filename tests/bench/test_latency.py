"""Commit to receipt: the hub beside a bare asyncpg listener.

One producer, one subscriber, 100 events a second. Producer and receiver share a process, so that one clock tells
both ends; the hub runs in its own. The difference is what the way through the hub costs.
"""

from __future__ import annotations

import asyncio
import time

import aiohttp
import asyncpg
import orjson
import pytest
import uvloop

from tests.bench.server import serving
from tests.bench.table import percentile, show, spread

RATE, EVENTS, ROUNDS = 100, 2_000, 5
CHANNEL = "latency"


async def produce(connection: asyncpg.Connection) -> None:
    """Events that carry the time when they were sent, at an even pace."""
    start = time.perf_counter()
    for number in range(EVENTS):
        await asyncio.sleep(max(0.0, start + number / RATE - time.perf_counter()))
        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, str(time.perf_counter_ns()))


async def bare(dsn: str, connection: asyncpg.Connection) -> list[float]:
    taken: list[float] = []
    listener = await asyncpg.connect(dsn)
    await listener.add_listener(CHANNEL, lambda *message: taken.append(since(int(message[3]))))
    await produce(connection)
    while len(taken) < EVENTS:
        await asyncio.sleep(0.01)
    await listener.close()
    return taken


async def through_hub(url: str, connection: asyncpg.Connection) -> list[float]:
    taken: list[float] = []
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}?channel={CHANNEL}") as socket:
        while orjson.loads((await socket.receive()).data)["type"] != "subscribed":
            pass
        producing = asyncio.create_task(produce(connection))
        while len(taken) < EVENTS:
            message = orjson.loads((await socket.receive()).data)
            taken += [since(item["payload"]) for item in message.get("events", ())]
        await producing
    return taken


def since(stamp: int) -> float:
    return (time.perf_counter_ns() - stamp) / 1e6


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_latency_from_commit_to_receipt(database: str) -> None:
    async def rounds(url: str) -> tuple[list[list[float]], list[list[float]]]:
        connection = await asyncpg.connect(database)
        ours, theirs = [], []
        for _ in range(ROUNDS):
            theirs.append(await bare(database, connection))
            ours.append(await through_hub(url, connection))
        await connection.close()
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
