"""Clients that keep their cursor with what they got, by websocket and by server-sent events."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode

import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from hub import patterns
from tests.web.events import Received

PATIENCE = 2.0  # heartbeats without a word, after which a connection is dead


class Loss(NamedTuple):
    """Word that something may be missing here: of these channels, or of all where the connection was lost."""

    channels: frozenset[str] | None
    reason: str

    def concerns(self, channel: str) -> bool:
        return self.channels is None or channel in self.channels


class Follower:
    """Follows `names` at the hub on `port`, over and over; a lazy one reads only while `reading` is set."""

    def __init__(self, port: Callable[[], int], names: Sequence[str], heartbeat: float, *, lazy: bool = False) -> None:
        self.names = list(names)
        self.story: list[dict[str, Any] | Loss] = []
        self.marks: dict[tuple[str, bool], int] = {}  # the latest, by channel and whether it was durable
        self.cursor: str | None = None
        self.live = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        self.lazy = lazy
        self.connections = 0
        self._port = port
        self._patience = PATIENCE * heartbeat

    def __repr__(self) -> str:
        losses = [entry for entry in self.story if isinstance(entry, Loss)]
        return f"<{type(self).__name__} {' '.join(self.names)}{' lazy' * self.lazy} {losses[-3:]}>"

    @property
    def ids(self) -> list[int]:
        """The durable events of the story."""
        return [entry["id"] for entry in self.story if isinstance(entry, dict) and entry["id"] is not None]

    def wants(self, channel: str) -> bool:
        return any(patterns.matches(name, channel) for name in self.names)

    def hears(self, channel: str) -> bool:
        """Whether NOTIFYs of `channel` come, too: patterns match durable events only."""
        return channel in self.names

    async def run(self) -> None:
        while True:
            reason = "ended"
            try:
                await self._once()
            except (OSError, EOFError, ValueError, WebSocketException) as error:
                reason = f"{type(error).__name__}: {error}"
            self.story.append(Loss(None, reason))
            await asyncio.sleep(random.uniform(0.02, 0.1))

    async def _once(self) -> None:
        """One connection, to its end."""
        raise NotImplementedError

    def _take(self, message: dict[str, Any]) -> None:
        for event in message.get("events", ()):
            if (mark := event["payload"].get("mark")) is not None:
                self.marks[event["channel"], event["id"] is not None] = mark
            self.story.append(event)
        if message["type"] == "gap":
            self.story.append(Loss(frozenset(message["channels"]), message["reason"]))


class WebSocket(Follower):
    """By the websocket, with a parser that lets nothing pass which is against the rules."""

    async def _once(self) -> None:
        socket = await connect(
            f"ws://127.0.0.1:{self._port()}/ws",
            max_size=None,
            max_queue=4,
            ping_interval=None,
            open_timeout=5,
            proxy=None,
        )
        self.connections += 1
        try:
            await socket.send(orjson.dumps(self._command()).decode())
            confirmed = False
            while True:
                await self.reading.wait()
                async with asyncio.timeout(self._patience):
                    message = orjson.loads(await socket.recv())
                self._take(message)
                if message["type"] == "subscribed":
                    confirmed = True
                    self.live.set()
                if confirmed or "for" in message:  # else it is of what is confirmed, and that is nothing
                    self.cursor = message.get("cursor", self.cursor)
                if message["type"] == "error":  # the hub cannot listen now
                    raise ConnectionAbortedError(message["message"])
        finally:
            socket.transport.abort()

    def _command(self) -> dict[str, Any]:
        since = {} if self.cursor is None else {"since": self.cursor}
        return {"type": "subscribe", "id": 1, "channels": self.names} | since


class Stream(Follower):
    """By server-sent events, as a browser's EventSource would."""

    async def _once(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port())
        self.connections += 1
        try:
            query = urlencode([("channel", name) for name in self.names])
            seen = f"Last-Event-ID: {self.cursor}\r\n" if self.cursor else ""
            head = f"GET /events?{query} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{seen}\r\n"
            writer.write(head.encode())
            async with asyncio.timeout(5):
                answer = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in answer.splitlines()[0]:
                raise ConnectionRefusedError(answer.splitlines()[0].decode())
            await self._read(reader)
        finally:
            with suppress(OSError):
                writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        received = Received(id=self.cursor or "", _next=self.cursor or "")
        while True:
            await self.reading.wait()
            async with asyncio.timeout(self._patience):
                data = await reader.read(1 << 16)
            if not data:
                raise EOFError("the stream has ended")
            received.feed(data)
            for frame in received.frames:
                self._take(frame)
            received.messages.clear()
            if received.id:
                self.cursor = received.id
                self.live.set()
