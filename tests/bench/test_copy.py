"""A million rows land by COPY: how late another channel's events are meanwhile."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import uvloop

from hub.postgres.embedded import Embedded
from tests.bench.clients import Client, connected, memory, until
from tests.bench.server import serving
from tests.bench.table import percentile, show

ROWS, RATE, SECONDS = 1_000_000, 100, 45


async def lines() -> AsyncIterator[bytes]:
    for start in range(0, ROWS, 10_000):
        yield "".join(f'bulk\t{{"n": {number}}}\n' for number in range(start, start + 10_000)).encode()


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_a_million_rows_by_copy(data_dir: Path) -> None:
    embedded = Embedded(data_dir)
    asyncio.run(embedded.start())

    async def course(url: str, process: int) -> list[list[str]]:
        late: list[tuple[float, float]] = []
        bulk: list[int] = []

        def on_frame(_client: Client, frame: bytes) -> None:
            now = time.perf_counter_ns()
            message: dict[str, Any] = orjson.loads(frame)
            assert message["type"] != "gap"
            for event in message.get("events", ()):
                payload = event["payload"]
                if event["channel"] == "bulk":
                    bulk.append(payload["n"])
                else:
                    late.append((now / 1e9, (now - payload[1]) / 1e6))

        async with connected(url, ["channel=steady", "channel=bulk"], on_frame) as clients:
            module = ["-m", "tests.bench.durable_producer", embedded.dsn, "steady", str(RATE), "0", str(RATE * SECONDS)]
            producer = await asyncio.create_subprocess_exec(sys.executable, *module)
            await asyncio.sleep(5)
            before, start = memory(process), time.perf_counter()
            connection = await asyncpg.connect(embedded.dsn)
            try:
                await connection.copy_to_table(
                    "events", schema_name="hub", columns=["channel", "payload"], source=lines(), timeout=300
                )
            finally:
                connection.terminate()  # uvloop would wait for it for ever
            copied = time.perf_counter() - start
            await until(lambda: len(bulk) >= ROWS, clients)
            delivered = time.perf_counter()
            after = memory(process)
            await producer.wait()
            await until(lambda: len(late) >= RATE * SECONDS, clients)
            wrong = [(place, number) for place, number in enumerate(bulk) if place != number]
            assert not wrong, f"{len(bulk)} came; {len(wrong)} out of place, first {wrong[:3]}"
            assert len(late) == RATE * SECONDS
        meanwhile = [value for at, value in late if start - 5 <= at <= delivered]
        return [
            ["COPY", f"{copied:.1f} s"],
            ["until the subscriber had all, from the commit", f"{delivered - start - copied:.1f} s"],
            ["the other channel meanwhile, p50", f"{percentile(meanwhile, 50):.1f} ms"],
            ["p99", f"{percentile(meanwhile, 99):.1f} ms"],
            ["greatest", f"{max(meanwhile):.1f} ms"],
            ["memory of the hub, before and after", f"{before:.0f}, {after:.0f} MB"],
            ["lost, twice", "0, 0"],
        ]

    try:
        with serving(embedded.dsn) as (url, process):
            rows = uvloop.run(course(url, process))
    finally:
        asyncio.run(embedded.stop())
    show(f"A COPY of {ROWS} rows lands beside {RATE} events a second on another channel", ["", ""], rows)
