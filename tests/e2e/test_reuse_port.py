"""HUB_REUSE_PORT: several hubs on one port, as one to their clients."""

from __future__ import annotations

from contextlib import AsyncExitStack

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosed

from hub.errors import SetupError
from tests.conftest import running
from tests.e2e.test_durable import Follower

CLIENTS = 40
TAILS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pghub tail' AND datname = current_database()"


async def test_hubs_on_one_port_share_the_clients_and_take_over_from_one_another(database: str) -> None:
    producer = await asyncpg.connect(database)
    async with running(database, reuse_port=True) as first:
        async with AsyncExitStack() as going:
            port = int(first.url.rpartition(":")[2])
            second = await going.enter_async_context(running(database, port=port, reuse_port=True))
            assert second.url == first.url
            assert await producer.fetchval(TAILS) == 2
            followers = [await Follower(["orders"]).connect(first) for _ in range(CLIENTS)]
            await producer.execute("SELECT hub.publish('orders', '1')")
            for follower in followers:
                assert await follower.until(1) == [1]
        await producer.execute("SELECT hub.publish('orders', '2')")
        moved = 0
        for follower in followers:
            try:
                await follower.until(2)
            except ConnectionClosed:
                moved += 1
                await follower.connect(first)
            assert await follower.until(2) == [1, 2]
            await follower.socket.close()
        assert 0 < moved < CLIENTS, "the kernel dealt them out"
    await producer.close()


async def test_a_port_is_shared_only_by_those_who_agree(database: str) -> None:
    async with running(database) as hub:
        port = int(hub.url.rpartition(":")[2])
        with pytest.raises(SetupError, match="Stop what uses it"):
            async with running(database, port=port, reuse_port=True):
                pass
