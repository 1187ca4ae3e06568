"""Who may ask at all: Host and Origin checks, which keep foreign web pages away from the hub."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from hub.errors import Code
from hub.web.addresses import DIRECT, Proxies
from hub.web.refusal import RequestError, refuse

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PREFLIGHT: Final = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, DELETE",
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type, Idempotency-Key, Last-Event-ID",
    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
}
_READABLE: Final = ", ".join((hdrs.RETRY_AFTER, "Hub-Cursor", "Hub-Gap"))  # beside what pages of others may read anyhow


class Access:
    """Decides by Host and Origin.

    A page of another site can point its own name at this address (DNS rebinding) and then counts as the same
    origin; only the Host it sends gives it away. So a Host has to be `localhost`, an address that the hub is
    bound to, or the host of one of `origins`.
    """

    def __init__(self, bound: str, origins: Iterable[str], proxies: Proxies = DIRECT) -> None:
        self.proxies = proxies
        self._bound = bound
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._hosts = frozenset(urlsplit(origin).hostname for origin in self._origins)

    def host_allowed(self, header: str) -> bool:
        """Whether a request with this Host header is meant for this hub."""
        host = _hostname(f"//{header}")
        if host is None:
            return False
        return host == "localhost" or host in self._hosts or self._is_bound(host)

    def _is_bound(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host == self._bound
        bound = "127.0.0.1" if self._bound == "localhost" else self._bound
        try:
            own = ipaddress.ip_address(bound)
        except ValueError:
            return False
        # An address cannot be rebound, so any will do where the hub listens on all of them.
        return own.is_unspecified or address == own or (own.is_loopback and address.is_loopback)

    def origin_allowed(self, origin: str | None, host: str, scheme: str | None = None) -> bool:
        """Whether a page of `origin` may act here; programs send no Origin and may.

        Where the `scheme` is known by which the hub is spoken to, one of the other scheme is of another origin: what
        came by http, somebody on the way may have written.
        """
        if origin is None or self.is_listed(origin):
            return True
        spoken, _, place = origin.lower().partition("://")
        return place == host.lower() and scheme in (None, spoken)

    def is_listed(self, origin: str) -> bool:
        """Whether `origin` stands in HUB_ORIGINS."""
        return origin.lower() in self._origins

    @web.middleware
    def middleware(self, request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        """No coroutine itself: its frame would be kept for the life of each websocket."""
        host, origin = request.headers.get(hdrs.HOST, ""), request.headers.get(hdrs.ORIGIN)
        if not self.host_allowed(host):
            message = f"This hub is not {host[:100]!r}; HUB_ORIGINS lists other names it has."
            return _refuse(421, Code.WRONG_HOST, message)
        upgrade = hdrs.UPGRADE in request.headers
        scheme = None if origin is None else self.proxies.scheme(request)
        if (upgrade or request.method not in _SAFE) and not self.origin_allowed(origin, host, scheme):
            message = f"Pages of {(origin or '')[:100]!r} may not; see HUB_ORIGINS."
            return _refuse(403, Code.FORBIDDEN_ORIGIN, message)
        asks = request.method == "OPTIONS" and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if asks and origin is not None and self.is_listed(origin):
            return _preflight()
        return handler(request)

    async def share(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let pages of HUB_ORIGINS read `response`; to be called before its head goes out, also for a refusal."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and self.is_listed(origin):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _READABLE
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)


async def _preflight() -> web.Response:
    """What a browser asks before a page of another origin may send what no form could; `share` does the rest."""
    return web.Response(status=204, headers=_PREFLIGHT)


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


async def _refuse(status: int, code: Code, message: str) -> web.Response:
    return refuse(RequestError(status, code, message))
