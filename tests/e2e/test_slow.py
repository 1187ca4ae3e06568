"""A client that stops reading: it costs a bounded buffer, nobody else waits, and it hears what it missed."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from tests.conftest import running
from tests.e2e.test_notify import payloads, subscriber

EVENTS, SIZE = 2_000, 7_000


class Reader:
    """A websocket read by hand, so that it can really stop: nothing between it and the socket reads ahead."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._stream = StreamReader()

    async def message(self) -> dict[str, Any]:
        """The next JSON message."""
        while True:
            parser = Frame.parse(self._stream.read_exact, mask=False)
            while True:
                try:
                    next(parser)
                    data = await self._reader.read(65536)
                    assert data, "the hub hung up"
                    self._stream.feed_data(data)
                except StopIteration as done:
                    frame: Frame = done.value
                    break
            if frame.opcode is Opcode.TEXT:
                message: dict[str, Any] = orjson.loads(bytes(frame.data))
                return message


async def connect(ws: str) -> Reader:
    parts = urlsplit(ws)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=4096)
    writer.write(
        b"GET /ws?channel=flood HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    return Reader(reader, writer)


async def test_a_client_that_does_not_read_misses_a_stated_number_and_goes_on(database: str) -> None:
    async with running(database, max_buffer=256 * 1024) as hub:
        slow = await connect(hub.ws)
        while (await slow.message())["type"] != "subscribed":
            pass
        quick = await subscriber(hub, "flood")
        reading = asyncio.create_task(payloads(quick, EVENTS))
        producer = await asyncpg.connect(hub.dsn)
        for number in range(1, EVENTS + 1):
            await producer.execute("SELECT pg_notify('flood', $1)", f'{{"n":{number},"pad":"{"x" * SIZE}"}}')
        got = [item["n"] for item in await reading]
        assert got == list(range(1, EVENTS + 1)), "who reads is not disturbed"

        seen: list[int] = []
        dropped = 0
        while len(seen) + dropped < EVENTS:
            message = await slow.message()
            if message["type"] == "gap":
                assert (message["reason"], message["channels"]) == ("overflow", ["flood"])
                dropped += message["dropped"]
            seen += [item["payload"]["n"] for item in message.get("events", ())]
        assert dropped > 0
        assert seen == sorted(set(seen))
        await producer.execute("""NOTIFY flood, '{"n":0}'""")
        assert (await slow.message())["events"][0]["payload"] == {"n": 0}
        slow.writer.close()
        await producer.close()
        await quick.close()
