"""A TCP proxy that does to connections what networks do: delay, drip, cut, half-close, swallow, garble, go silent."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

GARBAGE = b"\xf7\xff\xfe" * 11
"""Begins no message of Postgres and no frame, and is UTF-8 nowhere."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One connection through the proxy. `near` leads to who made it, `far` to the server."""

    def __init__(self, near: Streams, far: Streams) -> None:
        self.near, self.far = near[1], far[1]
        self.swallows = False  # what is sent goes nowhere any more, and nobody is told
        self.closed: set[asyncio.StreamWriter] = set()  # a FIN has gone this way
        self.ways = ((near[0], far[1]), (far[0], near[1]))

    def cut(self) -> None:
        """End both sides by RST, at once."""
        for writer in (self.near, self.far):
            if (raw := writer.get_extra_info("socket")) is not None and raw.family != socket.AF_UNIX:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """Passes bytes on in both directions, unless it is silent: then it takes them, and connections too, and waits."""

    def __init__(self, dial: Callable[[], Awaitable[Streams]], dsn: str = "") -> None:
        self._dial = dial
        self._dsn = urlsplit(dsn)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.links: dict[Link, None] = {}
        self.delay = 0.0
        """Seconds that everything takes longer, each way."""
        self.drips = False
        """Whether bytes come one at a time."""
        self.port = 0

    @property
    def dsn(self) -> str:
        """The URL of the same database, by way of this proxy."""
        return f"postgresql://{self._dsn.username}@127.0.0.1:{self.port}{self._dsn.path}"

    def silence(self) -> None:
        self._flowing.clear()

    def speak(self) -> None:
        """Go on where `silence` began; nothing was lost."""
        self._flowing.set()

    def cut(self) -> None:
        """End all connections by RST."""
        for link in tuple(self.links):
            link.cut()

    def swallow(self) -> None:
        """Forget all connections, as a router does that lost its state: neither RST nor FIN; new ones work."""
        for link in self.links:
            link.swallows = True

    def half_close(self, *, far: bool) -> None:
        """Send a FIN to the servers, or else to those who connected; the other way stays open."""
        for link in self.links:
            writer = link.far if far else link.near
            link.closed.add(writer)
            with suppress(OSError, RuntimeError):  # it has just ended
                writer.write_eof()

    def garble(self, *, far: bool) -> None:
        """Send garbage to the servers, or else to those who connected."""
        for link in self.links:
            with suppress(RuntimeError):  # uvloop: it has just ended
                (link.far if far else link.near).write(GARBAGE)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._pass_both_ways((reader, writer))
        except (OSError, asyncio.CancelledError):
            pass  # one end is gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _pass_both_ways(self, near: Streams) -> None:
        link = Link(near, await self._dial())
        self.links[link] = None
        ways = [asyncio.create_task(self._pass(link, *way)) for way in link.ways]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self.links[link]
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            link.far.close()

    async def _pass(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._flowing.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            if not link.swallows and writer not in link.closed:
                await self._write(writer, data)
        if link.swallows:
            await asyncio.Event().wait()  # nobody hears of the end either

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        parts = [data[place : place + 1] for place in range(len(data))] if self.drips else [data]
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)


@asynccontextmanager
async def proxy(upstream: str | Callable[[], int]) -> AsyncIterator[Proxy]:
    """A proxy in front of the Postgres at `upstream`, the URL of a Unix socket, or of what has this port just now."""
    if callable(upstream):
        between = Proxy(lambda: asyncio.open_connection("127.0.0.1", upstream()))
    else:
        query = parse_qs(urlsplit(upstream).query)
        path = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        between = Proxy(lambda: asyncio.open_unix_connection(path), upstream)
    server = await asyncio.start_server(between.accept, "127.0.0.1", 0)
    between.port = server.sockets[0].getsockname()[1]
    try:
        yield between
    finally:
        server.close()
        await between.end()
