"""SIGTERM: who is connected is sent away in good order, what is in flight ends well, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import asyncpg
import orjson
import pytest

from hub import client
from tests.bench.server import free_port
from tests.faults.process import Process
from tests.faults.producers import CHANNELS, Producer
from tests.web.test_socket import HANDSHAKE, Frames

CLIENTS, ROWS = 40, 6_000
END = "INSERT INTO hub.events (channel, payload) SELECT unnest($1::text[]), '{\"end\": true}'"
FILL = "INSERT INTO hub.events (channel, payload) SELECT 'old', to_jsonb(repeat('x', 2000)) FROM generate_series(1, $1)"


class Load:
    """Producers at work on a database."""

    def __init__(self, dsn: str, count: int) -> None:
        self.producers = [Producer(dsn, number, random.Random(number), hurry=3) for number in range(count)]
        self.tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        self.tasks = [asyncio.create_task(producer.run()) for producer in self.producers]
        return self

    async def pause(self) -> None:
        """Return when all they began has ended."""
        for producer in self.producers:
            producer.going.clear()
        await asyncio.gather(*(producer.idle.wait() for producer in self.producers))

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def admin(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def goodbye(port: int, live: asyncio.Event) -> int:
    """Follow until the hub says goodbye; the code that it says so with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(HANDSHAKE.replace(b"/ws", b"/ws?channel=faults.*"))
        await reader.readuntil(b"\r\n\r\n")
        frames = Frames(reader)
        while (frame := await frames.next()) is not None:
            if b'"events"' in frame.data:
                live.set()
            if frame.opcode == 8:
                with suppress(ConnectionError):
                    writer.write(b"\x88\x80\0\0\0\0")
                return int.from_bytes(frame.data[:2])
        return 0
    finally:
        writer.transport.abort()


async def sent_in_halves(port: int, half: asyncio.Event, rest: asyncio.Event) -> bytes:
    """The answer to a POST of which the second half comes only when `rest` is set."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        body = b'{"channel":"posted","payload":1}'
        head = "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:9])
        await writer.drain()
        half.set()
        await rest.wait()
        writer.write(body[9:])
        return await reader.readuntil(b"\r\n")
    finally:
        writer.transport.abort()


async def exported(port: int, begun: asyncio.Event, rest: asyncio.Event) -> int:
    """The lines of an export of which all but the beginning is read only when `rest` is set; it has to have an end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    try:
        accept = "Accept: application/x-ndjson"
        writer.write(f"GET /events?channel=old HTTP/1.1\r\nHost: localhost\r\n{accept}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        await rest.wait()
        data = await reader.read()
        assert data.endswith(b"0\r\n\r\n"), "it is whole"
        return data.count(b'"channel":"old"')
    finally:
        writer.transport.abort()


async def test_under_load_all_are_told_and_what_is_in_flight_ends(
    database: str, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    hub = Process(tmp_path / "log", HUB_DATABASE_URL=database, HUB_DRAIN_SECONDS="20")
    await admin.execute(FILL, ROWS)
    lives = [asyncio.Event() for _ in range(CLIENTS)]
    half, begun, rest = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(60), hub, Load(database, 4):
        goodbyes = [asyncio.create_task(goodbye(hub.port, live)) for live in lives]
        post = asyncio.create_task(sent_in_halves(hub.port, half, rest))
        export = asyncio.create_task(exported(hub.port, begun, rest))
        await asyncio.gather(*(event.wait() for event in (*lives, half, begun)))
        ending = asyncio.create_task(hub.end(signal.SIGTERM))
        assert await asyncio.gather(*goodbyes) == [1001] * CLIENTS
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", hub.port)
        rest.set()
        assert await post == b"HTTP/1.1 201 Created\r\n"
        assert await export == ROWS
        assert await ending == 0
    assert await admin.fetchval("SELECT count(*) FROM hub.events WHERE channel = 'posted'") == 1
    assert {line["level"] for line in hub.logged()} == {"info"}


async def followed(url: str, names: list[str], into: list[int], live: asyncio.Event) -> None:
    """By the Python client, until each channel has said that this is the end."""
    ended: set[str] = set()
    wanted = set(CHANNELS) if "**" in names else set(names)
    async for message in client.follow(url, names, ephemeral=False):
        if message["type"] == "subscribed":
            live.set()
        for event in map(orjson.loads, message.get("events", ())):
            into.append(event["id"])
            if event["payload"].get("end"):
                ended.add(event["channel"])
        if ended == wanted:
            return


async def test_a_rolling_restart_of_two_hubs_on_one_port_loses_nothing_and_repeats_nothing(
    database: str, admin: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_DRAIN_SPREAD", 0.2)
    monkeypatch.setattr("hub.backoff.delay", lambda *_, **__: 0.05)
    settings = {"HUB_DATABASE_URL": database, "HUB_REUSE_PORT": "1", "HUB_DRAIN_SECONDS": "0.3"}
    port = str(free_port())
    one, two = [Process(tmp_path / name, **settings, HUB_PORT=port) for name in ("one", "two")]
    stories: list[list[int]] = [[] for _ in range(12)]
    async with asyncio.timeout(60), one, two, Load(database, 4) as load:
        lives = [asyncio.Event() for _ in stories]
        names = [["**"] if number % 2 else list(CHANNELS) for number in range(len(stories))]
        following = [asyncio.create_task(followed(one.ws, *each)) for each in zip(names, stories, lives, strict=True)]
        await asyncio.gather(*(live.wait() for live in lives))
        first = await admin.fetchval("SELECT coalesce(max(id), 0) FROM hub.events")
        for hub in (one, two):
            assert await hub.end(signal.SIGTERM) == 0
            await hub.start()
        await load.pause()
        await admin.execute(END, list(CHANNELS))
        await asyncio.gather(*following)
        rows = await admin.fetch("SELECT id FROM hub.events WHERE channel = ANY($1) AND id > $2", list(CHANNELS), first)
        for hub in (one, two):
            assert await hub.end(signal.SIGTERM) == 0
    committed = sorted(row["id"] for row in rows)
    assert len(committed) > 100
    for story in stories:
        assert sorted(number for number in story if number > first) == committed
        assert len(story) == len(set(story))
