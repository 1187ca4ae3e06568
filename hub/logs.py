"""Log events with fields: for people on a terminal, as JSON elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

import structlog

_NO_LEVELS: Final[Mapping[str, str]] = {}


def configure(level: str, stream: TextIO | None = None, levels: Mapping[str, str] = _NO_LEVELS) -> None:
    """Send every log event of `level` and above to `stream` (standard error), those of libraries too.

    `levels` are those of loggers that have their own, by name; of the hub's modules these are the names.
    """
    stream = stream or sys.stderr
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderer(stream)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Each try of the pool to get a connection back, with a traceback; the listener says once that Postgres is gone.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)
    logging.getLogger("asyncio").addFilter(_is_news)
    for name, own in levels.items():
        logging.getLogger(name).setLevel(own.upper())


def _is_news(record: logging.LogRecord) -> bool:
    """Not what asyncpg leaves behind when a connection is lost while a COPY waits for what to send.

    That is a future which nobody can reach, to ask it; whoever copied says what has happened.
    """
    error = record.exc_info[1] if record.exc_info else None
    unasked = record.getMessage().startswith("Future exception was never retrieved")
    return not (unasked and error is not None and type(error).__qualname__ == "ConnectionDoesNotExistError")


def _renderer(stream: TextIO) -> list[Any]:
    if stream.isatty():
        # Not the one with local variables: there may be passwords among them.
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
