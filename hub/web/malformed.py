"""Requests that are none: aiohttp answers them with 400, and would log each one with a traceback."""

from __future__ import annotations

import logging

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

log = structlog.get_logger()


class _Filter(logging.Filter):
    """Makes a line at level debug of what is a client's fault: whoever likes could fill the log otherwise."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
            return True
        log.debug("malformed_request", reason=str(error).partition("\n")[0])
        return False


_FILTER = _Filter()


def hush() -> None:
    """Keep them out of the log of this process. May be called again."""
    logging.getLogger("aiohttp.server").addFilter(_FILTER)
