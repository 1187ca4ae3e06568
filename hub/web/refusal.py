"""How a request is refused."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from hub.errors import Code, CommandError, HubError

_RETRY_AFTER: Final = "1"  # seconds
_STATUS: Final = {Code.BAD_REQUEST: 400, Code.FORBIDDEN: 403, Code.NOT_FOUND: 404, Code.UNAVAILABLE: 503}


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
    if isinstance(error, CommandError):
        error = RequestError(_STATUS.get(error.code, 500), error.code, error.message)
    body = {"error": {"code": error.code, "message": error.message, "field": error.field}}
    headers = {hdrs.RETRY_AFTER: _RETRY_AFTER} if error.status == 503 else None
    return web.json_response(body, status=error.status, headers=headers)
