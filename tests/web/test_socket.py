"""The websocket by raw bytes: what no well-behaved client sends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

MASK = b"\0\0\0\0"  # leaves bytes as they are
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
