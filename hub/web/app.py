"""The aiohttp application: routes, and the life of a websocket from the handshake to the last byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog
from aiohttp import hdrs, web
from structlog.contextvars import bind_contextvars

from hub import errors, protocol
from hub.errors import Code
from hub.fanout.framing import DEFLATED, WEBSOCKET
from hub.grants import Grants
from hub.web import farewell, faults, headers, malformed
from hub.web.access import Access
from hub.web.authority import Authority
from hub.web.channels import Channels
from hub.web.flight import Flight
from hub.web.history import Events
from hub.web.openapi import Contract
from hub.web.pages import Pages
from hub.web.ports import Ports
from hub.web.posting import Posts
from hub.web.refusal import RequestError, refuse
from hub.web.scrapes import Scrapes
from hub.web.seats import Seats
from hub.web.session import Client
from hub.web.sessions import Sessions
from hub.web.socket import Socket, transport_of
from hub.web.sse import Sse
from hub.web.watched import Tables

_GOODBYE: Final = 1.0  # seconds that the last have to leave in

log = structlog.get_logger()


class Web:
    """The hub's HTTP side."""

    def __init__(self, ports: Ports, *, access: Access, static: Path, start: Sequence[tuple[str, str]] = ()) -> None:
        malformed.hush()
        self._ports = ports
        self._sockets: dict[Socket, None] = {}
        self._authority = authority = Authority(ports.tokens, ports.authorizing)
        self._proxies = access.proxies
        self._seats = Seats(access.proxies, ports.limits.per_address)
        self._sse = Sse(ports, self._seats, authority, access.proxies)
        self._flight = Flight()
        self.app = web.Application(
            middlewares=[self._flight.middleware, access.middleware, faults.middleware],
            client_max_size=ports.limits.frame,
        )
        self.app.on_response_prepare.extend((access.share, headers.protect))
        self.app.router.add_get(faults.WEBSOCKET, self._websocket)
        self.app.router.add_get("/healthz", self._health)
        self.app.router.add_get("/readyz", self._ready)
        self.app.router.add_routes(Tables(ports.watched, authority, stall_timeout=ports.stall_timeout).routes())
        posts = Posts(
            ports.publisher,
            ports.posting,
            authority,
            max_body=ports.limits.frame,
            stall_timeout=ports.stall_timeout,
            geometry=ports.geometry,
        )
        self.app.router.add_routes(posts.routes())
        events = Events(
            ports.past, self._sse.serve, authority, stall_timeout=ports.stall_timeout, geometry=ports.geometry
        )
        self.app.router.add_routes(events.routes())
        self.app.router.add_routes(Channels(ports.fanout, authority).routes())
        self.app.router.add_routes(Sessions(ports.roster, ports.fanout, authority).routes())
        self.app.router.add_routes(Scrapes(ports.scrape, authority).routes())
        self.app.router.add_routes(Contract().routes())
        self.app.router.add_routes(Pages(static, start).routes())

    async def drain(self, seconds: float) -> None:
        """Send all away who stay, spread over up to `seconds`, and cut off those who have not left soon afterwards.

        Nobody new is let in. May be cancelled: then all are cut off at once.
        """
        self._seats.close()
        self._ports.roster.draining = True
        try:
            await farewell.part([*self._sockets, *self._sse.departures], seconds, patience=_GOODBYE)
        finally:
            for session in tuple(self._ports.fanout.sessions):
                session.outlet.abort()

    async def landed(self) -> None:
        """Return when no request is in flight."""
        await self._flight.landed()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _ready(self, request: web.Request) -> web.Response:
        """Whether the hub is fit to serve; why not is for admins."""
        reasons = await self._ports.ready()
        body: dict[str, object] = {"status": "not ready" if reasons else "ready"}
        if self._authority.is_admin(request):
            body["reasons"] = reasons
        return web.json_response(body, status=503 if reasons else 200)

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        ports, fanout = self._ports, self._ports.fanout
        socket = Socket(max_frame=ports.limits.frame, compress=ports.compression)
        try:
            _check_handshake(request)
            grants = self._grants(request)
            seat = self._seats.take(request)
        except RequestError as error:
            return refuse(error)
        with seat:
            try:
                await socket.prepare(request)
            except web.HTTPBadRequest as error:
                return refuse(RequestError(400, Code.BAD_REQUEST, f"That is no handshake: {error.text}"))
            except ConnectionResetError:
                return web.Response()  # the client has gone in the middle of the handshake; aiohttp lets it be
            session = fanout.open(transport_of(request), DEFLATED if socket.deflated else WEBSOCKET)
            client = Client(ports, self._authority, socket, session, grants)
            socket.on_close = client.part
            self._sockets[socket] = None
            entry = ports.roster.enter("websocket", str(self._proxies.client(request)), session, client)
            bind_contextvars(session=entry.id)  # each line of the log that comes of this has it
            try:
                if len(fanout.sessions) > ports.limits.clients:
                    await socket.end(errors.TOO_MANY)
                    return socket
                ports.pulse.watch(session)
                session.send(self._welcome(entry.id, "required" if grants is None else "none"))
                await client.begin(request.rel_url.raw_query_string)
                await client.run()
            except Exception:
                log.exception("websocket_failed", address=entry.address)
                await socket.end(errors.INTERNAL)
            finally:
                del self._sockets[socket]
                ports.roster.leave(entry)
                ports.roster.closed(socket.ended or session.ended or socket.close_code)
                client.leave()
        return socket

    def _grants(self, request: web.Request) -> Grants | None:
        """What the token in the handshake's header grants; None for a client that has to send one later."""
        grants = self._authority.by_header(request)
        if grants is not None and grants.empty:
            raise RequestError(403, Code.FORBIDDEN, "The token grants nothing.", hdrs.AUTHORIZATION)
        return grants

    def _welcome(self, name: str, auth: str) -> bytes:
        limits = self._ports.limits
        return protocol.welcome(
            session=name,
            auth=auth,
            heartbeat=self._ports.heartbeat,
            features=["log", "publish", *(["geo"] if self._ports.geometry() else [])],
            limits={
                "frame": limits.frame,
                "payload": protocol.MAX_PAYLOAD,
                "channels": limits.channels,
                "outstanding": limits.outstanding,
            },
        )


def _check_handshake(request: web.Request) -> None:
    """Refuse what is no websocket handshake for `pghub.v1`, in words."""
    if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
        message = "This is a websocket: connect with ws://."
        raise RequestError(426, Code.UPGRADE_REQUIRED, message, headers={hdrs.UPGRADE: "websocket"})
    offered = [name.strip() for name in request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "").split(",") if name.strip()]
    if offered and protocol.SUBPROTOCOL not in offered:
        message = f"This hub speaks the subprotocol {protocol.SUBPROTOCOL}, or none."
        raise RequestError(400, Code.BAD_REQUEST, message, hdrs.SEC_WEBSOCKET_PROTOCOL)
