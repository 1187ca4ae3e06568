"""Server-sent events through whole hubs: nothing lost, nothing twice, whoever goes away meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from tests.conftest import running
from tests.web.events import Received

PATIENCE = 30
EVENTS = 300


@pytest.fixture
async def producer(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(read_bufsize=1 << 14) as session:
        yield session


async def publish(producer: asyncpg.Connection, first: int, last: int, size: int = 0) -> None:
    """The numbers from `first` to `last`, each with `size` bytes of ballast."""
    await producer.execute(
        "SELECT count(hub.publish('orders', jsonb_build_array(n, repeat('x', $3::int))))"
        " FROM generate_series($1::int, $2::int) AS n",
        first,
        last,
        size,
    )


async def numbers(
    http: aiohttp.ClientSession, url: str, received: Received, *, last: int, give_up: int | None = None
) -> None:
    """Read as an EventSource does until the event `last` has come, or leave in the middle after `give_up` bytes."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": received.id} if received.id else {})
    taken = 0
    async with http.get(f"{url}/events?channel=orders&last=1000", headers=headers) as response:
        async with asyncio.timeout(PATIENCE):
            while last not in got(received) and (give_up is None or taken < give_up):
                data = await response.content.readany()
                taken += len(data)
                received.feed(data)


def got(received: Received) -> list[int]:
    return [made["payload"][0] for frame in received.frames for made in frame.get("events", ())]


def reconnected(received: Received) -> Received:
    """What an EventSource keeps of what it had: not the message that broke off."""
    return Received(messages=received.messages, id=received.id, _next=received.id)


async def test_a_stream_goes_on_where_it_broke_off_whatever_hub_is_there(
    database: str, producer: asyncpg.Connection, http: aiohttp.ClientSession
) -> None:
    chance = random.Random(7)
    received = Received()
    await publish(producer, 1, 1)
    for first in range(2, EVENTS, 50):
        async with running(database) as hub:
            publishing = asyncio.create_task(publish(producer, first, first + 49, size=1_000))
            for _ in range(4):
                await numbers(http, hub.url, received, last=first + 49, give_up=chance.randrange(30_000))
                received = reconnected(received)
            await publishing
    async with running(database) as hub:
        await numbers(http, hub.url, received, last=first + 49)
    assert got(received) == list(range(1, first + 50))


async def test_a_stream_that_reads_slowly_misses_nothing_durable(
    database: str, producer: asyncpg.Connection, http: aiohttp.ClientSession
) -> None:
    async with running(database, max_buffer=1 << 16) as hub:
        received = Received()
        async with http.get(f"{hub.url}/events?channel=orders", headers={"Accept": "text/event-stream"}) as response:
            async with asyncio.timeout(PATIENCE):
                while not received.id:
                    received.feed(await response.content.readany())
                await publish(producer, 1, 4_000, size=10_000)
                while 4_000 not in got(received)[-1:]:
                    received.feed(await response.content.readany())
                    received.messages, seen = received.messages[-1:], received.messages
                    check(seen)
        assert got(received)[-1] == 4_000


def check(messages: list[tuple[str, str]]) -> None:
    """They go on without a break."""
    found = got(Received(messages=messages))
    assert found == list(range(found[0], found[0] + len(found))) if found else True


async def test_a_long_cursor_fits_into_the_header(
    database: str, producer: asyncpg.Connection, http: aiohttp.ClientSession
) -> None:
    async with running(database) as hub:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": "x" * 60_000}
        async with http.get(f"{hub.url}/events?channel=orders", headers=headers) as response:
            assert response.status == 400
            error: dict[str, Any] = (await response.json())["error"]
            assert error["field"] == "Last-Event-ID"


async def test_channels_tell_what_came(hub: Any, producer: asyncpg.Connection, http: aiohttp.ClientSession) -> None:
    received = Received()
    await publish(producer, 1, 3)
    await numbers(http, hub.url, received, last=3)
    await publish(producer, 4, 5)
    await numbers(http, hub.url, received, last=5)
    async with http.get(f"{hub.url}/channels") as response:
        (found,) = [each for each in (await response.json())["channels"] if each["channel"] == "orders"]
    assert found["events"] >= 2
    assert found["last"]["id"] == received.frames[-1]["events"][-1]["id"]
