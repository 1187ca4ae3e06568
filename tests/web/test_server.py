"""Serving on an address: who dawdles is cut, and who is served when it ends is served to the end."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from hub.errors import SetupError
from hub.web.server import Endpoint, serving
from tests.web.conftest import Site

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
POST = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 29\r\n\r\n"


@asynccontextmanager
async def served(site: Site, hurry: asyncio.Event | None = None, **endpoint: Any) -> AsyncIterator[int]:
    """The port at which `site` is served, too."""
    async with serving(site.web, Endpoint("127.0.0.1", 0, **endpoint), hurry=hurry or asyncio.Event()) as url:
        yield int(url.rpartition(":")[2])


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def drip(writer: asyncio.StreamWriter) -> None:
    """A head that goes on for ever, a byte at a time."""
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.01)  # as slow as that: it is what the test is about


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is cut: with a reset, where a drip was still under way."""
    found = b""
    with suppress(ConnectionResetError):
        while data := await reader.read(1 << 12):
            found += data
    return found


@pytest.mark.parametrize("before", [b"", b"GET / HT", HEAD, HEAD + b"\r\n", HEAD + b"\r\n" + HEAD])
async def test_who_does_not_come_to_the_point_is_cut(site: Site, before: bytes) -> None:
    """Whether nothing comes, or a head by drips, or nothing more, or another head by drips, after an answer."""
    async with served(site, handshake_timeout=0.2) as port, asyncio.timeout(10):
        reader, writer = await connect(port)
        writer.write(before)
        dripping = asyncio.create_task(drip(writer)) if before.endswith((b"HT", HEAD)) else None
        answer = await everything(reader)
        assert answer.count(b"HTTP/1.1 200") == before.count(b"\r\n\r\n")
        writer.close()
        if dripping is not None:
            await asyncio.gather(dripping, return_exceptions=True)


async def test_a_websocket_stays_beyond_the_handshakes_timeout(site: Site) -> None:
    async with served(site, handshake_timeout=0.05) as port:
        site.url = f"http://127.0.0.1:{port}"
        peer = await site.connect()
        await peer.receive()
        reader, writer = await connect(port)
        assert await reader.read() == b"", "cut, so the time is over"
        writer.close()
        assert (await peer.ask(type="ping", id=1))["type"] == "pong"


async def test_a_request_in_flight_is_answered_before_the_end(site: Site) -> None:
    site.publisher.at_once = False
    reader, writer = await leave_with_a_post_in_flight(site, drain_seconds=30)
    assert (await reader.readline()).startswith(b"HTTP/1.1 201")
    writer.close()


async def test_a_request_that_does_not_end_is_cut_in_the_end(site: Site) -> None:
    site.publisher.at_once = False
    reader, writer = await leave_with_a_post_in_flight(site, answer=False, drain_seconds=0)
    assert await reader.read() == b""
    writer.close()


async def test_in_a_hurry_nobody_is_waited_for(site: Site) -> None:
    site.publisher.at_once = False
    hurry = asyncio.Event()
    peers = [await site.connect() for _ in range(3)]
    asyncio.get_running_loop().call_later(0.05, hurry.set)
    async with asyncio.timeout(20):
        reader, writer = await leave_with_a_post_in_flight(site, hurry, answer=False, drain_seconds=60)
    assert await reader.read() == b""
    writer.close()
    assert not site.ports.fanout.sessions
    assert len(peers) == 3


async def leave_with_a_post_in_flight(
    site: Site, hurry: asyncio.Event | None = None, *, answer: bool = True, **endpoint: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with served(site, hurry, **endpoint) as port:
        reader, writer = await connect(port)
        writer.write(POST + b'{"channel":"a","payload":  1}')
        while not site.publisher.futures:
            await asyncio.sleep(0)  # until it has come to the publisher, which is a fake and gives no signal
        (future,) = site.publisher.futures
        if answer:
            asyncio.get_running_loop().call_later(0.1, future.set_result, 1)
    return reader, writer


async def test_a_port_that_is_taken_is_a_sentence(site: Site) -> None:
    async with served(site) as port:
        with pytest.raises(SetupError, match=f"cannot listen on 127.0.0.1 port {port}.*--port"):
            async with serving(site.web, Endpoint("127.0.0.1", port), hurry=asyncio.Event()):
                pass


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A client's socket that is to read nothing of what comes."""
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        yield made


async def cut_off(deaf: socket.socket) -> None:
    """Return when the connection was reset."""
    ends = select.poll()
    ends.register(deaf, 0)
    async with asyncio.timeout(10):
        while not ends.poll(0):
            await asyncio.sleep(0.01)  # a loop waits for bytes or room, and would find the former


async def test_who_reads_no_answers_is_cut(site: Site, deaf: socket.socket) -> None:
    async with served(site, stall_timeout=0.2) as port:
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        await cut_off(deaf)


@pytest.mark.parametrize("last", [b"", b"\xff\xff"], ids=["", "and has been sent away"])
async def test_a_websocket_that_reads_nothing_is_cut_though_closed(
    site: Site, deaf: socket.socket, last: bytes
) -> None:
    async with served(site, stall_timeout=0.2) as port:
        deaf.connect(("127.0.0.1", port))
        deaf.sendall(UPGRADE)
        while not site.ports.fanout.sessions:
            await asyncio.sleep(0)  # until it has been welcomed, of which nobody is told
        (session,) = site.ports.fanout.sessions
        session.outlet.write(bytes(1 << 23))
        deaf.sendall(last)
        await cut_off(deaf)


async def test_who_reads_slowly_is_not_cut(site: Site, deaf: socket.socket) -> None:
    async with served(site, stall_timeout=0.2) as port:
        deaf.connect(("127.0.0.1", port))
        deaf.setblocking(False)
        deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        loop, end = asyncio.get_running_loop(), asyncio.get_running_loop().time() + 1
        while loop.time() < end:
            assert await loop.sock_recv(deaf, 1 << 12)
            await asyncio.sleep(0.005)  # as slow as that: it is what the test is about
