"""Live events over HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from hub import cursor, event
from hub.cursor import Cursor
from hub.fanout.framing import SERVER_SENT
from hub.snapshot import Snapshot
from tests.web.events import Received

NOW = datetime(2026, 11, 1, tzinfo=UTC)
KIND = {"Accept": "text/event-stream"}


def position(number: int) -> Cursor:
    return Cursor(1, Snapshot(number + 1, number + 1, ()))


def publish(site: Any, number: int, payload: str = "1") -> None:
    """An event in the log."""
    site.ports.fanout.sink([event.durable(number, number, "a", payload, (), NOW)], position(number))


def begin(site: Any) -> None:
    """The log is empty, and all of it is at hand."""
    site.ports.fanout.start(position(0), [], position(0))


def notify(site: Any, payload: str) -> None:
    site.ports.fanout.sink([event.ephemeral("a", payload, NOW)])


class Stream:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.received = Received()

    async def until(self, condition: Callable[[Received], Any]) -> Received:
        async with asyncio.timeout(5):
            while not condition(self.received):
                data = await self.response.content.readany()
                assert data, "the stream has ended"
                self.received.feed(data)
        return self.received

    async def ended(self) -> None:
        async with asyncio.timeout(5):
            while data := await self.response.content.readany():
                self.received.feed(data)


@asynccontextmanager
async def stream(site: Any, query: str = "channel=a", **headers: str) -> AsyncIterator[Stream]:
    """A stream that is live."""
    async with site.http.get(f"{site.url}/events?{query}", headers=KIND | headers) as response:
        assert response.status == 200, await response.text()
        opened = Stream(response)
        await opened.until(lambda received: received.id)
        yield opened


async def until(condition: Callable[[], bool]) -> None:
    """Polls: what is waited for has no signal of its own."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_head_of_a_stream(site: Any) -> None:
    async with stream(site) as opened:
        headers = opened.response.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Accel-Buffering"] == "no"
        assert headers["Connection"] == "close"
        assert "Transfer-Encoding" not in headers
        assert "Content-Length" not in headers
        assert 500 <= (opened.received.retry or 0) <= 5_000


async def test_it_says_at_once_where_it_is_live_and_then_what_comes(site: Any) -> None:
    publish(site, 1)
    async with stream(site) as opened:
        assert opened.received.id == str(position(1))
        assert opened.received.messages == []
        publish(site, 2, '{"b":2}')
        received = await opened.until(lambda received: received.messages)
        [frame] = received.frames
        assert frame["type"] == "events"
        assert [(each["id"], each["payload"]) for each in frame["events"]] == [(2, {"b": 2})]
        assert received.id == frame["cursor"] == str(position(2))


async def test_it_gets_what_a_websocket_gets(site: Any) -> None:
    peer = await site.connect("/ws?channel=a&channel=b.*")
    assert [(await peer.receive())["type"] for _ in range(2)] == ["welcome", "subscribed"]
    async with stream(site, "channel=a&channel=b.*") as opened:
        publish(site, 1)
        notify(site, "hello")
        site.ports.fanout.gap(["a"], "listener")
        publish(site, 2)
        received = await opened.until(lambda received: len(received.messages) == 4)
        assert received.frames == [await peer.receive() for _ in range(4)]
        first, last = str(position(1)), str(position(2))
        assert [known for _, known in received.messages] == [first, first, first, last]


@pytest.mark.parametrize("payload", ['{\n"a":\r\n1,\r"b":2}', "\n1", "1\r", 'a\n\ndata: "b"\n\n'])
async def test_the_lines_of_a_payload_do_not_break_the_stream(site: Any, payload: str) -> None:
    async with stream(site) as opened:
        notify(site, payload)
        notify(site, "7")
        received = await opened.until(lambda received: len(received.messages) == 2)
        [[made]] = [frame["events"] for frame in received.frames[:1]]
        assert made["payload"] == event.orjson.loads(event.as_json(payload))


async def test_it_goes_on_from_its_last_event_id(site: Any) -> None:
    begin(site)
    for number in (1, 2, 3):
        publish(site, number)
    headers = {"Last-Event-ID": str(position(1))}
    async with stream(site, f"channel=a&since={quote(str(position(2)))}", **headers) as opened:
        assert [each["id"] for frame in opened.received.frames for each in frame["events"]] == [2, 3]
        assert opened.received.id == str(position(3))
    async with stream(site, "channel=a&last=1", **headers) as opened:
        assert [each["id"] for frame in opened.received.frames for each in frame["events"]] == [2, 3]


async def test_it_begins_where_its_url_says(site: Any) -> None:
    begin(site)
    for number in (1, 2, 3):
        publish(site, number)
    async with stream(site, f"channel=a&since={quote(str(position(2)))}") as opened:
        assert [each["id"] for frame in opened.received.frames for each in frame["events"]] == [3]
    async with stream(site, "channel=a&last=2") as opened:
        assert [each["id"] for frame in opened.received.frames for each in frame["events"]] == [2, 3]


async def test_it_can_leave_out_what_comes_by_notify(site: Any) -> None:
    async with stream(site, "channel=a&ephemeral=false") as opened:
        assert not +site.listener.held
        notify(site, "1")
        publish(site, 1, "2")
        received = await opened.until(lambda received: received.messages)
        assert [each["payload"] for each in received.frames[0]["events"]] == [2]


@pytest.mark.parametrize(
    ("query", "status", "code", "field"),
    [
        ("", 400, "bad_request", "channel"),
        ("channel=", 400, "bad_channel", "channel"),
        ("channel=a%00", 400, "bad_channel", "channel"),
        ("channel=a*b", 400, "bad_channel", "channel"),
        ("channel=a&since=x", 400, "bad_request", "since"),
        ("channel=a&since=%00", 400, "bad_request", "since"),
        ("channel=a&since=%ED%A0%80", 400, "bad_request", "since"),
        ("channel=a&since=x&last=1", 400, "bad_request", "since"),
        ("channel=a&last=0", 400, "bad_request", "last"),
        ("channel=a&last=99999999999999999999999", 400, "bad_request", "last"),
        ("channel=a&last=1&last=2", 400, "bad_request", "last"),
        ("channel=a&ephemeral=perhaps", 400, "bad_request", "ephemeral"),
        ("channel=a&limit=3", 400, "bad_request", "limit"),
        ("channel=%24secret", 403, "forbidden", "channel"),
        ("channel=broken", 503, "unavailable", None),
    ],
)
async def test_what_is_refused(site: Any, query: str, status: int, code: str, field: str | None) -> None:
    async with site.http.get(f"{site.url}/events?{query}", headers=KIND) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["field"]) == (status, code, field)
        assert ("Retry-After" in response.headers) == (status == 503)
    assert not site.ports.fanout.sessions
    assert not +site.listener.held


@pytest.mark.parametrize("seen", ["x", "é", "\udcff".encode(errors="surrogateescape").decode("latin-1")])
async def test_a_last_event_id_that_is_no_cursor_is_refused(site: Any, seen: str) -> None:
    async with site.http.get(f"{site.url}/events?channel=a", headers=KIND | {"Last-Event-ID": seen}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["field"] == "Last-Event-ID"


async def test_more_connections_than_allowed_are_refused_until_one_leaves(start: Callable[..., Any]) -> None:
    site = await start(clients=1)
    async with stream(site), site.http.get(f"{site.url}/events?channel=a", headers=KIND) as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "too_many"
    await until(lambda: not site.ports.fanout.sessions)
    async with stream(site):
        pass


async def test_a_client_that_leaves_is_forgotten_at_once(site: Any) -> None:
    before = asyncio.get_running_loop().time()
    async with stream(site) as opened:
        assert +site.listener.held == {"a": 1}
        opened.response.close()
    await until(lambda: not site.ports.fanout.sessions)
    await until(lambda: not +site.listener.held)
    assert asyncio.get_running_loop().time() - before < 0.5


async def test_what_a_client_sends_besides_is_thrown_away(site: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
    writer.write(b"GET /events?channel=a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    await reader.readuntil(b"id: ")
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10)
    await writer.drain()
    publish(site, 1)
    assert b"HTTP" not in await reader.readuntil(b"data: ")
    writer.close()


async def test_http_1_0_gets_it_too(site: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
    writer.write(b"GET /events?channel=a HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    assert b"200" in await reader.readline()
    await reader.readuntil(b"\nid: ")
    writer.close()


async def test_a_quiet_stream_has_signs_of_life(start: Callable[..., Any]) -> None:
    site = await start(heartbeat=0.1)
    async with stream(site) as opened:
        site.ports.fanout.sink([], position(5))
        await opened.until(lambda received: received.id == str(position(5)))
        again = opened.received.ids + 10
        await opened.until(lambda received: received.ids >= again)
        assert (opened.received.id, opened.received.messages) == (str(position(5)), [])


async def test_one_that_reads_nothing_is_cut_off(start: Callable[..., Any]) -> None:
    site = await start(heartbeat=0.1, stall_timeout=0.3, buffer=1 << 16)
    with socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2]))) as stuck:
        stuck.sendall(b"GET /events?channel=a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        await until(lambda: any(session.group for session in site.ports.fanout.sessions))
        for _ in range(100):
            notify(site, f'"{"x" * 100_000}"')
        [session] = site.ports.fanout.sessions
        assert session.unsent < 1 << 18
        await until(lambda: not site.ports.fanout.sessions)


async def test_a_stream_ends_when_the_hub_goes(site: Any) -> None:
    async with stream(site) as opened:
        await site.web.drain(1)
        await opened.ended()
    assert not site.ports.fanout.sessions


async def test_pages_of_listed_origins_may_read_it(start: Callable[..., Any]) -> None:
    site = await start(origins=("https://shop.example",))
    async with stream(site, Origin="https://shop.example") as opened:
        assert opened.response.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    async with stream(site, Origin="https://other.example") as opened:
        assert "Access-Control-Allow-Origin" not in opened.response.headers


async def test_all_of_a_group_get_the_same_bytes(site: Any) -> None:
    async with stream(site) as one, stream(site) as two:
        groups = {session.group for session in site.ports.fanout.sessions}
        assert [group.framing for group in groups] == [SERVER_SENT]
        publish(site, 1)
        for opened in (one, two):
            await opened.until(lambda received: received.messages)
        assert one.received.messages == two.received.messages
    assert cursor.parse(one.received.id) == position(1)
