"""Live events as server-sent events: what a websocket would get that subscribes once, by its URL.

The body has no length and no chunks and ends with the connection, so that the same bytes are right for all of a group.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final
from urllib.parse import parse_qsl

import structlog
from aiohttp import hdrs, web
from structlog.contextvars import bind_contextvars

from hub import fence, protocol
from hub.errors import Code, CommandError
from hub.fanout.framing import SERVER_SENT
from hub.fanout.sessions import Join
from hub.grants import LEEWAY, Grants
from hub.selection import select
from hub.web.addresses import Proxies
from hub.web.alarm import Alarm
from hub.web.authority import Authority
from hub.web.ports import Ports
from hub.web.refusal import RequestError, refuse
from hub.web.seats import Seats
from hub.web.socket import transport_of
from hub.web.subscribing import check_readable, hold

KIND: Final = "text/event-stream"
_LAST_EVENT_ID: Final = "Last-Event-ID"
_HEADERS: Final = {
    hdrs.CONTENT_TYPE: KIND,
    "X-Accel-Buffering": "no",  # nginx would keep back what is less than a page
}
_RETRY: Final = 500, 5_000  # milliseconds until a client comes back: not all of them at once

log = structlog.get_logger()


class Sse:
    """Streams what comes to the fan-out."""

    def __init__(self, ports: Ports, seats: Seats, authority: Authority, proxies: Proxies) -> None:
        self._ports = ports
        self._seats = seats
        self._authority = authority
        self._proxies = proxies
        self.departures: dict[Departure, None] = {}  # of those who are connected

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for live events. Returns when the stream has ended."""
        listener = self._ports.listener
        try:
            grants = self._authority.of(request)
            join = self._join(request)
            await self._authority.check(grants, "subscribe", join.names)
            if request.method == hdrs.METH_HEAD:
                return web.Response(headers=_HEADERS)
            with self._seats.take(request):
                await hold(listener, join.selection.listened)
                try:
                    return await self._stream(request, join, grants)
                finally:
                    for name in join.selection.listened:
                        listener.release(name)
        except (CommandError, RequestError) as error:
            return refuse(error)

    def _join(self, request: web.Request) -> Join:
        """The subscribe that stands in `request`; a Last-Event-ID is newer than what its URL says."""
        command = protocol.subscribe_from(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True))
        position = protocol.check_replay(command)
        last = command.last
        if seen := request.headers.get(_LAST_EVENT_ID):
            position, last = protocol.parse_cursor(seen, _LAST_EVENT_ID), None
        names = list(dict.fromkeys(command.channels))
        protocol.check_channels(names, most=self._ports.limits.channels)
        check_readable(names)
        if len(self._ports.fanout.sessions) >= self._ports.limits.clients:
            raise RequestError(503, Code.TOO_MANY, "This hub has as many connections as it may have.")
        made = fence.made(command.area, self._ports.geometry())
        return Join(0, names, select(names, ephemeral=command.ephemeral, fence=made), position, last)

    async def _stream(self, request: web.Request, join: Join, grants: Grants) -> web.StreamResponse:
        response = _Body(headers=_HEADERS)
        response.force_close()
        try:
            transport = transport_of(request)
            await response.prepare(request)
            await response.write(b"retry: %d\n\n" % random.randint(*_RETRY))  # noqa: S311 - no secret
        except ConnectionError:
            return response  # the client has gone already; aiohttp lets it be
        fanout, pulse = self._ports.fanout, self._ports.pulse
        departure = Departure(grants.subject)
        address = str(self._proxies.client(request))
        self.departures[departure] = None
        session = fanout.open(transport, SERVER_SENT)
        entry = self._ports.roster.enter("sse", address, session, departure)
        bind_contextvars(session=entry.id)
        end = None if grants.expires is None else Alarm(grants.expires + LEEWAY, departure.feed_eof)
        try:
            request.protocol.set_parser(departure)  # type: ignore[arg-type]
            pulse.watch(session)
            fanout.subscribe(session, join)
            if not transport.is_closing():
                await departure.over
        finally:
            del self.departures[departure]
            self._ports.roster.leave(entry)
            if end is not None:
                end.cancel()
            pulse.forget(session)
            fanout.close(session)
        return response


class _Body(web.StreamResponse):
    """A body that is written to the transport, and ends with it."""

    _length_check = False  # else it is chunked; aiohttp does the same for websockets


class Departure:
    """Sees a client leave, at once: in the place of a parser of what else the client sends, which is thrown away."""

    def __init__(self, subject: str | None = None) -> None:
        self.subject = subject
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def feed_data(self, _data: bytes) -> tuple[bool, bytes]:
        return False, b""

    def feed_eof(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    async def depart(self) -> None:
        """End the stream."""
        self.feed_eof()

    def dismiss(self) -> None:
        """End it; a browser comes back all the same."""
        self.feed_eof()
