"""Who may do what: actors, actions and channels, cell by cell, through every door of one hub.

`yes`; `who`, which is a 401 or its like on a websocket; `no`, a 403.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest

from hub import tokens
from tests.conftest import Hub, running

SECRET = "a secret of the tests, long enough"
TOKENS = {
    "nobody": None,
    "forger": tokens.issue("another secret of the tests, long", {"admin": True}, 3600),
    "expired": tokens.issue(SECRET, {"admin": True}, -60),
    "alice": tokens.issue(SECRET, {"sub": "alice", "subscribe": ["orders.*"]}, 3600),
    "bob": tokens.issue(SECRET, {"sub": "bob", "publish": ["chat", "rooms.**"]}, 3600),
    "carol": tokens.issue(SECRET, {"sub": "carol", "subscribe": ["**"], "publish": ["**"]}, 3600),
    "admin": tokens.issue(SECRET, {"sub": "root", "admin": True}, 3600),
}
AUTHORIZE = """
CREATE FUNCTION hub.authorize(claims jsonb, action text, channel text) RETURNS boolean LANGUAGE sql
RETURN claims ->> 'sub' <> 'carol'
"""
TABLES = """
CREATE TABLE public.plain (id int PRIMARY KEY); SELECT hub.watch('public.plain', channel => 'orders.eu');
CREATE TABLE public.hidden (id int PRIMARY KEY); SELECT hub.watch('public.hidden', channel => 'secret');
"""
TABLE = {"orders.eu": "plain", "secret": "hidden"}

READING = """
            orders.eu  orders.*  orders.**  chat  secret  $hub  **
  nobody    who        who       who        who   who     who   who
  forger    who        who       who        who   who     who   who
  expired   who        who       who        who   who     who   who
  alice     yes        yes       no         no    no      no    no
  bob       no         no        no         no    no      no    no
  carol     no         no        no         no    no      no    no
  admin     yes        yes       yes        yes   yes     yes   yes
"""
PUBLISHING = """
            chat  rooms.a.b  orders.eu  secret  hub_x
  nobody    who   who        who        who     who
  forger    who   who        who        who     who
  expired   who   who        who        who     who
  alice     no    no         no         no      no
  bob       yes   yes        no         no      no
  carol     no    no         no         no      no
  admin     yes   yes        yes        yes     no
"""
ADMINISTERING = {"nobody": "who", "forger": "who", "expired": "who"} | dict.fromkeys(("alice", "bob", "carol"), "no")


def cells(table: str) -> dict[tuple[str, str], str]:
    head, *rows = (line.split() for line in table.strip().splitlines())
    return {(row[0], name): cell for row in rows for name, cell in zip(head, row[1:], strict=True)}


def headers(actor: str, **more: str) -> dict[str, str]:
    token = TOKENS[actor]
    return more if token is None else {"Authorization": f"Bearer {token}"} | more


@pytest.fixture
async def guarded(database: str) -> AsyncIterator[Hub]:
    owner = await asyncpg.connect(database)
    await owner.execute(AUTHORIZE + ";" + TABLES)
    await owner.close()
    async with running(database, secret=SECRET) as hub:
        yield hub


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def published(dsn: str) -> set[str]:
    """Channels on which something was published."""
    owner = await asyncpg.connect(dsn)
    try:
        return {row["channel"] for row in await owner.fetch("SELECT DISTINCT channel FROM hub.events")}
    finally:
        await owner.close()


# Doors


class Peer:
    """A websocket that says who it is by its first frame, or by its header."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self._id = 0

    async def ask(self, **command: Any) -> dict[str, Any]:
        self._id += 1
        await self.socket.send_str(orjson.dumps({"id": self._id} | command).decode())
        while True:
            answer = orjson.loads((await self.socket.receive(timeout=10)).data)
            if answer.get("id") == self._id:
                return answer

    async def outcome(self, **command: Any) -> str:
        answer = await self.ask(**command)
        return {"unauthenticated": "who", "forbidden": "no"}.get(answer.get("code", ""), "yes")


async def enter(http: aiohttp.ClientSession, hub: Hub, actor: str, *, by_header: bool) -> Peer | None:
    """The websocket of `actor`; None where the handshake is answered by 401."""
    try:
        peer = Peer(await http.ws_connect(hub.ws, headers=headers(actor) if by_header else {}))
    except aiohttp.WSServerHandshakeError as error:
        if error.status != 401:
            raise
        return None
    if not by_header and TOKENS[actor] is not None:
        await peer.ask(type="auth", token=TOKENS[actor])
    return peer


def verdict(status: int) -> str:
    return {401: "who", 403: "no"}.get(status, "yes" if status < 300 else str(status))


def post(channel: str, form: str) -> dict[str, Any]:
    event = {"channel": channel, "payload": 1}
    if form == "lines":
        return {"data": orjson.dumps(event) + b"\n", "headers": {"Content-Type": "application/x-ndjson"}}
    return {
        "data": orjson.dumps([event] if form == "array" else event),
        "headers": {"Content-Type": "application/json"},
    }


# Cells


@pytest.mark.parametrize("by_header", [False, True], ids=["by a frame", "by the header"])
async def test_websockets(guarded: Hub, http: aiohttp.ClientSession, by_header: bool) -> None:
    commands = {
        (actor, name, durable): {"type": "publish", "channel": name, "payload": 1, "durable": durable}
        for actor, name in cells(PUBLISHING)
        for durable in (True, False)
    } | {(actor, name): {"type": "subscribe", "channels": [name]} for actor, name in cells(READING)}
    found = {}
    for cell, command in commands.items():
        if (peer := await enter(http, guarded, cell[0], by_header=by_header)) is None:
            found[cell] = "who"
            continue
        found[cell] = await peer.outcome(**command)
        await peer.socket.close()
    write = cells(PUBLISHING)
    assert found == cells(READING) | {(*cell, durable): write[cell] for cell in write for durable in (True, False)}
    assert await published(guarded.dsn) == {"chat", "rooms.a.b", "orders.eu", "secret"}


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson", "text/csv", "text/event-stream"])
async def test_reading_by_http(guarded: Hub, http: aiohttp.ClientSession, kind: str) -> None:
    found = {}
    expected = cells(READING)
    if kind != "text/event-stream":
        expected |= {("admin", "$hub"): "no"}  # it is not in the log
    for actor, name in expected:
        url = f"{guarded.url}/events"
        query = {} if name == "**" and kind != "text/event-stream" else {"channel": name}
        async with http.get(url, params=query, headers=headers(actor, Accept=kind)) as answer:
            found[actor, name] = verdict(answer.status)
            if kind != "text/event-stream":
                await answer.read()
    assert found == expected


async def test_reading_tables(guarded: Hub, http: aiohttp.ClientSession) -> None:
    found, listed = {}, {}
    for actor in TOKENS:
        for channel, table in TABLE.items():
            async with http.get(f"{guarded.url}/watched/{table}", headers=headers(actor)) as answer:
                # Who may not read a table is not told that there is one.
                found[actor, channel] = "no" if answer.status == 404 else verdict(answer.status)
                await answer.read()
        async with http.get(f"{guarded.url}/watched", headers=headers(actor)) as answer:
            tables = (await answer.json()).get("tables")
            listed[actor] = None if tables is None else {each["channel"] for each in tables}
    assert found == {cell: answer for cell, answer in cells(READING).items() if cell[1] in TABLE}
    nothing: set[str] = set()
    assert listed == {
        **dict.fromkeys(("nobody", "forger", "expired")),
        "alice": {"orders.eu"},
        "bob": nothing,
        "carol": nothing,
        "admin": {"orders.eu", "secret"},
    }


@pytest.mark.parametrize("form", ["one", "array", "lines"])
async def test_publishing_by_http(guarded: Hub, http: aiohttp.ClientSession, form: str) -> None:
    found = {}
    for actor, name in cells(PUBLISHING):
        request = post(name, form)
        request["headers"] |= headers(actor)
        async with http.post(f"{guarded.url}/events", **request) as answer:
            found[actor, name] = verdict(answer.status)
    assert found == cells(PUBLISHING)
    assert await published(guarded.dsn) == {"chat", "rooms.a.b", "orders.eu", "secret"}


@pytest.mark.parametrize("path", ["/channels"])
async def test_administering(guarded: Hub, http: aiohttp.ClientSession, path: str) -> None:
    found = {}
    for actor in TOKENS:
        async with http.get(guarded.url + path, headers=headers(actor)) as answer:
            found[actor] = verdict(answer.status)
    assert found == ADMINISTERING | {"admin": "yes"}


# What follows from it


async def test_one_line_that_is_forbidden_keeps_all_from_being_loaded(
    guarded: Hub, http: aiohttp.ClientSession
) -> None:
    lines = [{"channel": "chat", "payload": n} for n in range(5_000)] + [{"channel": "news", "payload": 0}]
    data = b"\n".join(map(orjson.dumps, lines)) + b"\n"
    about = headers("bob", **{"Content-Type": "application/x-ndjson"})
    async with http.post(f"{guarded.url}/events", data=data, headers=about) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["field"], error["channels"]) == (403, "line 5001", ["news"])
    assert await published(guarded.dsn) == set()


async def test_no_byte_of_a_channel_reaches_who_may_not_read_it(guarded: Hub, http: aiohttp.ClientSession) -> None:
    """Alice listens wherever she may, while the same is published to what she may read and to what she may not."""
    peer = await enter(http, guarded, "alice", by_header=False)
    assert peer is not None
    await peer.outcome(type="subscribe", channels=["secret", "orders.eu"])
    await peer.ask(type="subscribe", channels=["orders.*", "orders.eu"])
    live = headers("alice", Accept="text/event-stream")
    async with http.get(f"{guarded.url}/events?channel=orders.*&channel=orders.eu", headers=live) as stream:
        owner = await asyncpg.connect(guarded.dsn)
        await owner.execute("SELECT hub.publish('secret', '\"classified\"'); SELECT pg_notify('secret', 'classified')")
        await owner.execute("INSERT INTO public.hidden VALUES (1)")
        await owner.execute("SELECT hub.publish('orders.eu', '\"the end\"')")
        await owner.close()
        received = b""
        async with asyncio.timeout(10):
            while b"the end" not in received:
                received += await stream.content.readany()
    frames = [(await peer.socket.receive(timeout=10)).data]
    while "the end" not in frames[-1]:
        frames.append((await peer.socket.receive(timeout=10)).data)
    for text in (received.decode(), *frames):
        assert "classified" not in text
        assert "secret" not in text
        assert "hidden" not in text
    await peer.socket.close()


async def test_a_replay_that_another_token_does_not_grant_ends_in_the_middle(
    guarded: Hub, http: aiohttp.ClientSession
) -> None:
    """It is more than buffers hold, so that some of it is still to come when the token does."""
    owner = await asyncpg.connect(guarded.dsn)
    fill = "INSERT INTO hub.events (channel, payload) SELECT 'orders.eu', to_jsonb(repeat('x', 20000)) FROM {} AS n"
    await owner.execute(fill.format("generate_series(1, 1000)"))
    await owner.close()
    peer = await enter(http, guarded, "alice", by_header=False)
    assert peer is not None
    less = tokens.issue(SECRET, {"sub": "alice", "subscribe": ["orders.us"]}, 3600)
    await peer.socket.send_json({"type": "subscribe", "id": 7, "channels": ["orders.eu"], "last": 1000})
    frames = [orjson.loads((await peer.socket.receive(timeout=10)).data)]
    await peer.socket.send_json({"type": "auth", "id": 8, "token": less})
    await peer.socket.send_json({"type": "ping", "id": 9})
    while frames[-1]["type"] != "pong":
        frames.append(orjson.loads((await peer.socket.receive(timeout=10)).data))
    *events, given_up, lost, authenticated, _pong = frames
    assert sum(len(frame["events"]) for frame in events) < 1000
    assert (given_up["id"], given_up["code"], given_up["channels"]) == (7, "forbidden", ["orders.eu"])
    assert (lost["id"], lost["channels"]) == (None, ["orders.eu"])
    assert (authenticated["type"], authenticated["id"]) == ("authenticated", 8)
    assert (await peer.ask(type="ping"))["type"] == "pong"
    await peer.socket.close()
