"""Events posted to a whole hub reach its subscribers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest

from tests.conftest import running
from tests.e2e.test_durable import PATIENCE, Follower

LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def count(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval("SELECT count(*) FROM hub.events")
    finally:
        await connection.close()


async def loading(dsn: str) -> int:
    """How many COPYs are under way."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%' "
            "AND state <> 'idle'"
        )
    finally:
        await connection.close()


async def until_loading(dsn: str, expected: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await loading(dsn) != expected:
            await asyncio.sleep(0.02)  # Postgres tells nobody


async def test_what_is_posted_arrives_once_and_in_order(hub: Any, http: aiohttp.ClientSession) -> None:
    follower = await Follower(["orders"]).connect(hub)
    url = hub.url + "/events"
    key = {"Idempotency-Key": "k"}
    for _ in range(2):
        async with http.post(url, json={"channel": "orders", "payload": 0}, headers=key) as answer:
            assert answer.status == 201
        async with http.post(
            url, json=[{"channel": "orders", "payload": n} for n in range(1, 4)], headers=key
        ) as answer:
            assert (answer.status, len((await answer.json())["events"])) == (201, 3)
    lines = b"".join(b'{"channel":"orders","payload":%d}\n' % n for n in range(4, 2_000))
    async with http.post(url, data=lines, headers=LINES) as answer:
        assert (answer.status, await answer.json()) == (201, {"events": 1_996})
    while len(follower.payloads) < 2_000:
        await follower.take()
    assert follower.payloads == list(range(2_000))
    await follower.socket.close()


async def test_an_array_that_fails_in_postgres_leaves_nothing_or_what_is_good(
    hub: Any, http: aiohttp.ClientSession
) -> None:
    array = b'[{"channel":"a","payload":1},{"channel":"a","payload":"\\u0000"},{"channel":"a","payload":2}]'
    json = {"Content-Type": "application/json"}
    async with http.post(hub.url + "/events", data=array, headers=json) as answer:
        assert (answer.status, (await answer.json())["error"]["field"]) == (400, "[1]")
    assert await count(hub.dsn) == 0
    async with http.post(hub.url + "/events?atomic=false", data=array, headers=json) as answer:
        assert answer.status == 207
        assert [result["status"] for result in (await answer.json())["results"]] == [201, 400, 201]
    assert await count(hub.dsn) == 2


async def test_a_bad_line_late_in_a_long_body_leaves_nothing(hub: Any, http: aiohttp.ClientSession) -> None:
    line = orjson.dumps({"channel": "a", "payload": "x" * 100}) + b"\n"

    async def body() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield line * 1_000
        yield b"{}\n"

    async with http.post(hub.url + "/events", data=body(), headers=LINES) as answer:
        assert (answer.status, (await answer.json())["error"]["field"]) == (400, "line 50001")
    assert await count(hub.dsn) == 0


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "stalls"])
async def test_a_client_that_does_not_go_on_leaves_nothing(
    database: str, http: aiohttp.ClientSession, leaves: bool
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"channel":"a","payload":1}\n' * 20_000
        await asyncio.Event().wait()

    async with running(database, stall_timeout=PATIENCE if leaves else 1.0, stream_max=1) as hub:
        task = asyncio.create_task(http.post(hub.url + "/events", data=body(), headers=LINES))
        await until_loading(hub.dsn, 1)
        if leaves:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        else:
            assert (await task).status == 408
        await until_loading(hub.dsn, 0)
        assert await count(hub.dsn) == 0
        async with http.post(hub.url + "/events", data=b'{"channel":"a","payload":1}', headers=LINES) as answer:
            assert answer.status == 201
