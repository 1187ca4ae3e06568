"""The websocket by raw bytes: what no well-behaved client sends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from hub import event

MASK = b"\0\0\0\0"  # leaves bytes as they are
CLOSE = b"\x88\x82" + MASK + (1000).to_bytes(2, "big")
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def close_code(site: Any, data: bytes) -> int:
    """Send `data` on a new websocket; the code that the hub closes with."""
    host, port = site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        async with asyncio.timeout(10):
            while True:
                first, second = await reader.readexactly(2)
                size = int.from_bytes(await reader.readexactly(2)) if second == 126 else second
                payload = await reader.readexactly(size)
                if first == 0x88:
                    return int.from_bytes(payload[:2])
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"\xf1\x80" + MASK, 1002, id="reserved bits"),
        pytest.param(b"\x83\x80" + MASK, 1002, id="unknown opcode"),
        pytest.param(b"\x09\x80" + MASK, 1002, id="fragmented ping"),
        pytest.param(b"\x80\x80" + MASK, 1002, id="continuation of nothing"),
        pytest.param(b"\x88\x81" + MASK + b"x", 1002, id="close with half a code"),
        pytest.param(b"\x81\xff" + (1 << 62).to_bytes(8) + MASK, 1009, id="a length of four exabytes"),
        pytest.param(b"\x82\x81" + MASK + b"x", 1003, id="binary"),
        pytest.param(b"\x81\x81" + MASK + b"\xff", 1007, id="invalid UTF-8"),
    ],
)
async def test_what_breaks_the_rules_is_closed_by_the_code_for_it(site: Any, data: bytes, code: int) -> None:
    other = await site.connect()
    await other.receive()
    assert await close_code(site, data) == code
    assert (await other.ask(type="ping", id=1))["type"] == "pong"


async def test_a_command_in_fragments_is_one_command(site: Any) -> None:
    parts = [b'{"type":', b'"nonsense"', b',"id":1}']
    frames = [
        bytes((opcode, 0x80 | len(part))) + MASK + part for opcode, part in zip((0x01, 0x00, 0x80), parts, strict=True)
    ]
    assert await close_code(site, b"".join(frames) + b"\x82\x81" + MASK + b"x") == 1003


async def test_a_socket_that_is_cut_in_the_middle_of_a_frame_leaves_nothing_behind(site: Any) -> None:
    host, port = site.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(HANDSHAKE + b"\x81\xfe")
    while not site.ports.fanout.sessions:
        await asyncio.sleep(0)
    writer.transport.abort()
    while site.ports.fanout.sessions:
        await asyncio.sleep(0)


async def test_an_answer_that_comes_too_late_does_not_follow_the_close_frame(site: Any) -> None:
    site.publisher.at_once = False
    host, port = site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    command = b'{"type":"publish","id":1,"channel":"a","payload":1,"durable":false}'
    writer.write(HANDSHAKE + bytes((0x81, 0x80 | len(command))) + MASK + command + b"\x82\x81" + MASK + b"x")
    await reader.readuntil(b"only text frames, please")
    site.publisher.futures[0].set_result(None)
    writer.write(b"\x88\x80" + MASK)
    assert await reader.read() == b""
    writer.close()


class Frames:
    """What a client reads, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._stream = StreamReader()
        self._parser = Frame.parse(self._stream.read_exact, mask=False)

    async def next(self) -> Frame | None:
        """None at the end, which has to be between two frames."""
        while True:
            try:
                next(self._parser)
            except StopIteration as done:
                self._parser = Frame.parse(self._stream.read_exact, mask=False)
                return done.value  # type: ignore[no-any-return]
            try:
                chunk = await self._reader.read(1 << 16)
            except ConnectionResetError:  # our answer to a close frame may come to a hub that has gone
                chunk = b""
            if not chunk:
                assert not self._stream.buffer
                return None
            self._stream.feed_data(chunk)


async def burst(site: Any, until: asyncio.Event) -> None:
    """Events without end, as fast as the loop turns."""
    number = 0
    while not until.is_set():
        number += 1
        site.ports.fanout.sink(
            [event.ephemeral("a", f'{{"n": {number}, "pad": "{"x" * (number % 300)}"}}', datetime.now(UTC))]
        )
        await asyncio.sleep(0)


async def raw(site: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HANDSHAKE.replace(b"/ws", b"/ws?channel=a"))
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


@pytest.mark.parametrize("how", ["client", "drain", "violation", "ping"])
async def test_in_the_middle_of_a_burst_all_frames_are_whole_and_nothing_follows_the_close(site: Any, how: str) -> None:
    reader, writer = await raw(site)
    frames, over = Frames(reader), asyncio.Event()
    bursting = asyncio.create_task(burst(site, over))
    for _ in range(500):
        await frames.next()
    draining = None
    match how:
        case "client":
            writer.write(CLOSE)
        case "drain":
            draining = asyncio.create_task(site.web.drain(5))
        case "violation":
            writer.write(b"\x82\x81" + MASK + b"x")
        case "ping":
            writer.write(b"".join(b"\x89\x81" + MASK + bytes([number]) for number in range(100)) + CLOSE)
    pongs = []
    async with asyncio.timeout(10):
        while (frame := await frames.next()) is not None and frame.opcode is not Opcode.CLOSE:
            assert frame.opcode in (Opcode.TEXT, Opcode.PONG)
            if frame.opcode is Opcode.PONG:
                pongs.append(bytes(frame.data)[0])
        assert frame is not None, "there is a close frame"
        if how in ("drain", "violation"):
            writer.write(CLOSE)
        assert await frames.next() is None, "nothing follows it"
    assert pongs == (list(range(100)) if how == "ping" else [])
    over.set()
    await bursting
    if draining:
        await draining
    writer.close()


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536])
async def test_messages_at_the_bounds_of_frame_lengths_arrive_whole(site: Any, size: int) -> None:
    peer = await site.connect("/ws?channel=a")
    await peer.receive()
    await peer.receive()
    bare = len(event.ephemeral("a", '""', datetime.now(UTC)).json) + len('{"type":"events","events":[]}')
    site.ports.fanout.sink([event.ephemeral("a", f'"{"x" * (size - bare)}"', datetime.now(UTC))])
    message = await peer.socket.receive(timeout=5)
    assert len(message.data) == size
