"""How a request is refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from aiohttp import hdrs, web

from hub.errors import Code, CommandError, HubError

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_RETRY_AFTER: Final = "1"  # seconds
_STATUS: Final = {
    Code.BAD_REQUEST: 400,
    Code.BAD_CHANNEL: 400,
    Code.BAD_PLACE: 400,
    Code.UNSUPPORTED: 400,
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.TOO_LARGE: 413,
    Code.TOO_MANY: 413,
    Code.UNAVAILABLE: 503,
}


class RequestError(HubError):
    """A request is answered with an error; `field` is what is wrong in it, if that is one.

    `headers` go with the answer.
    """

    def __init__(
        self, status: int, code: str, message: str, field: str | None = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.headers = headers


def refuse(error: RequestError | CommandError) -> web.Response:
    """The answer; one that may be another later says so."""
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, RequestError) else {}
    if status == 503:
        headers.setdefault(hdrs.RETRY_AFTER, _RETRY_AFTER)
    return web.json_response({"error": body_of(error)}, status=status, headers=headers)


def status_of(error: RequestError | CommandError) -> int:
    return error.status if isinstance(error, RequestError) else _STATUS.get(error.code, 500)


def body_of(error: RequestError | CommandError) -> dict[str, Any]:
    body = {"code": error.code, "message": error.message, "field": error.field}
    channels = error.channels if isinstance(error, CommandError) else ()
    return body | {"channels": channels} if channels else body
