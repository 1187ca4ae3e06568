"""Commit to receipt of durable events: while the hub is awake and tails, and when it sleeps and is rung for."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import orjson
import pytest
import uvloop

from hub.postgres.embedded import Embedded
from tests.bench.clients import Client, connected, until
from tests.bench.server import serving
from tests.bench.table import percentile, show

AWAKE, ASLEEP, PAUSE = 1_000, 12, 6.0


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_latency_of_durable_events(data_dir: Path) -> None:
    embedded = Embedded(data_dir)
    asyncio.run(embedded.start())

    async def course(url: str) -> list[list[str]]:
        late: list[float] = []

        def on_frame(_client: Client, frame: bytes) -> None:
            now = time.perf_counter_ns()
            for event in orjson.loads(frame).get("events", ()):
                payload = event["payload"]
                late.append((now - (payload if isinstance(payload, int) else payload[1])) / 1e6)

        async def measure(
            clients: list[Client], name: str, module: str, rate: float, count: int, *more: str
        ) -> list[str]:
            late.clear()
            command = ["-m", module, embedded.dsn, "latency", str(rate), *more, str(count)]
            process = await asyncio.create_subprocess_exec(sys.executable, *command)
            assert await process.wait() == 0
            await until(lambda: len(late) >= count, clients)
            return [name, f"{percentile(late, 50):.2f}", f"{percentile(late, 99):.2f}", f"{max(late):.2f}"]

        durable = "tests.bench.durable_producer"
        async with connected(url, ["channel=latency"], on_frame) as clients:
            return [
                await measure(clients, "NOTIFY, 100 a second", "tests.bench.producer", 100, AWAKE),
                await measure(clients, "hub.publish, 100 a second: awake", durable, 100, AWAKE, "0"),
                await measure(clients, "hub.publish, 1,000 a second: awake", durable, 1_000, 5 * AWAKE, "0"),
                await measure(clients, f"hub.publish, every {PAUSE:.0f} s: asleep", durable, 1 / PAUSE, ASLEEP, "0"),
            ]

    try:
        with serving(embedded.dsn) as (url, _):
            rows = uvloop.run(course(url))
    finally:
        asyncio.run(embedded.stop())
    show("Milliseconds from commit to receipt", ["", "p50", "p99", "greatest"], rows)
