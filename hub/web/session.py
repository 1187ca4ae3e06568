"""One websocket client: its commands in, its replies out. Events go past here, from the fan-out."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable
from functools import reduce
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import WSMsgType

from hub import channels, errors, protocol
from hub.errors import Code, CommandError
from hub.fanout import frames
from hub.fanout.sessions import Join, Session
from hub.selection import EMPTY, Selection, select
from hub.web.ports import Ports
from hub.web.socket import Socket
from hub.web.subscribing import check_readable, hold, own

_ERRORS: Final = 10
_ERRORS_WINDOW: Final = 10.0  # seconds


class Client:
    """Reads commands one at a time, in order, until the connection ends.

    There is one for each connection, so what few of them need is made when it is needed.
    """

    __slots__ = ("_errors", "_fewer", "_held", "_outstanding", "_ports", "_session", "_socket")

    def __init__(self, ports: Ports, socket: Socket, session: Session) -> None:
        self._ports = ports
        self._socket = socket
        self._session = session
        self._held = EMPTY.listened  # names that the listener holds for this client
        self._outstanding = 0  # publishes under way
        self._fewer: asyncio.Future[None] | None = None  # done when one of them has ended, where that is waited for
        self._errors: deque[float] | None = None  # times of the last ones

    async def subscribe_by(self, query: str) -> None:
        """Answer the subscribe that may stand in the URL."""
        if query:
            await self._answer(0, self._subscribe_by(query))

    async def run(self) -> None:
        """Serve the client."""
        while True:
            await self._ports.fanout.drains.writable(self._session)
            message = await self._socket.receive()
            self._ports.pulse.heard(self._session)
            match message.type:
                case WSMsgType.TEXT:
                    await self._read(message.data)
                case WSMsgType.PING:
                    self._session.write(frames.pong(message.data))
                case WSMsgType.PONG:
                    pass
                case WSMsgType.BINARY:
                    await self._socket.end(errors.BINARY)
                case _:
                    return

    def part(self) -> None:
        """Have nothing more written to the client: a close frame is next. May be called twice."""
        self._ports.fanout.close(self._session)
        self._ports.pulse.forget(self._session)

    def leave(self) -> None:
        """Part, and give back what this client held. May be called twice."""
        self.part()
        for name in self._held:
            self._ports.listener.release(name)
        self._held = EMPTY.listened

    # Commands

    async def _read(self, text: str) -> None:
        try:
            command = protocol.decode(text)
        except CommandError as refusal:
            await self._refuse(refusal)
            return
        await self._answer(command.id, self._handle(command))

    async def _answer(self, command_id: int, handled: Awaitable[None]) -> None:
        try:
            await handled
        except CommandError as refusal:
            refusal.command_id = command_id
            await self._refuse(refusal)

    async def _handle(self, command: protocol.Command) -> None:
        match command:
            case protocol.Subscribe():
                await self._subscribe(command.id, command)
            case protocol.Unsubscribe():
                self._unsubscribe(command)
            case protocol.Publish():
                await self._publish(command)
            case protocol.Ping():
                self._session.send(protocol.pong(command.id))
            case protocol.Auth():
                raise CommandError(Code.UNSUPPORTED, "This hub is open: it asks for no token.")

    async def _refuse(self, refusal: CommandError) -> None:
        """Tell the client; close the connection of one that goes on making errors."""
        self._session.send(protocol.error(refusal))
        if self._errors is None:
            self._errors = deque(maxlen=_ERRORS)
        now = time.monotonic()
        self._errors.append(now)
        if len(self._errors) == _ERRORS and now - self._errors[0] < _ERRORS_WINDOW:
            await self._socket.end(errors.TOO_MANY_ERRORS)

    # Subscriptions

    async def _subscribe_by(self, query: str) -> None:
        await self._subscribe(0, protocol.subscribe_from(parse_qsl(query, keep_blank_values=True)))

    async def _subscribe(self, command_id: int, command: protocol.Subscribe) -> None:
        most = self._ports.limits.channels
        names = list(dict.fromkeys(command.channels))
        protocol.check_channels(names, most=most)
        position = protocol.check_replay(command)
        check_readable(names)
        if len(self._wanted().names.union(names)) > most:
            raise CommandError(Code.TOO_MANY, f"A client may have {most} subscriptions; unsubscribe some first.")
        selection = select(names, ephemeral=command.ephemeral)
        new = selection.listened - self._held
        await hold(self._ports.listener, new)
        self._held = self._held.union(new)
        try:
            self._ports.fanout.subscribe(self._session, Join(command_id, names, selection, position, command.last))
        finally:
            self._release()

    def _wanted(self) -> Selection:
        """What this client has subscribed to, replays under way included."""
        joins = (join.selection for join in self._session.joins)
        return reduce(Selection.merged, joins, self._session.selection)

    def _release(self) -> None:
        """Give back what is held and no longer wanted."""
        wanted = self._wanted().listened
        for name in self._held - wanted:
            self._ports.listener.release(name)
        self._held = wanted

    def _unsubscribe(self, command: protocol.Unsubscribe) -> None:
        protocol.check_channels(command.channels, most=self._ports.limits.channels)
        names = list(dict.fromkeys(command.channels))
        self._ports.fanout.unsubscribe(self._session, names, protocol.unsubscribed(command.id, names))
        self._release()

    # Publishing

    async def _publish(self, command: protocol.Publish) -> None:
        """Hand the event over; the reply comes after the commit, while the next commands are read."""
        payload = protocol.check_publish(command)
        if channels.is_own(command.channel):
            raise own(command.channel)
        while self._outstanding >= self._ports.limits.outstanding:
            self._fewer = asyncio.get_running_loop().create_future()
            await self._fewer
        publisher = self._ports.publisher
        await publisher.room()
        future: asyncio.Future[Any]
        if command.durable:
            future = publisher.publish(command.channel, payload, command.tags, command.key)
        else:
            future = publisher.notify(command.channel, payload)
        self._outstanding += 1
        future.add_done_callback(lambda done: self._published(command.id, done))

    def _published(self, command_id: int, done: asyncio.Future[Any]) -> None:
        self._outstanding -= 1
        if self._fewer is not None and not self._fewer.done():
            self._fewer.set_result(None)
        if done.cancelled():
            error: BaseException | None = CommandError(Code.UNAVAILABLE, "The hub is going away.")
        else:
            error = done.exception()
        if error is None:
            self._session.send(protocol.published(command_id, done.result()))
            return
        if not isinstance(error, CommandError):
            error = CommandError(Code.INTERNAL, "The event was not published, for a reason inside the hub.")
        # A copy: one failure may be the answer to many publishes.
        self._session.send(protocol.error(CommandError(error.code, error.message, command_id=command_id)))
