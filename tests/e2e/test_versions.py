"""Every Postgres that is installed here, from a fresh cluster to a websocket."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import orjson
import pytest
from websockets.asyncio.client import connect

from hub.postgres import binaries
from hub.postgres.embedded import Embedded
from tests.conftest import running


@pytest.mark.parametrize("found", binaries.installed(), ids=lambda found: f"postgres{found.major}")
async def test_the_hub_runs_on_this_version(found: binaries.Binaries, data_dir: Path) -> None:
    async with (
        Embedded(data_dir, bin_dir=found.bin, options={"fsync": "off"}) as embedded,
        running(embedded.dsn) as hub,
    ):
        producer = await asyncpg.connect(hub.dsn)
        assert producer.get_server_version().major == found.major
        async with connect(f"{hub.ws}?channel=orders") as socket:
            for kind in ("welcome", "subscribed"):
                assert orjson.loads(await socket.recv())["type"] == kind
            await producer.execute("NOTIFY orders, '42'")
            assert orjson.loads(await socket.recv())["events"][0]["payload"] == 42
            await producer.execute("SELECT hub.publish('orders', '43')")
            assert orjson.loads(await socket.recv())["events"][0]["payload"] == 43
        await producer.close()
