"""Thousands of websocket clients in one process, cheap enough not to be what is measured.

They speak just enough of the protocol: a handshake with the subscribe in the URL, text frames in, pongs out.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Callable, Sequence
from urllib.parse import urlsplit

_PONG = b"\x8a\x80\x00\x00\x00\x00"  # masked, as a client's frames have to be; empty, as the hub's pings are


class Client(asyncio.Protocol):
    """Hands each text frame to `on_frame`, and answers pings. `pause` and `go_on` stop and start reading.

    What `on_frame` raises ends the connection and is kept for `until`.
    """

    def __init__(self, request: bytes, on_frame: Callable[[Client, bytes], None]) -> None:
        self._request = request
        self._on_frame = on_frame
        self._buffer = bytearray()
        self._open = False
        self.transport: asyncio.Transport
        self.closed = False
        self.failure: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a TCP connection's is a Transport
        transport.write(self._request)

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed = True

    def pause(self) -> None:
        self.transport.pause_reading()

    def go_on(self) -> None:
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        try:
            self._take(data)
        except Exception as error:
            self.failure = error
            self.transport.abort()

    def _take(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if not self._open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            assert b" 101 " in buffer[:end], bytes(buffer[:end])
            self._open = True
            del buffer[: end + 4]
        start = 0
        while (bounds := _frame(buffer, start)) is not None:
            body, end = bounds
            if buffer[start] == 0x81:
                self._on_frame(self, bytes(buffer[body:end]))
            elif buffer[start] == 0x89:
                self.transport.write(_PONG)
            start = end
        del buffer[:start]


def _frame(buffer: bytearray, start: int) -> tuple[int, int] | None:
    """Where the body of the next whole frame begins and ends."""
    if len(buffer) < start + 2:
        return None
    size, body = buffer[start + 1], start + 2
    if size >= 126:
        body += 2 if size == 126 else 8
        if len(buffer) < body:
            return None
        size = int.from_bytes(buffer[start + 2 : body], "big")
    return (body, body + size) if len(buffer) >= body + size else None


def request(url: str, query: str) -> bytes:
    """The handshake for the hub's websocket `url`."""
    parts = urlsplit(url)
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {parts.path}?{query} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


async def connect(
    url: str, queries: Sequence[str], on_frame: Callable[[Client, bytes], None], *, at_once: int = 200
) -> list[Client]:
    """A client for each of `queries`, in order; so many handshakes are under way `at_once`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    parts, loop, gate = urlsplit(url), asyncio.get_running_loop(), asyncio.Semaphore(at_once)

    async def one(query: str) -> Client:
        async with gate:
            while True:
                try:
                    _, client = await loop.create_connection(
                        lambda: Client(request(url, query), on_frame), parts.hostname, parts.port
                    )
                except ConnectionRefusedError:  # the hub is being started
                    await asyncio.sleep(0.05)
                else:
                    return client

    return list(await asyncio.gather(*(one(query) for query in queries)))


@contextlib.asynccontextmanager
async def connected(
    url: str, queries: Sequence[str], on_frame: Callable[[Client, bytes], None]
) -> AsyncIterator[list[Client]]:
    """As `connect`; at the end the clients are gone.

    What is still open when uvloop closes is a warning there, which pytest makes an error, which stops uvloop for ever.
    """
    clients = await connect(url, queries, on_frame)
    try:
        yield clients
    finally:
        for client in clients:
            client.transport.abort()
        await asyncio.sleep(0.1)


async def until(condition: Callable[[], bool], clients: Sequence[Client], seconds: float = 120) -> None:
    """Returns when `condition` holds.

    Raises what went wrong in one of `clients`, ConnectionError when one was closed, TimeoutError after `seconds`.
    """
    async with asyncio.timeout(seconds):
        while not condition():
            for client in clients:
                if client.failure:
                    raise client.failure
                if client.closed:
                    raise ConnectionError("The hub has closed a client's connection.")
            await asyncio.sleep(0.05)


def memory(process: int) -> float:
    """Resident megabytes of a process."""
    with open(f"/proc/{process}/status") as status:  # noqa: PTH123 - no file of ours
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def cpu(process: int) -> float:
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{process}/stat") as stat:  # noqa: PTH123
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
