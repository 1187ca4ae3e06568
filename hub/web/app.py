"""The aiohttp application: routes, and the life of a websocket from the handshake to the last byte."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path

import structlog
from aiohttp import hdrs, web

from hub import errors, protocol
from hub.fanout.framing import DEFLATED, WEBSOCKET
from hub.web.access import Access
from hub.web.channels import Channels
from hub.web.history import Events
from hub.web.openapi import Contract
from hub.web.pages import Pages
from hub.web.ports import Ports
from hub.web.posting import Posts
from hub.web.session import Client
from hub.web.socket import Socket, transport_of
from hub.web.sse import Sse
from hub.web.watched import Tables

log = structlog.get_logger()


class Web:
    """The hub's HTTP side."""

    def __init__(self, ports: Ports, *, access: Access, static: Path, start: Sequence[tuple[str, str]] = ()) -> None:
        self._ports = ports
        self._sockets: dict[Socket, None] = {}
        self._sse = Sse(ports)
        self.app = web.Application(middlewares=[access.middleware], client_max_size=ports.limits.frame)
        self.app.on_response_prepare.append(access.share)
        self.app.router.add_get("/ws", self._websocket)
        self.app.router.add_get("/healthz", self._health)
        self.app.router.add_get("/readyz", self._ready)
        self.app.router.add_routes(Tables(ports.watched, stall_timeout=ports.stall_timeout).routes())
        posts = Posts(ports.publisher, ports.posting, max_body=ports.limits.frame, stall_timeout=ports.stall_timeout)
        self.app.router.add_routes(posts.routes())
        events = Events(ports.past, self._sse.serve, stall_timeout=ports.stall_timeout)
        self.app.router.add_routes(events.routes())
        self.app.router.add_routes(Channels(ports.fanout).routes())
        self.app.router.add_routes(Contract().routes())
        self.app.router.add_routes(Pages(static, start).routes())

    async def drain(self, timeout: float) -> None:
        """End all streams, say goodbye to every websocket, and cut off those not left after `timeout` seconds."""
        self._sse.end()
        ends = [asyncio.ensure_future(socket.end(errors.DRAIN)) for socket in self._sockets]
        if not ends:
            return
        _, late = await asyncio.wait(ends, timeout=timeout)
        for end in late:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
        for session in tuple(self._ports.fanout.sessions):
            session.outlet.abort()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _ready(self, _request: web.Request) -> web.Response:
        reasons = self._ports.ready()
        return web.json_response(
            {"status": "not ready" if reasons else "ready", "reasons": reasons},
            status=503 if reasons else 200,
        )

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        _check_handshake(request)
        ports, fanout = self._ports, self._ports.fanout
        socket = Socket(max_frame=ports.limits.frame, compress=ports.compression)
        try:
            await socket.prepare(request)
        except ConnectionResetError:
            return web.Response()  # the client has gone in the middle of the handshake; aiohttp lets it be
        session = fanout.open(transport_of(request), DEFLATED if socket.deflated else WEBSOCKET)
        client = Client(ports, socket, session)
        socket.on_close = client.part
        self._sockets[socket] = None
        name = secrets.token_hex(8)
        try:
            if len(fanout.sessions) > ports.limits.clients:
                await socket.end(errors.TOO_MANY)
                return socket
            ports.pulse.watch(session)
            session.send(self._welcome(name))
            await client.subscribe_by(request.rel_url.raw_query_string)
            await client.run()
        except Exception:
            log.exception("websocket_failed", session=name)
            await socket.end(errors.INTERNAL)
        finally:
            del self._sockets[socket]
            client.leave()
        return socket

    def _welcome(self, name: str) -> bytes:
        limits = self._ports.limits
        return protocol.welcome(
            session=name,
            auth="none",
            heartbeat=self._ports.heartbeat,
            features=["log", "publish"],
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
        raise web.HTTPUpgradeRequired(
            text="This is a websocket: connect with ws://.\n", headers={hdrs.UPGRADE: "websocket"}
        )
    offered = [name.strip() for name in request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "").split(",") if name.strip()]
    if offered and protocol.SUBPROTOCOL not in offered:
        raise web.HTTPBadRequest(text=f"This hub speaks the subprotocol {protocol.SUBPROTOCOL}, or none.\n")
