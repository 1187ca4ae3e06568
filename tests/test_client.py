"""The Python client, against real hubs that come and go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
import pytest
from aiohttp import web

from hub import client
from hub.client import Lost, RefusedError, follow
from tests.conftest import Hub, running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back at once: how long clients wait is `backoff`'s to test."""
    monkeypatch.setattr(client.backoff, "delay", lambda _attempt: 0.01)
    monkeypatch.setattr(client, "_DRAIN_SPREAD", 0.01)


async def following(messages: AsyncGenerator[dict[str, Any], None], kind: str) -> dict[str, Any]:
    """The next message of this type."""
    async with asyncio.timeout(20):
        async for message in messages:
            if message["type"] == kind:
                return message
    raise AssertionError("it never ends by itself")


async def notify(dsn: str, channel: str, payload: str) -> None:
    await execute(dsn, "SELECT pg_notify($1, $2)", channel, payload)


async def publish(dsn: str, channel: str, numbers: Iterable[int], *, size: int = 0) -> None:
    """Durable events, each a list of a number and so many bytes, in one transaction."""
    await execute(
        dsn,
        "INSERT INTO hub.events (channel, payload) "
        "SELECT $1, jsonb_build_array(n, repeat('x', $3)) FROM unnest($2::int[]) WITH ORDINALITY AS t (n, i) "
        "ORDER BY i",
        channel,
        list(numbers),
        size,
    )


async def execute(dsn: str, statement: str, *arguments: object) -> None:
    producer = await asyncpg.connect(dsn)
    await producer.execute(statement, *arguments)
    await producer.close()


def numbers(message: dict[str, Any]) -> list[int]:
    return [payload(event)[0] for event in message.get("events", ())]


def payload(event: bytes) -> Any:
    return orjson.loads(event)["payload"]


async def gathered(messages: AsyncGenerator[dict[str, Any], None], until: int) -> list[int]:
    """The numbers of all events up to this one."""
    found: list[int] = []
    async with asyncio.timeout(60):
        while until not in found:
            found += numbers(await anext(messages))
    return found


async def test_it_yields_the_events_of_its_channels(hub: Hub) -> None:
    async with aclosing(follow(hub.ws, ["a", "b"])) as messages:
        assert (await following(messages, "subscribed"))["channels"] == ["a", "b"]
        await notify(hub.dsn, "b", "7")
        assert payload((await following(messages, "events"))["events"][0]) == 7


async def test_numbers_keep_all_their_digits(hub: Hub) -> None:
    async with aclosing(follow(hub.ws, ["a"])) as messages:
        await following(messages, "subscribed")
        await execute(hub.dsn, "SELECT hub.publish('a', '[1.500, 12345678901234567890, 1e400]')")
        (event,) = (await following(messages, "events"))["events"]
    assert b'"payload":[1.500, 12345678901234567890, 1' + b"0" * 400 + b"]" in event


async def test_it_comes_back_to_a_hub_that_went_away_and_misses_nothing(database: str, port: int) -> None:
    lost: list[Lost] = []
    async with aclosing(follow(f"ws://127.0.0.1:{port}/ws", ["a"], on_lost=lost.append)) as messages:
        async with running(database, port=port):
            await following(messages, "subscribed")
            await publish(database, "a", range(10))
            seen = await gathered(messages, until=9)
            rest = asyncio.create_task(gathered(messages, until=49))
            await asyncio.sleep(0.1)
        for number in range(10, 40):
            await publish(database, "a", [number])
        async with running(database, port=port):
            await publish(database, "a", range(40, 50))
            seen += await rest
            await notify(database, "a", "[50]")
            assert numbers(await following(messages, "events")) == [50]
    assert seen == list(range(50))
    assert "going away" in lost[0].reason


@pytest.fixture
def port() -> int:
    """One that is free, for a hub that is to come back to it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
        return number


@asynccontextmanager
async def cutting(hub: Hub, after: int) -> AsyncIterator[tuple[str, list[int]]]:
    """The address of a way to the hub that breaks after so many bytes each time, and what each time went through."""
    passed: list[int] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = urlsplit(hub.url)
        above, below = await asyncio.open_connection(address.hostname, address.port)
        passed.append(0)
        up = asyncio.create_task(forward(reader, below))
        with suppress(OSError):
            while passed[-1] < after and (data := await above.read(4096)):
                passed[-1] += len(data)
                writer.write(data)
                await writer.drain()
        up.cancel()
        for each in (writer, below):
            each.transport.abort()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws", passed
    finally:
        server.close()


@pytest.mark.parametrize("names", [["a"], ["*"]], ids=["channel", "pattern"])
@pytest.mark.parametrize("size", [200, 2_000], ids=["from the ring", "from the log"])
async def test_connections_that_break_in_a_long_replay_cost_nothing_and_repeat_nothing(
    database: str, names: list[str], size: int
) -> None:
    """Each connection gets through a frame or two, and the next one goes on amid the replay."""
    async with running(database) as hub, aclosing(follow(hub.ws, names)) as messages:
        start = (await following(messages, "subscribed"))["cursor"]
    await publish(database, "a", range(5_000), size=size)  # the ring of a hub that starts takes 8 MiB
    async with (
        running(database) as hub,
        cutting(hub, after=600_000) as (url, passed),
        aclosing(follow(url, names, since=start)) as messages,
    ):
        assert await gathered(messages, until=4_999) == list(range(5_000))
        assert len(passed) > 1, "it broke at least once"


async def test_whoever_stores_the_cursor_with_the_effect_gets_each_event_exactly_once(hub: Hub) -> None:
    """A follower that dies after each message, and another that begins where it left off."""
    async with aclosing(follow(hub.ws, ["a"])) as messages:
        cursor = (await following(messages, "subscribed"))["cursor"]
    await publish(hub.dsn, "a", range(3_000), size=500)
    seen: list[int] = []
    deaths = 0
    while len(seen) < 3_000:
        async with aclosing(follow(hub.ws, ["a"], since=cursor)) as messages, asyncio.timeout(20):
            message = await anext(messages)
            assert "cursor" in message
            seen, cursor, deaths = seen + numbers(message), message["cursor"], deaths + 1
    assert seen == list(range(3_000))
    assert deaths > 3


async def test_a_heartbeat_moves_the_cursor_past_what_others_get(database: str) -> None:
    async with running(database, heartbeat=0.2) as hub, aclosing(follow(hub.ws, ["a"])) as messages:
        await following(messages, "subscribed")
        await publish(database, "b", [1])
        cursor = (await following(messages, "cursor"))["cursor"]
        await publish(database, "b", [2])
        async with aclosing(follow(hub.ws, ["b"], since=cursor)) as others:
            assert await gathered(others, until=2) == [2]


async def test_notifies_alone_move_nothing(hub: Hub) -> None:
    async with aclosing(follow(hub.ws, ["a"])) as messages:
        await following(messages, "subscribed")
        await notify(hub.dsn, "a", "1")
        assert "cursor" not in await following(messages, "events")


async def test_the_newest_events_first_and_then_what_comes(database: str, port: int) -> None:
    await publish(database, "a", range(10))
    async with aclosing(follow(f"ws://127.0.0.1:{port}/ws", ["a"], last=3)) as messages:
        async with running(database, port=port):
            assert await gathered(messages, until=9) == [7, 8, 9]
            await following(messages, "subscribed")
            rest = asyncio.create_task(gathered(messages, until=11))
        await publish(database, "a", [10])
        async with running(database, port=port):
            await publish(database, "a", [11])
            assert await rest == [10, 11], "`last` is for the beginning only"


async def test_patterns_mean_the_durable_events_of_many_channels(hub: Hub) -> None:
    async with aclosing(follow(hub.ws, ["shop.*", "audit.**"])) as messages:
        assert (await following(messages, "subscribed"))["ephemeral"] == []
        for number, channel in enumerate(["shop.orders", "shop", "shop.a.b", "audit.a.b", "shop.end"]):
            await publish(hub.dsn, channel, [number])
        assert await gathered(messages, until=4) == [0, 3, 4]


async def test_notifies_may_be_left_out(hub: Hub) -> None:
    async with aclosing(follow(hub.ws, ["a"], ephemeral=False)) as messages:
        assert (await following(messages, "subscribed"))["ephemeral"] == []
        await notify(hub.dsn, "a", "[0]")
        await publish(hub.dsn, "a", [1])
        assert await gathered(messages, until=1) == [1]


async def test_another_log_is_told_and_gone_on_with(database: str, port: int) -> None:
    async with aclosing(follow(f"ws://127.0.0.1:{port}/ws", ["a"])) as messages:
        async with running(database, port=port):
            await following(messages, "subscribed")
            await publish(database, "a", [1])
            await gathered(messages, until=1)
            gap = asyncio.create_task(following(messages, "gap"))
            await asyncio.sleep(0.1)
        await execute(database, "TRUNCATE hub.events")
        await publish(database, "a", [2])
        async with running(database, port=port) as hub:
            told = await gap
            assert told["reason"] == "reset"
            assert await gathered(messages, until=2) == [2]
            assert not (await following(messages, "subscribed"))["recovered"]
            async with aclosing(follow(hub.ws, ["a"], since=told["cursor"])) as again:
                assert await gathered(again, until=2) == [2]


@pytest.mark.parametrize("start", [{"since": "x"}, {"since": "x", "last": 1}, {"last": 0}])
async def test_a_beginning_that_is_none_ends_it(hub: Hub, start: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="The hub refused: "):
        await following(follow(hub.ws, ["a"], **start), "events")


@pytest.mark.parametrize("channel", ["", "hub_bell", "a*"])
async def test_what_the_hub_refuses_ends_it_with_the_hubs_words(hub: Hub, channel: str) -> None:
    with pytest.raises(RefusedError, match="The hub refused: "):
        await following(follow(hub.ws, [channel]), "events")


@pytest.mark.parametrize("path", ["/healthz", "/nowhere"])
async def test_what_is_no_hub_ends_it(hub: Hub, path: str) -> None:
    with pytest.raises(RefusedError, match="is no hub"):
        await following(follow(f"{hub.ws.removesuffix('/ws')}{path}", ["a"]), "events")


@asynccontextmanager
async def scripted(*frames: str) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A hub that answers each connection's first command with these frames and then falls silent; and the commands."""
    commands: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("pghub.v1",))
        await socket.prepare(request)
        commands.append(await socket.receive_json())
        for frame in frames:
            await socket.send_str(frame)
        async for _ in socket:
            pass
        return socket

    app = web.Application()
    app.router.add_get("/ws", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/ws", commands
    finally:
        await runner.cleanup()


SILENT = '{"type":"welcome","heartbeat":0.05}'


async def test_a_heartbeat_that_stays_away_ends_the_connection() -> None:
    """A hub that welcomes and then falls silent is left for a better one."""
    lost: list[Lost] = []
    async with (
        scripted(SILENT, '{"type":"subscribed","id":1}') as (url, _),
        aclosing(follow(url, ["a"], on_lost=lost.append)) as messages,
    ):
        await following(messages, "subscribed")
        await following(messages, "subscribed")
    assert lost


async def test_a_hub_that_has_no_room_is_asked_again_until_it_has(database: str) -> None:
    async with (
        running(database, max_clients_per_address=1) as hub,
        aclosing(follow(hub.ws, ["a"])) as first,
    ):
        await following(first, "subscribed")
        refused = asyncio.Event()
        lost: list[Lost] = []

        def note(each: Lost) -> None:
            lost.append(each)
            refused.set()

        async with aclosing(follow(hub.ws, ["a"], on_lost=note)) as second:
            waiting = asyncio.create_task(following(second, "subscribed"))
            await refused.wait()
            assert "429" in lost[0].reason
            await first.aclose()
            await waiting


async def test_a_hub_that_cannot_serve_now_is_asked_again() -> None:
    lost: list[Lost] = []
    busy = '{"type":"error","id":1,"code":"unavailable","message":"Not now."}'
    async with scripted(SILENT, busy) as (url, commands), collecting(url, last=5, on_lost=lost.append):
        await until(lambda: len(commands) > 2)
    assert "Not now." in lost[0].reason
    assert commands[2] == {"type": "subscribe", "id": 1, "channels": ["a"], "last": 5}


@pytest.mark.parametrize(
    ("frames", "since"),
    [
        (['{"type":"cursor","cursor":"early"}'], "old"),
        (['{"type":"events","for":1,"events":[],"cursor":"inside"}', '{"type":"cursor","cursor":"early"}'], "inside"),
        (['{"type":"subscribed","id":1,"cursor":"new"}', '{"type":"events","events":[]}'], "new"),
        (['{"type":"subscribed","id":1,"cursor":"new"}', '{"type":"cursor","cursor":"newer"}'], "newer"),
    ],
)
async def test_the_next_connection_goes_on_at_the_newest_cursor_that_is_its_own(frames: list[str], since: str) -> None:
    """Before it is confirmed only its replay moves a subscribe."""
    async with scripted(SILENT, *frames) as (url, commands), collecting(url, since="old") as seen:
        await until(lambda: len(commands) > 1)
    assert commands[1]["since"] == since
    assert "early" not in [message.get("cursor") for message in seen]


@asynccontextmanager
async def collecting(url: str, **options: Any) -> AsyncIterator[list[dict[str, Any]]]:
    """All that a follower yields, as it comes."""
    seen: list[dict[str, Any]] = []

    async def collect() -> None:
        async with aclosing(follow(url, ["a"], **options)) as messages:
            async for message in messages:
                seen.append(message)  # noqa: PERF401 - they are looked at before the end

    task = asyncio.create_task(collect())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)
