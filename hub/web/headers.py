"""What every answer tells a browser to beware of."""

from __future__ import annotations

import ipaddress
from typing import Final

from aiohttp import hdrs, web

_ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # What no page says otherwise of is data: nothing to keep, to frame, or to run anything of.
    hdrs.CACHE_CONTROL: "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
}
_TRANSPORT: Final = "Strict-Transport-Security"
_YEAR: Final = "max-age=31536000"
_RESOURCE: Final = "Cross-Origin-Resource-Policy"
_SERVER: Final = "pghub"  # and not which versions of what it runs on


async def protect(request: web.Request, response: web.StreamResponse) -> None:
    """Complete the head of `response`, before it goes out; what stands in it already stays."""
    if response.status == 101:
        return  # no browser looks at it
    headers = response.headers
    headers[hdrs.SERVER] = _SERVER
    for name, value in _ALWAYS.items():
        headers.setdefault(name, value)
    shared = hdrs.ACCESS_CONTROL_ALLOW_ORIGIN in headers
    headers.setdefault(_RESOURCE, "cross-origin" if shared else "same-origin")
    if request.secure and _has_name(request.host):
        headers[_TRANSPORT] = _YEAR


def _has_name(host: str) -> bool:
    """Whether `host` is a name of the hub's own. Of `localhost` a browser would remember it for every port there."""
    name = host.partition(":")[0]
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return name != "localhost" and not host.startswith("[")
    return False
