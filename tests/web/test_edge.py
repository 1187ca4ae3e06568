"""The edge by raw sockets: whatever comes, the right end, and nothing left behind."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from tests.web.test_socket import CLOSE, HANDSHAKE, MASK, Frames

PING = b"\x89\x80" + MASK
BINARY = b"\x82\x81" + MASK + b"x"  # answered by 1003: so the frames before it were taken


def frame(payload: bytes, first: int = 0x81) -> bytes:
    return bytes((first, 0x80 | len(payload))) + MASK + payload


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(code.to_bytes(2) + reason, 0x88)


@pytest.fixture(autouse=True)
async def nothing_left(site: Any, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """After a test no session, no task and no complaint is left."""
    await asyncio.sleep(0)
    before = asyncio.all_tasks()
    yield
    async with asyncio.timeout(10):
        while site.ports.fanout.sessions or asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.sleep(0.01)  # a connection's end signals nobody
    assert not +site.listener.held
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def dial(site: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = site.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def ends(site: Any, data: bytes, *parts: bytes) -> list[Frame]:
    """Send `data` behind a handshake, then `parts` one after the other; what the hub sends until it hangs up."""
    reader, writer = await dial(site)
    writer.write(HANDSHAKE)
    await reader.readuntil(b"\r\n\r\n")
    for part in (data, *parts):
        writer.write(part)
        await asyncio.sleep(0)
    frames, found = Frames(reader), []
    async with asyncio.timeout(10):
        while (one := await frames.next()) is not None:
            found.append(one)
            if one.opcode is Opcode.CLOSE:
                with suppress(ConnectionError):
                    writer.write(CLOSE)
    writer.close()
    return found


def code(frames: list[Frame]) -> int:
    assert frames[-1].opcode is Opcode.CLOSE, frames
    return int.from_bytes(frames[-1].data[:2])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        *(pytest.param(bytes((0x81 | bit, 0x80)) + MASK, 1002, id=f"bit {bit:x}") for bit in (0x10, 0x20, 0x40, 0x70)),
        *(pytest.param(bytes((0x80 | n, 0x80)) + MASK, 1002, id=f"opcode {n:x}") for n in (3, 7, 11, 15)),
        pytest.param(b"\x81\x01x", 1002, id="unmasked"),
        pytest.param(b"\x89\x00", 1002, id="unmasked ping"),
        pytest.param(b"\xc9\x80" + MASK, 1002, id="a reserved bit on a ping"),
        pytest.param(b"\x81\xfe\x00\x05" + MASK + b"xxxxx", 1002, id="a short length in two bytes"),
        pytest.param(b"\x81\xff" + (5).to_bytes(8) + MASK + b"xxxxx", 1002, id="a short length in eight"),
        pytest.param(b"\x82\xff" + (1 << 63).to_bytes(8) + MASK, 1009, id="2^63 bytes"),
        pytest.param(b"\x81\xff" + ((1 << 64) - 1).to_bytes(8) + MASK, 1009, id="2^64 - 1 bytes"),
        pytest.param(b"\x81\xff" + ((1 << 20) + 1).to_bytes(8) + MASK, 1009, id="a byte over the limit"),
        pytest.param(b"\x89\xfe\x00\x7e" + MASK + b"x" * 126, 1002, id="a ping of 126 bytes"),
        pytest.param(b"\x88\xfe\x00\x7e" + MASK + b"x" * 126, 1002, id="a close of 126 bytes"),
        pytest.param(b"\x08\x80" + MASK, 1002, id="a fragmented close"),
        pytest.param(frame(b"a", 0x00), 1002, id="a fragment of nothing"),
        pytest.param(frame(b"a", 0x01) + frame(b"b", 0x01), 1002, id="a message within a message"),
        pytest.param(frame(b"", 0x01) + frame(b"b"), 1002, id="a message within an empty fragment"),
        pytest.param(frame("é".encode()[:1], 0x01) + frame(b"x", 0x80), 1007, id="half a character"),
        pytest.param(frame(b"\xed\xa0\x80"), 1007, id="a surrogate"),
        pytest.param(close(1000, b"\xff"), 1007, id="a reason that is not UTF-8"),
        *(pytest.param(close(n), 1002, id=f"close {n}") for n in (0, 999, 1004, 1005, 1006, 1015, 2999)),
        pytest.param(frame(b"\x03", 0x88), 1002, id="half a close code"),
    ],
)
async def test_what_breaks_the_rules_ends_by_the_code_for_it(site: Any, data: bytes, expected: int) -> None:
    assert code(await ends(site, data)) == expected


@pytest.mark.parametrize("given", [b"", (1000).to_bytes(2), (1001).to_bytes(2) + b"bye", (4999).to_bytes(2)])
async def test_a_close_is_answered(site: Any, given: bytes) -> None:
    assert code(await ends(site, frame(given, 0x88))) == 1000


async def test_who_is_still_sending_reads_what_was_wrong(site: Any) -> None:
    """If the hub hung up at once, the kernel would answer the rest by RST, and the client would come back with it."""
    size = 8 << 20
    found = await ends(site, b"\x81\xff" + size.to_bytes(8) + MASK, *(bytes(1 << 16) for _ in range(size >> 16)))
    assert code(found) == 1009
    assert found[-1].data[2:] == b"the frame is over the limit"


async def test_pings_between_fragments_are_answered_and_part_nothing(site: Any) -> None:
    """The character in the middle is split over two fragments, the command over five."""
    text = '{"type":"é"}'.encode()
    parts = [text[:3], b"", text[3:10], text[10:], b""]
    data = b"".join(
        frame(part, 0x00 if place else 0x01) + frame(bytes([place]), 0x89) for place, part in enumerate(parts)
    )
    found = await ends(site, data + frame(b"", 0x80) + BINARY)
    assert [one.data for one in found if one.opcode is Opcode.PONG] == [bytes([place]) for place in range(5)]
    (answer,) = [one.data for one in found if one.opcode is Opcode.TEXT][1:]
    assert b"bad_request" in answer
    assert code(found) == 1003


async def test_frames_may_come_byte_by_byte(site: Any) -> None:
    data = frame(b'{"type":"ping","id":7}') + PING + BINARY
    found = await ends(site, b"", *(data[place : place + 1] for place in range(len(data))))
    assert b'{"type":"pong","id":7}' in [one.data for one in found]
    assert code(found) == 1003


async def test_a_message_of_empty_fragments_without_end_takes_no_memory(site: Any) -> None:
    found = await ends(site, frame(b"", 0x01) + frame(b"", 0x00) * 50_000 + frame(b"", 0x80) + BINARY)
    assert code(found) == 1003


async def test_what_follows_a_close_is_not_read(site: Any) -> None:
    found = await ends(site, CLOSE + frame(b'{"type":"ping","id":1}') * 3 + b"\xff" * 100)
    assert [one.opcode for one in found] == [Opcode.TEXT, Opcode.CLOSE], "the welcome, and the answer"


async def test_who_closes_half_of_the_connection_is_let_go(site: Any) -> None:
    reader, writer = await dial(site)
    writer.write(HANDSHAKE)
    await reader.readuntil(b"\r\n\r\n")
    writer.write_eof()
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()


async def test_who_closes_half_of_the_connection_in_a_frame_is_let_go(site: Any) -> None:
    reader, writer = await dial(site)
    writer.write(HANDSHAKE + b"\x81\xfe\x01")
    await reader.readuntil(b"\r\n\r\n")
    writer.write_eof()
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()


async def test_a_handshake_may_come_byte_by_byte(site: Any) -> None:
    reader, writer = await dial(site)
    for place in range(len(HANDSHAKE)):
        writer.write(HANDSHAKE[place : place + 1])
        await asyncio.sleep(0)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 101")
    writer.close()


# HTTP


def request(head: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join((head, "Host: localhost", *fields, "", "")).encode() + body


async def statuses(site: Any, data: bytes) -> list[int]:
    """Send `data`; the statuses of all answers, until the hub hangs up, as it has to do."""
    reader, writer = await dial(site)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            answer = await reader.read()
    finally:
        writer.close()
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


async def status(site: Any, data: bytes) -> int:
    """Send `data`; the status of the first answer."""
    reader, writer = await dial(site)
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            return int((await reader.readuntil(b"\r\n"))[9:12])
    finally:
        writer.close()


HIDDEN = request("GET /healthz HTTP/1.1")
POST = "POST /events HTTP/1.1"
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
END = b"0\r\n\r\n"  # of what is chunked


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            request(POST, JSON, "Content-Length: 4", CHUNKED, body=END + HIDDEN),
            id="CL.TE",
        ),
        pytest.param(
            request(POST, JSON, CHUNKED, "Content-Length: 4", body=END + HIDDEN),
            id="TE.CL",
        ),
        pytest.param(request(POST, JSON, "Content-Length: 0", "Content-Length: 40", body=HIDDEN), id="two lengths"),
        pytest.param(request(POST, JSON, "Content-Length: +0", body=HIDDEN), id="a length with a sign"),
        pytest.param(request(POST, JSON, "Content-Length: 0, 40", body=HIDDEN), id="a list of lengths"),
        pytest.param(request(POST, JSON, "Content-Length : 0", body=HIDDEN), id="a space before the colon"),
        pytest.param(request(POST, JSON, "Transfer-Encoding: xchunked", body=HIDDEN), id="an unknown encoding"),
        pytest.param(
            request(POST, JSON, CHUNKED, "Transfer-Encoding: identity", body=END + HIDDEN),
            id="two encodings",
        ),
        pytest.param(
            request(POST, JSON, CHUNKED, body=b"0x1\r\n{\r\n0\r\n\r\n" + HIDDEN),
            id="a chunk in hex",
        ),
        pytest.param(request(POST, JSON, CHUNKED, body=b"-1\r\n" + HIDDEN), id="a negative chunk"),
        pytest.param(request("GET /healthz HTTP/1.1", " folded: 1", body=HIDDEN), id="a folded field"),
        pytest.param(request("GET /healthz HTTP/1.1", "A\0: 1", body=HIDDEN), id="NUL in a field's name"),
        pytest.param(request("GET /healthz HTTP/1.1", "A: 1\nB: 2", body=HIDDEN), id="a bare newline"),
        pytest.param(request("GET /healthz HTTP/1.1", "Host: evil.example", body=HIDDEN), id="two hosts"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00" + HIDDEN, id="TLS to a plain port"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN, id="HTTP/2"),
        pytest.param(b"GET http:// HTTP/1.1\r\n\r\n" + HIDDEN, id="no host at all"),
        pytest.param(b"\0" * 100 + HIDDEN, id="zeros"),
    ],
)
async def test_no_request_is_smuggled_behind_a_crooked_one(site: Any, data: bytes) -> None:
    (only,) = await statuses(site, data)
    assert 400 <= only < 500


async def test_garbage_behind_a_request_is_refused(site: Any) -> None:
    assert (await statuses(site, HIDDEN + b"\xff\xfe\r\n\r\n"))[-1] == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Upgrade", "websocket, h2c"),
        ("Connection", "keep-alive"),
        ("Sec-WebSocket-Key", "short"),
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Version", "12"),
        ("Sec-WebSocket-Version", "x"),
    ],
)
async def test_a_crooked_handshake_is_refused(site: Any, field: str, value: str) -> None:
    lines = [line for line in HANDSHAKE.decode().split("\r\n") if not line.startswith(field)]
    lines.insert(1, f"{field}: {value}")
    assert 400 <= await status(site, "\r\n".join(lines).encode()) < 500


async def test_a_handshake_by_post_is_refused(site: Any) -> None:
    assert await status(site, HANDSHAKE.replace(b"GET", b"POST")) == 405
