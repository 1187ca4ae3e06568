"""How many wait for a connection."""

from __future__ import annotations

import asyncio

import pytest

from hub.postgres.connect import Target, pool


async def test_those_who_wait_are_counted_however_their_waiting_ends(database: str) -> None:
    async with pool(Target(database), min_size=0, max_size=1) as opened:
        async with opened.acquire():
            waiting = [asyncio.create_task(opened.fetchval("SELECT 1")) for _ in range(3)]
            late = asyncio.ensure_future(opened.acquire(timeout=60))
            await asyncio.sleep(0)
            assert opened.waiting == 4
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
            assert opened.waiting == 3
        assert await asyncio.gather(*waiting) == [1, 1, 1]
        assert opened.waiting == 0
