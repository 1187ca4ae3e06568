"""One websocket client: its commands in, its replies out. Events go past here, from the fan-out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Iterable
from functools import reduce
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import WSMsgType

from hub import channels, errors, fence, protocol
from hub.errors import Code, CommandError
from hub.fanout import frames
from hub.fanout.sessions import Join, Session
from hub.grants import LEEWAY, Action, Grants
from hub.selection import EMPTY, Selection, select
from hub.web.alarm import Alarm
from hub.web.authority import Authority
from hub.web.outbox import Outbox
from hub.web.ports import Ports
from hub.web.rate import Call, Rate
from hub.web.socket import Socket
from hub.web.subscribing import check_fences, check_readable, hold, own

_ERRORS: Final = 10
_ERRORS_WINDOW: Final = 10.0  # seconds
_LOST: Final = Code.FORBIDDEN, "The new token does not grant this."


class Client:
    """Reads commands one at a time, in order, until the connection ends.

    There is one for each connection, so what few of them need is made when it is needed.
    """

    __slots__ = (
        "_alarm",
        "_authority",
        "_errors",
        "_grants",
        "_held",
        "_outbox",
        "_ports",
        "_query",
        "_rate",
        "_session",
        "_socket",
    )

    def __init__(
        self, ports: Ports, authority: Authority, socket: Socket, session: Session, grants: Grants | None
    ) -> None:
        self._ports = ports
        self._authority = authority
        self._grants = grants  # None until the client has said who it is
        self._alarm: Alarm | None = None  # when the connection ends, if that is known
        self._query = ""  # a subscribe that waits for the grants
        self._socket = socket
        self._session = session
        self._held = EMPTY.listened  # names that the listener holds for this client
        self._outbox: Outbox | None = None
        self._errors: deque[float] | None = None  # times of the last ones
        self._rate = Rate()

    async def begin(self, query: str) -> None:
        """Answer the subscribe that may stand in the URL; it waits until it is known who the client is."""
        self._query = query
        if self._grants is None:
            limit = time.time() + self._ports.auth_timeout
            self._alarm = Alarm(limit, lambda: self._socket.end_soon(errors.UNAUTHENTICATED))
        else:
            await self._admit(self._grants)

    async def run(self) -> None:
        """Serve the client."""
        while True:
            await self._ports.fanout.drains.writable(self._session)
            message = await self._socket.receive()
            self._ports.pulse.heard(self._session)
            match self._rate.count(time.monotonic(), self._ports.limits.rate):
                case Call.WARN:
                    self._warn()
                case Call.CLOSE:
                    await self._socket.end(errors.TOO_FAST)
                    return
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

    @property
    def subject(self) -> str | None:
        """Who the client is, if its token says so."""
        return None if self._grants is None else self._grants.subject

    def dismiss(self) -> None:
        """Send the client off."""
        self._socket.end_soon(errors.DISMISSED)

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
        if self._alarm is not None:
            self._alarm.cancel()

    def _warn(self) -> None:
        rate = self._ports.limits.rate
        message = f"These are more than {rate:g} messages a second: slow down, or the connection is closed."
        self._session.send(protocol.error(CommandError(Code.TOO_MANY, message)))

    # Commands

    async def _read(self, text: str) -> None:
        self._ports.pulse.asked(self._session)
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
        if self._grants is None and not isinstance(command, protocol.Auth | protocol.Ping):
            raise CommandError(Code.UNAUTHENTICATED, "This hub wants a token first: send it by `auth`.")
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
                await self._auth(command)

    async def _refuse(self, refusal: CommandError) -> None:
        """Tell the client; close the connection of one that goes on making errors."""
        self._session.send(protocol.error(refusal))
        if self._errors is None:
            self._errors = deque(maxlen=_ERRORS)
        now = time.monotonic()
        self._errors.append(now)
        if len(self._errors) == _ERRORS and now - self._errors[0] < _ERRORS_WINDOW:
            await self._socket.end(errors.TOO_MANY_ERRORS)

    # Who it is

    async def _auth(self, command: protocol.Auth) -> None:
        """Take a token in the place of the last one; what that had allowed and this does not, is over."""
        if self._authority.is_open:
            raise CommandError(Code.UNSUPPORTED, "This hub is open: it asks for no token.")
        grants = self._authority.by_token(command.token)
        if grants.empty:
            await self._socket.end(errors.NOTHING_GRANTED)
            return
        if lost := await self._authority.refused(grants, "subscribe", sorted(self._wanted().names)):
            refusal = CommandError(*_LOST, channels=tuple(lost))
            self._ports.fanout.unsubscribe(self._session, lost, protocol.error(refusal), _LOST)
            self._release()
        self._session.send(protocol.authenticated(command.id, grants.subject, grants.expires))
        await self._admit(grants)

    async def _admit(self, grants: Grants) -> None:
        """Serve the client by these grants, until they end."""
        self._grants = grants
        if self._alarm is not None:
            self._alarm.cancel()
        if grants.expires is not None:
            self._alarm = Alarm(grants.expires + LEEWAY, lambda: self._socket.end_soon(errors.EXPIRED))
        query, self._query = self._query, ""
        if query:
            await self._answer(0, self._subscribe_by(query))

    async def _check(self, action: Action, names: Iterable[str]) -> None:
        assert self._grants is not None
        await self._authority.check(self._grants, action, names)

    # Subscriptions

    async def _subscribe_by(self, query: str) -> None:
        await self._subscribe(0, protocol.subscribe_from(parse_qsl(query, keep_blank_values=True)))

    async def _subscribe(self, command_id: int, command: protocol.Subscribe) -> None:
        most = self._ports.limits.channels
        names = list(dict.fromkeys(command.channels))
        protocol.check_channels(names, most=most)
        position = protocol.check_replay(command)
        check_readable(names)
        await self._check("subscribe", names)
        if len(self._wanted().names.union(names)) > most:
            raise CommandError(Code.TOO_MANY, f"A client may have {most} subscriptions; unsubscribe some first.")
        made = fence.made(command.area, self._ports.geometry())
        selection = select(names, ephemeral=command.ephemeral, fence=made)
        if made is not None:
            check_fences(self._wanted().merged(selection))
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
        payload = protocol.check_publish(command)
        if channels.is_own(command.channel):
            raise own(command.channel)
        await self._check("publish", (command.channel,))
        if self._outbox is None:
            ports = self._ports
            self._outbox = Outbox(ports.publisher, self._session, ports.limits.outstanding, ports.geometry)
        await self._outbox.put(command, payload)
