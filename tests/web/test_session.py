"""One websocket client: what it asks, what it is answered, what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from hub import event
from hub.errors import Code, CommandError

NOW = datetime.now(UTC)


async def test_a_connection_begins_with_a_welcome(site: Any) -> None:
    welcome = await (await site.connect()).receive()
    assert (welcome["type"], welcome["protocol"], welcome["auth"]) == ("welcome", 1, "none")
    assert welcome["limits"] == {"frame": 1 << 20, "payload": 786432, "channels": 1000, "outstanding": 256}


async def test_a_url_can_subscribe(site: Any) -> None:
    peer = await site.connect("/ws?channel=orders&channel=Ünicode%20%22x%22")
    await peer.receive()
    subscribed = await peer.receive()
    assert (subscribed["id"], subscribed["channels"]) == (0, ["orders", 'Ünicode "x"'])
    site.ports.fanout.sink([event.ephemeral("orders", '{"id":1}', NOW)])
    assert (await peer.receive())["events"][0]["payload"] == {"id": 1}


@pytest.mark.parametrize("query", ["?chanel=a", "?last=5", "?channel=", "?channel=a&since=x"])
async def test_a_url_that_cannot_be_subscribed_is_answered_and_the_connection_stays(site: Any, query: str) -> None:
    peer = await site.connect(f"/ws{query}")
    await peer.receive()
    error = await peer.receive()
    assert (error["type"], error["id"]) == ("error", 0)
    assert await peer.ask(type="ping", id=1) == {"type": "pong", "id": 1}


async def test_subscribe_and_unsubscribe(site: Any) -> None:
    peer = await site.connect()
    await peer.receive()
    assert await peer.ask(type="subscribe", id=1, channels=["b", "a", "b"]) == {
        "type": "subscribed",
        "id": 1,
        "channels": ["b", "a"],
        "cursor": str(site.ports.fanout.position),
        "recovered": True,
        "ephemeral": ["b", "a"],
    }
    assert site.listener.held == {"a": 1, "b": 1}
    answer = await peer.ask(type="unsubscribe", id=2, channels=["a", "never"])
    assert answer == {"type": "unsubscribed", "id": 2, "channels": ["a", "never"]}
    assert site.listener.held == {"a": 0, "b": 1}


async def test_subscribing_twice_holds_once(site: Any) -> None:
    peer = await site.connect()
    await peer.receive()
    await peer.ask(type="subscribe", id=1, channels=["a"])
    await peer.ask(type="subscribe", id=2, channels=["a"])
    assert site.listener.held == {"a": 1}


async def test_a_subscribe_is_all_or_nothing(site: Any) -> None:
    peer = await site.connect()
    await peer.receive()
    error = await peer.ask(type="subscribe", id=1, channels=["a", "broken"])
    assert (error["code"], error["id"]) == ("unavailable", 1)
    assert site.listener.held == {"a": 0, "broken": 0}
    assert site.ports.fanout.channels == {}


async def test_a_client_that_leaves_gives_back_what_it_held(site: Any) -> None:
    peer = await site.connect("/ws?channel=a")
    await peer.receive()
    await peer.receive()
    await peer.socket.close()
    other = await site.connect()
    await other.receive()
    await other.ask(type="ping", id=1)
    assert site.listener.held == {"a": 0}
    assert len(site.ports.fanout.sessions) == 1


async def test_publish_becomes_a_notify_and_is_answered_after_the_commit(site: Any) -> None:
    site.publisher.at_once = False
    peer = await site.connect()
    await peer.receive()
    await peer.send(type="publish", id=5, channel="chat", payload={"text": "hi"}, durable=False)
    assert await peer.ask(type="ping", id=6) == {"type": "pong", "id": 6}
    assert site.publisher.notified == [("chat", '{"text":"hi"}')]
    site.publisher.futures[0].set_result(None)
    assert await peer.receive() == {"type": "published", "id": 5, "event": None}


async def test_a_publish_that_failed_is_told(site: Any) -> None:
    site.publisher.at_once = False
    peer = await site.connect()
    await peer.receive()
    for number in (1, 2):
        await peer.send(type="publish", id=number, channel="chat", payload=number, durable=False)
    await peer.ask(type="ping", id=3)
    refusal = CommandError(Code.UNAVAILABLE, "Postgres is gone.")
    for future in site.publisher.futures:
        future.set_exception(refusal)
    assert [(await peer.receive())["id"] for _ in range(2)] == [1, 2]


async def test_over_the_outstanding_publishes_the_hub_stops_reading(start: Callable[..., Any]) -> None:
    site = await start(outstanding=2)
    site.publisher.at_once = False
    peer = await site.connect()
    await peer.receive()
    for number in range(1, 5):
        await peer.send(type="publish", id=number, channel="c", payload=number, durable=False)
    await peer.send(type="ping", id=9)
    while len(site.publisher.futures) < 2:
        await (await site.http.get(site.url + "/healthz")).read()
    assert len(site.publisher.futures) == 2
    site.publisher.at_once = True
    for future in tuple(site.publisher.futures):
        future.set_result(None)
    answers = [await peer.receive() for _ in range(5)]
    assert {"type": "pong", "id": 9} in answers
    assert sorted(a["id"] for a in answers if a["type"] == "published") == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"type": "publish", "id": 1, "channel": "a.*", "payload": 1}, "bad_channel"),
        ({"type": "publish", "id": 1, "channel": "hub_bell", "payload": 1, "durable": False}, "forbidden"),
        ({"type": "publish", "id": 1, "channel": "c", "payload": "x" * 8000, "durable": False}, "too_large"),
        ({"type": "publish", "id": 1, "channel": "", "payload": 1, "durable": False}, "bad_channel"),
        ({"type": "subscribe", "id": 1, "channels": ["$other"]}, "forbidden"),
        ({"type": "subscribe", "id": 1, "channels": ["hub_bell"]}, "forbidden"),
        ({"type": "subscribe", "id": 1, "channels": ["a*"]}, "bad_channel"),
        ({"type": "subscribe", "id": 1, "channels": ["a"], "since": "x"}, "bad_request"),
        ({"type": "subscribe", "id": 1, "channels": ["a"], "last": 5000}, "bad_request"),
        ({"type": "subscribe", "id": 1, "channels": [f"c{n}" for n in range(1001)]}, "too_many"),
        ({"type": "auth", "id": 1, "token": "x"}, "unsupported"),
        ({"type": "nonsense", "id": 1}, "bad_request"),
    ],
)
async def test_what_cannot_be_is_refused_by_code_and_the_connection_stays(
    site: Any, command: dict[str, Any], code: str
) -> None:
    peer = await site.connect()
    await peer.receive()
    error = await peer.ask(**command)
    assert (error["type"], error["id"], error["code"]) == ("error", 1, code)
    assert error["message"].endswith(".")
    assert await peer.ask(type="ping", id=2) == {"type": "pong", "id": 2}


async def test_subscriptions_of_one_client_are_bounded_over_all_its_subscribes(
    start: Callable[..., Any],
) -> None:
    peer = await (await start(channels=3)).connect()
    await peer.receive()
    await peer.ask(type="subscribe", id=1, channels=["a", "b"])
    assert (await peer.ask(type="subscribe", id=2, channels=["c", "d"]))["code"] == "too_many"
    assert (await peer.ask(type="subscribe", id=3, channels=["b", "c"]))["type"] == "subscribed"


async def test_a_binary_frame_closes_with_1003(site: Any) -> None:
    peer = await site.connect()
    await peer.socket.send_bytes(b"{}")
    assert await peer.closed() == 1003


async def test_invalid_utf8_closes_with_1007(site: Any) -> None:
    peer = await site.connect()
    await peer.socket.send_frame(b'{"type":"\xff"}', aiohttp.WSMsgType.TEXT)
    assert await peer.closed() == 1007


async def test_a_frame_over_the_limit_closes_with_1009(start: Callable[..., Any]) -> None:
    peer = await (await start(frame=1000)).connect()
    await peer.socket.send_str("x" * 1001)
    assert await peer.closed() == 1009


async def test_ten_errors_in_ten_seconds_close_with_1008(site: Any) -> None:
    peer = await site.connect()
    for _ in range(10):
        await peer.socket.send_str("{")
    assert await peer.closed() == 1008


async def test_nothing_follows_a_close_frame(start: Callable[..., Any]) -> None:
    """The session has left the fan-out by then, whoever closes: here aiohttp does, by itself."""
    site = await start(frame=1000)
    peer = await site.connect("/ws?channel=a")
    await peer.receive()
    await peer.receive()
    await peer.socket.send_str("x" * 1001)
    assert await peer.closed() == 1009
    assert not site.ports.fanout.sessions


async def test_one_connection_too_many_is_closed_with_4429(start: Callable[..., Any]) -> None:
    site = await start(clients=1)
    first = await site.connect()
    await first.receive()
    second = await site.connect()
    assert await second.closed() == 4429
    assert (await first.ask(type="ping", id=1))["type"] == "pong"


async def test_a_ping_frame_is_answered(site: Any) -> None:
    peer = await site.connect()
    await peer.receive()
    await peer.socket.ping(b"abc")
    pong = await peer.socket.receive(timeout=5)
    assert (pong.type, bytes(pong.data)) == (aiohttp.WSMsgType.PONG, b"abc")


async def test_a_quiet_client_hears_a_heartbeat_and_a_ping(start: Callable[..., Any]) -> None:
    peer = await (await start(heartbeat=0.05)).connect()
    await peer.receive()
    kinds = {(await peer.socket.receive(timeout=5)).type for _ in range(4)}
    assert kinds == {aiohttp.WSMsgType.PING, aiohttp.WSMsgType.TEXT}


async def test_a_client_that_answers_no_ping_is_closed_with_4408(start: Callable[..., Any]) -> None:
    peer = await (await start(heartbeat=0.05)).connect()
    assert await peer.closed() == 4408


async def test_who_asks_for_nothing_for_long_is_sent_away(start: Callable[..., Any]) -> None:
    """With 4408, after which a client may come back; one that is subscribed to something, or asks, stays."""
    site = await start(heartbeat=0.05, idle_timeout=0.1)
    idle, asking, subscribed = await site.connect(), await site.connect(), await site.connect("/ws?channel=a")

    async def chatter(peer: Any) -> None:
        """Answer pings, as every client does."""
        async for message in peer.socket:
            if message.type is aiohttp.WSMsgType.PING:
                await peer.socket.pong(message.data)
                if peer is asking:
                    await peer.send(type="ping", id=1)

    chatting = [asyncio.create_task(chatter(peer)) for peer in (asking, subscribed)]
    await chatter(idle)
    assert idle.socket.close_code == 4408
    await chatter(idle := await site.connect())
    assert idle.socket.close_code == 4408, "the others had time enough, too"
    assert not any(task.done() for task in chatting)
    for task in chatting:
        task.cancel()


async def test_too_many_messages_a_second_are_answered_by_a_warning_and_then_by_4429(start: Callable[..., Any]) -> None:
    site = await start(rate=10)
    peer = await site.connect()
    await peer.receive()
    for _ in range(21):
        await peer.send(type="ping", id=1)
    answers = [await peer.receive() for _ in range(22)]
    (warning,) = [answer for answer in answers if answer["type"] == "error"]
    assert (warning["id"], warning["code"]) == (None, "too_many")
    assert sum(answer["type"] == "pong" for answer in answers) == 21, "and all was done"
    for _ in range(25):
        await peer.send(type="ping", id=1)
    assert await peer.closed() == 4429


async def test_pongs_count_as_messages(start: Callable[..., Any]) -> None:
    peer = await (await start(rate=10)).connect()
    for _ in range(50):
        await peer.socket.pong()
    assert await peer.closed() == 4429


async def test_going_away_says_1001_to_everyone(site: Any) -> None:
    peers = [await site.connect() for _ in range(3)]
    for peer in peers:
        await peer.receive()
    codes = []

    async def leave() -> None:
        for peer in peers:
            codes.append(await peer.closed())
            await peer.socket.close()

    await asyncio.gather(leave(), site.web.drain(2))
    assert codes == [1001] * 3


async def test_an_error_inside_closes_with_1011_and_harms_nobody_else(site: Any) -> None:
    other = await site.connect()
    await other.receive()
    peer = await site.connect()
    await peer.receive()
    site.listener.hold = None  # a mistake in the hub
    await peer.send(type="subscribe", id=1, channels=["a"])
    assert await peer.closed() == 1011
    assert (await other.ask(type="ping", id=1))["type"] == "pong"
