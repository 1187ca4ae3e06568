"""What no handler answers, in the form of all refusals: paths and methods that do not exist, and faults of our own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import hdrs, web

from hub import protocol
from hub.errors import Code
from hub.web.refusal import RequestError, refuse

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
WEBSOCKET = "/ws"

log = structlog.get_logger()


@web.middleware
def middleware(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
    """No coroutine itself: its frame would be kept for the life of each websocket, which has its own care."""
    if (failure := request.match_info.http_exception) is not None:
        return _refused(request, failure)
    return handler(request) if request.path == WEBSOCKET else _guarded(request, handler)


async def _refused(request: web.Request, failure: web.HTTPException) -> web.Response:
    path = protocol.printable(request.path)
    if isinstance(failure, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(failure.allowed_methods))
        message = f"{path!r} knows {allowed}, and no other method."
        return refuse(RequestError(405, Code.METHOD_NOT_ALLOWED, message, headers={hdrs.ALLOW: allowed}))
    return refuse(RequestError(404, Code.NOT_FOUND, f"There is no {path!r} here; /openapi.json says what there is."))


async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException:
        raise  # a redirection
    except Exception:
        if request.writer.output_size:
            raise  # too late for an answer: the connection is cut
        log.exception("request_failed", method=request.method, path=request.path)
        return refuse(RequestError(500, Code.INTERNAL, "An error inside the hub, which its log tells of."))
