"""The web's side of the hub with nothing behind it: a listener and a publisher that remember."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp.test_utils import TestServer

from hub import event
from hub.cursor import Cursor
from hub.errors import Code, CommandError
from hub.fanout.fanout import Fanout
from hub.fanout.pulse import Pulse
from hub.fence import Geometry
from hub.geo.fences import Tree
from hub.item import Item
from hub.page import Page
from hub.query import Query
from hub.selection import Selection
from hub.snapshot import NOTHING
from hub.web.access import Access
from hub.web.addresses import Proxies, networks
from hub.web.app import Web
from hub.web.ports import Limits, Ports


class Listener:
    """Listens to everything at once, except to a channel named `broken`."""

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()

    def hold(self, channel: str) -> None:
        self.held[channel] += 1

    def release(self, channel: str) -> None:
        self.held[channel] -= 1

    async def listening(self, channels: Iterable[str]) -> None:
        if "broken" in channels:
            raise CommandError(Code.UNAVAILABLE, "Postgres does not answer.")


class Log:
    """A log in which nothing is."""

    async def page(self, _selection: Selection, _position: Cursor, upper: Cursor) -> Page:
        return Page([], upper)

    async def newest(self, *_: object) -> int:
        return 0

    async def fresh(self) -> None:
        return


class Publisher:
    """Keeps what it is given; a test decides when and how each ends."""

    def __init__(self) -> None:
        self.notified: list[tuple[str, str]] = []
        self.published: list[tuple[Any, ...]] = []
        self.futures: list[asyncio.Future[None]] = []
        self.at_once = True

    async def room(self) -> None:
        return

    def notify(self, channel: str, payload: str) -> asyncio.Future[None]:
        self.notified.append((channel, payload))
        return self._future(None)

    def publish(self, *event: Any, place: Any = None) -> asyncio.Future[int | None]:
        self.published.append(event if place is None else (*event, place))
        return self._future(len(self.published))

    def _future(self, result: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        if self.at_once:
            future.set_result(result)
        return future


class Watched:
    """Two batches of a table called `orders`, or what a test puts in their place."""

    def __init__(self) -> None:
        self.batches: Callable[[], AsyncGenerator[list[bytes]]] = self.two
        self.opened = 0

    async def tables(self) -> list[dict[str, object]]:
        return [{"table": "public.orders", "channel": "orders", "key": ["id"], "columns": ["id"]}]

    async def channel(self, name: str) -> str | None:
        return name if name in ("orders", "news") else None

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Watched]:
        if name != "orders":
            raise CommandError(Code(name), "No.")
        self.opened += 1
        try:
            yield self
        finally:
            self.opened -= 1

    @property
    def head(self) -> dict[str, object]:
        return {"table": "public.orders", "channel": "orders", "cursor": "abc"}

    async def two(self) -> AsyncGenerator[list[bytes]]:
        yield [b'{"id":1}', b'{"id":2}']
        yield [b'{"id":3}']


class Items:
    """Takes what is posted, but for channels that are called as an error is."""

    def __init__(self) -> None:
        self.published: list[Item] = []
        self.loaded = b""
        self.loading = asyncio.Event()
        self.given_up: BaseException | None = None

    async def publish(self, items: Sequence[Item]) -> list[int]:
        ends = await self.publish_each(items)
        for place, end in enumerate(ends):
            if isinstance(end, CommandError):
                end.field = f"[{place}]"
                raise end
        return [end for end in ends if isinstance(end, int)]

    async def publish_each(self, items: Sequence[Item]) -> list[int | CommandError]:
        self.published += items
        return [
            CommandError(Code(item.channel), "No.") if item.channel in set(Code) else number
            for number, item in enumerate(items, 1)
        ]

    async def load(self, chunks: AsyncIterator[bytes], _check: object) -> int:
        try:
            async for chunk in chunks:
                self.loaded += chunk
                self.loading.set()
        except BaseException as error:
            self.given_up = error
            raise
        return self.loaded.count(b"\n")


class Past:
    """Two events, or what a test puts in their place; an error for a channel that is called as one."""

    def __init__(self) -> None:
        self.asked: list[Query] = []
        self.batches: Callable[[], AsyncGenerator[list[bytes]]] = self.two
        self.opened = 0
        self.head = {"cursor": "abc"}
        self.gap: str | None = None

    async def page(self, query: Query) -> Page:
        self._take(query)
        events = [event.durable(1, number, "a", str(number), (), datetime.fromtimestamp(0, UTC)) for number in (1, 2)]
        return Page(events, Cursor(1, NOTHING), gap=self.gap)

    @asynccontextmanager
    async def open(self, query: Query) -> AsyncIterator[Past]:
        self._take(query)
        self.opened += 1
        try:
            yield self
        finally:
            self.opened -= 1

    async def two(self) -> AsyncGenerator[list[bytes]]:
        yield [b'{"id":1}', b'{"id":2}']
        yield [b'{"id":3}']

    async def copy(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        async for batch in self.batches():
            await write(b"\n".join(batch) + b"\n")

    def _take(self, query: Query) -> None:
        self.asked.append(query)
        for name in query.selection.names & set(Code):
            raise CommandError(Code(name), "No.")


@dataclass
class Site:
    """A running web side."""

    web: Web
    ports: Ports
    listener: Listener
    publisher: Publisher
    watched: Watched
    items: Items
    past: Past
    url: str
    http: aiohttp.ClientSession
    reasons: list[str] = field(default_factory=list)

    async def connect(self, path: str = "/ws", **options: Any) -> Peer:
        return Peer(await self.http.ws_connect(self.url + path, autoping=False, **options))


class Peer:
    """A websocket client by aiohttp, in words of JSON."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, **command: Any) -> None:
        await self.socket.send_str(orjson.dumps(command).decode())

    async def receive(self) -> dict[str, Any]:
        """The next message; pings are not for us."""
        while True:
            message = await self.socket.receive(timeout=5)
            if message.type is not aiohttp.WSMsgType.PING:
                assert message.type is aiohttp.WSMsgType.TEXT, message
                return orjson.loads(message.data)

    async def ask(self, **command: Any) -> dict[str, Any]:
        await self.send(**command)
        return await self.receive()

    async def closed(self) -> int | None:
        """The code of the close frame, which has to be what comes next but for messages."""
        while (await self.socket.receive(timeout=5)).type is not aiohttp.WSMsgType.CLOSE:
            pass
        return self.socket.close_code


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts sites with the limits that a test asks for."""
    (tmp_path / "index.html").write_text("<!doctype html><title>page</title>")
    (tmp_path / "client.js").write_text("export const one = 1")
    servers: list[TestServer] = []
    http = aiohttp.ClientSession()
    tasks = []

    async def start_one(
        heartbeat: float = 25.0,
        origins: tuple[str, ...] = (),
        trusted: str = "",
        stall_timeout: float = 1.0,
        idle_timeout: float = 600.0,
        tokens: Any = None,
        authorizing: Any = None,
        auth_timeout: float = 10.0,
        geometry: Geometry | None = None,
        **limits: int,
    ) -> Site:
        made = Limits(**limits)
        reasons: list[str] = []

        async def ready() -> list[str]:
            return reasons

        async def scrape() -> bytes:
            return b"# HELP pghub_tasks Tasks.\n"

        listener, publisher, watched, items, past = Listener(), Publisher(), Watched(), Items(), Past()
        fanout = Fanout(Log(), max_buffer=made.buffer, fences=Tree)
        pulse = Pulse(fanout.heartbeat, heartbeat=heartbeat, stall_timeout=stall_timeout, idle_timeout=idle_timeout)
        tasks.append(asyncio.create_task(pulse.run()))
        ports = Ports(
            fanout=fanout,
            pulse=pulse,
            listener=listener,
            publisher=publisher,
            watched=watched,
            posting=items,
            past=past,
            ready=ready,
            scrape=scrape,
            limits=made,
            heartbeat=heartbeat,
            stall_timeout=stall_timeout,
            geometry=lambda: geometry,
            tokens=tokens,
            authorizing=authorizing,
            auth_timeout=auth_timeout,
        )
        web = Web(ports, access=Access("127.0.0.1", origins, Proxies(networks(trusted))), static=tmp_path)
        server = TestServer(web.app)
        await server.start_server()
        servers.append(server)
        return Site(
            web, ports, listener, publisher, watched, items, past, f"http://127.0.0.1:{server.port}", http, reasons
        )

    yield start_one
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await http.close()
    for server in servers:
        await server.close()


@pytest.fixture
async def site(start: Callable[..., Any]) -> Site:
    return await start()
