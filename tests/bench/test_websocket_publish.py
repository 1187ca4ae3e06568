"""Publishing over websockets: events a second that are acknowledged after their commit, by how many are under way."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest
import uvloop

from hub.postgres.embedded import Embedded
from tests.bench.clients import Client, connected, cpu
from tests.bench.load import masked
from tests.bench.server import serving
from tests.bench.table import show

SECONDS = 4.0
COURSES = ((1, 1), (1, 64), (64, 1), (64, 16))  # clients, publishes of each under way
PAYLOAD = {
    "status": "paid",
    "customer": "someone with a name",
    "total": 17.25,
    "note": "as usual please",
}


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_publishes_a_second(data_dir: Path) -> None:
    embedded = Embedded(data_dir)
    asyncio.run(embedded.start())

    async def course(url: str, process: int, clients: int, under_way: int, *, durable: bool) -> list[str]:
        numbers: Counter[Client] = Counter()
        acknowledged = 0

        def publish(client: Client) -> None:
            numbers[client] += 1
            # Each another one: equal NOTIFYs of a transaction are one to Postgres, so the hub keeps them apart.
            payload = PAYLOAD | {"order": numbers.total()}
            command = {
                "type": "publish",
                "id": numbers[client],
                "channel": "chat",
                "payload": payload,
                "durable": durable,
            }
            client.transport.write(masked(orjson.dumps(command)))

        def on_frame(client: Client, frame: bytes) -> None:
            nonlocal acknowledged
            message = orjson.loads(frame)
            assert message["type"] in ("welcome", "published"), message
            if message["type"] == "published":
                acknowledged += 1
                publish(client)

        async with connected(url, [""] * clients, on_frame) as made:
            for client in made:
                for _ in range(under_way):
                    publish(client)
            await asyncio.sleep(0.5)
            before, used, start = acknowledged, cpu(process), time.perf_counter()
            await asyncio.sleep(SECONDS)
            seconds = time.perf_counter() - start
            rate, busy = (acknowledged - before) / seconds, (cpu(process) - used) / seconds
            assert not [client.failure for client in made if client.failure]
        tier = "durable" if durable else "NOTIFY"
        return [tier, str(clients), str(under_way), f"{rate:.0f}", f"{100 * busy:.0f} %"]

    rows = []
    try:
        with serving(embedded.dsn) as (url, process):
            for durable in (True, False):
                for clients, under_way in COURSES:
                    rows.append(uvloop.run(course(url, process, clients, under_way, durable=durable)))
    finally:
        asyncio.run(embedded.stop())
    show(
        "Publishes over websockets", ["", "clients", "under way each", "acknowledged a second", "CPU of the hub"], rows
    )
