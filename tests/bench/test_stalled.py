"""A thousand clients that stop reading under load: the hub's memory, the others' latency, and what the thousand get."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop

from hub.postgres.embedded import Embedded
from tests.bench.clients import Client, connected, memory, until
from tests.bench.server import serving
from tests.bench.table import percentile, show

STALLED, READERS, RATE, SECONDS = 1_000, 20, 500, 15
PADDING = "x" * 400


class Story:
    """What one client got: numbers in order, and how late each was in milliseconds."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.late: list[float] = []
        self.gaps = 0

    def take(self, frame: bytes) -> None:
        now = time.perf_counter_ns()
        message: dict[str, Any] = orjson.loads(frame)
        self.gaps += message["type"] == "gap"
        for event in message.get("events", ()):
            number, sent = event["payload"][:2]
            self.numbers.append(number)
            self.late.append((now - sent) / 1e6)


async def produce(dsn: str, first: int, count: int) -> None:
    """Events at RATE a second, from another process."""
    module = ["-m", "tests.bench.durable_producer", dsn, "flood", str(RATE), str(first), str(count), PADDING]
    process = await asyncio.create_subprocess_exec(sys.executable, *module)
    assert await process.wait() == 0


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_clients_that_stop_reading(data_dir: Path) -> None:
    embedded = Embedded(data_dir)
    asyncio.run(embedded.start())
    count = RATE * SECONDS

    async def course(url: str, process: int) -> list[list[str]]:
        stories: dict[Client, Story] = {}
        counts: dict[Client, list[int]] = {}

        def read(client: Client, frame: bytes) -> None:
            stories.setdefault(client, Story()).take(frame)

        def count_only(client: Client, frame: bytes) -> None:
            # A thousand stories would measure this process: their numbers are enough.
            message = orjson.loads(frame)
            assert message["type"] != "gap"
            counts.setdefault(client, []).extend([event["payload"][0] for event in message.get("events", ())])

        async with AsyncExitStack() as stack:
            readers = await stack.enter_async_context(connected(url, ["channel=flood"] * READERS, read))
            await produce(embedded.dsn, 0, count)
            alone = memory(process)
            stalled = await stack.enter_async_context(connected(url, ["channel=flood"] * STALLED, count_only))
            await asyncio.sleep(2)
            for client in stalled:
                client.pause()
            sizes = [memory(process)]
            producing = asyncio.create_task(produce(embedded.dsn, count, count))
            while not producing.done():
                await asyncio.sleep(SECONDS / 5)
                sizes.append(memory(process))
            await producing
            await until(lambda: all(len(story.numbers) >= 2 * count for story in stories.values()), readers)
            start = time.perf_counter()
            for client in stalled:
                client.go_on()
            await until(lambda: all(len(counts.get(client, ())) >= count for client in stalled), stalled, 300)
            seconds = time.perf_counter() - start
            sizes.append(memory(process))
        for story in stories.values():
            assert story.numbers == list(range(2 * count))
            assert not story.gaps
        expected = list(range(count, 2 * count))
        assert all(numbers == expected for numbers in counts.values())
        rows = []
        for name, part in (("alone", slice(0, count)), ("beside those that stalled", slice(count, None))):
            late = [value for story in stories.values() for value in story.late[part]]
            rows.append(
                [
                    f"latency of the readers, {name}",
                    f"p50 {percentile(late, 50):.1f} ms, p99 {percentile(late, 99):.1f} ms",
                ]
            )
        before, *stalling, end = [f"{size:.0f}" for size in sizes]
        return [
            *rows,
            ["memory of the hub, readers only", f"{alone:.0f} MB"],
            ["with the others connected", f"{before} MB"],
            ["while they stall, every few seconds", f"{' '.join(stalling)} MB"],
            ["when they have caught up", f"{end} MB"],
            [f"until all {STALLED} had all {count}, in order", f"{seconds:.1f} s"],
            ["lost, twice", "0, 0"],
        ]

    try:
        with serving(embedded.dsn) as (url, process):
            rows = uvloop.run(course(url, process))
    finally:
        asyncio.run(embedded.stop())
    show(f"{STALLED} clients stop reading for {SECONDS} s at {RATE} events a second of 450 bytes", ["", ""], rows)
