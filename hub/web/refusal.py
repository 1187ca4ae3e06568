"""How a request is refused."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from hub.errors import Code, CommandError, HubError

_RETRY_AFTER: Final = "1"  # seconds
_STATUS: Final = {
    Code.BAD_REQUEST: 400,
    Code.BAD_CHANNEL: 400,
    Code.UNSUPPORTED: 415,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.TOO_LARGE: 413,
    Code.TOO_MANY: 413,
    Code.UNAVAILABLE: 503,
}


class RequestError(HubError):
    """A request is answered with an error; `field` is what is wrong in it, if that is one."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field


def refuse(error: RequestError | CommandError) -> web.Response:
    """The answer; one that may be another later says so."""
    status = status_of(error)
    headers = {hdrs.RETRY_AFTER: _RETRY_AFTER} if status == 503 else None
    return web.json_response({"error": body_of(error)}, status=status, headers=headers)


def status_of(error: RequestError | CommandError) -> int:
    return error.status if isinstance(error, RequestError) else _STATUS.get(error.code, 500)


def body_of(error: RequestError | CommandError) -> dict[str, str | None]:
    return {"code": error.code, "message": error.message, "field": error.field}
