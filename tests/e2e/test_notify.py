"""From a NOTIFY in a real Postgres to real websockets, through the whole hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect


@pytest.fixture
async def producer(hub: Any) -> AsyncIterator[asyncpg.Connection]:
    """Any producer: a plain connection that knows nothing of the hub."""
    connection = await asyncpg.connect(hub.dsn)
    yield connection
    await connection.close()


async def receive(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of this type; others are passed over."""
    async with asyncio.timeout(20):
        while True:
            message = orjson.loads(await socket.recv())
            if message["type"] == kind:
                return message


async def subscriber(hub: Any, *channels: str) -> ClientConnection:
    socket = await connect(hub.ws)
    await socket.send(orjson.dumps({"type": "subscribe", "id": 1, "channels": channels}).decode())
    await receive(socket, "subscribed")
    return socket


async def payloads(socket: ClientConnection, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        found += [item["payload"] for item in (await receive(socket, "events"))["events"]]
    return found


async def test_a_notify_reaches_every_subscriber_of_its_channel_and_nobody_else(hub: Any, producer: Any) -> None:
    one, two, other = [await subscriber(hub, name) for name in ("orders", "orders", "other")]
    await producer.execute("""NOTIFY orders, '{"id": 1}'""")
    await producer.execute("NOTIFY other, 'last'")
    assert await payloads(one, 1) == await payloads(two, 1) == [{"id": 1}]
    assert await payloads(other, 1) == ["last"]
    for socket in (one, two, other):
        await socket.close()


async def test_the_url_of_a_websocket_is_enough(hub: Any, producer: Any) -> None:
    async with connect(f"{hub.ws}?channel=orders") as socket:
        await receive(socket, "subscribed")
        await producer.execute("SELECT pg_notify('orders', 'plain text')")
        event = (await receive(socket, "events"))["events"][0]
        assert (event["channel"], event["id"], event["payload"], event["tags"]) == ("orders", None, "plain text", [])


async def test_commit_order_is_kept_and_a_rollback_never_arrives(hub: Any, producer: Any) -> None:
    socket = await subscriber(hub, "orders")
    late = await asyncpg.connect(hub.dsn)
    transaction = late.transaction()
    await transaction.start()
    await late.execute("NOTIFY orders, '2'")
    await producer.execute("NOTIFY orders, '1'")
    await transaction.commit()
    with pytest.raises(asyncpg.DivisionByZeroError):
        await producer.execute("BEGIN; NOTIFY orders, 'never'; SELECT 1 / 0")
    await producer.execute("ROLLBACK")
    await producer.execute("NOTIFY orders, '3'")
    assert await payloads(socket, 3) == [1, 2, 3]
    await late.close()
    await socket.close()


@pytest.mark.parametrize("name", ['Quoted "name"', "Ünïcode ✓", "a'b; DROP TABLE x", "UPPER", "x" * 63])
async def test_any_legal_name_works(hub: Any, producer: Any, name: str) -> None:
    socket = await subscriber(hub, name)
    await producer.execute("SELECT pg_notify($1, '7')", name)
    assert await payloads(socket, 1) == [7]
    await socket.close()


async def test_publishing_over_the_websocket_reaches_everyone_the_publisher_too(hub: Any) -> None:
    one, two = await subscriber(hub, "chat"), await subscriber(hub, "chat")
    command = {"type": "publish", "id": 7, "channel": "chat", "payload": {"text": "hi"}, "durable": False}
    await one.send(orjson.dumps(command).decode())
    assert await payloads(two, 1) == [{"text": "hi"}]
    found = {orjson.loads(await one.recv())["type"] for _ in range(2)}
    assert found == {"published", "events"}
    await one.close()
    await two.close()


async def test_equal_publishes_of_one_moment_all_arrive(hub: Any) -> None:
    """Postgres folds equal notifications of one transaction into one, so these must not share one."""
    socket = await subscriber(hub, "chat")
    for number in range(1, 51):
        command = {"type": "publish", "id": number, "channel": "chat", "payload": "hello", "durable": False}
        await socket.send(orjson.dumps(command).decode())
    assert await payloads(socket, 50) == ["hello"] * 50
    await socket.close()


async def test_publishes_of_one_connection_keep_their_order(hub: Any) -> None:
    socket = await subscriber(hub, "chat")
    for number in range(1, 301):
        command = {"type": "publish", "id": number, "channel": "chat", "payload": number % 7, "durable": False}
        await socket.send(orjson.dumps(command).decode())
    assert await payloads(socket, 300) == [number % 7 for number in range(1, 301)]
    await socket.close()


async def test_a_storm_of_20000_reaches_ten_subscribers_in_order(hub: Any, producer: Any) -> None:
    sockets = [await subscriber(hub, "storm") for _ in range(10)]
    await producer.execute(
        "DO $$ BEGIN FOR n IN 1..20000 LOOP PERFORM pg_notify('storm', n::text); IF n % 100 = 0 THEN COMMIT; END IF; "
        "END LOOP; END $$"
    )
    for found in await asyncio.gather(*(payloads(socket, 20_000) for socket in sockets)):
        assert found == list(range(1, 20_001))
    for socket in sockets:
        await socket.close()


async def test_a_listener_killed_ten_times_in_a_storm_leaves_no_hole_without_a_gap(hub: Any, producer: Any) -> None:
    watchers = [Watcher(await subscriber(hub, "storm")) for _ in range(10)]
    killer = await asyncpg.connect(hub.dsn)
    batch = "SELECT pg_notify('storm', n::text) FROM generate_series($1::int, $2::int) AS n"
    for kill in range(10):
        for start in range(kill * 2_000, (kill + 1) * 2_000, 100):
            await producer.execute(batch, start + 1, start + 100)
            if start % 2_000 == 1_000:
                await killer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'pghub listener'"
                )
        for watcher in watchers:  # the storm goes on when the hub hears again, or most of it would fall into the holes
            await watcher.sees("gap", kill + 1)
    await producer.execute("NOTIFY storm, 'end'")
    for watcher in watchers:
        await watcher.sees("end", 1)
        check_story(watcher.story)
        await watcher.close()
    await killer.close()


class Watcher:
    """Keeps what one subscriber sees: numbers, and the word "gap"."""

    def __init__(self, socket: ClientConnection) -> None:
        self.story: list[Any] = []
        self._socket = socket
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def sees(self, entry: str, times: int) -> None:
        async with asyncio.timeout(30):
            while self.story.count(entry) < times:
                self._news.clear()
                await self._news.wait()

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        async for text in self._socket:
            message = orjson.loads(text)
            if message["type"] == "gap":
                assert (message["reason"], message["channels"]) == ("listener", ["storm"])
                self.story.append("gap")
            self.story += [item["payload"] for item in message.get("events", ())]
            self._news.set()


def check_story(story: list[Any]) -> None:
    """Numbers rise by one, or there is a gap between; and the holes are small beside the story."""
    last, gap = 0, False
    for entry in story[:-1]:
        if entry == "gap":
            gap = True
        else:
            assert entry == last + 1 or (gap and entry > last), f"silent hole between {last} and {entry}"
            last, gap = entry, False
    assert gap or last == 20_000
    assert len(story) > 10_000


async def test_the_report_on_the_hub_comes_every_second(hub: Any) -> None:
    socket = await subscriber(hub, "$hub", "orders")
    report = (await payloads(socket, 1))[0]
    assert (report["clients"], report["listener"]) == (1, "connected")
    assert report["channels"] == {"orders": {"subscribers": 1, "events": 0}}
    await socket.close()
