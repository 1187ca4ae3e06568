"""What goes on between the hub and Postgres: how long statements take, which are slow, what the server remarks.

Two different things of asyncpg's. Query loggers are the client's side: each statement, with its arguments, how long it
took and what it failed with; COPY and the fetches of a cursor, which whoever reads them paces, do not come there. Log
listeners are the server's: notices and warnings. A pool takes its listeners away from each connection that is given
back, and warns where there are some, so what the server says is taken one step earlier, as notifications are
(hub/postgres/listening.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog

from hub.budget import Budget
from hub.histogram import Histogram
from hub.postgres.record import Record

if TYPE_CHECKING:
    Base = asyncpg.Connection[Record]
else:  # generic for type checkers only
    Base = asyncpg.Connection

DURATIONS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds that bound the buckets of a statement's histogram."""

_OTHER: Final = "other"
_NAME: Final = re.compile(r"\s*/\* ([a-z ]{1,40}) \*/")
_WORD: Final = re.compile(r"\s*(\w{1,20})")
_VERBS: Final = frozenset(
    (
        *("begin", "call", "commit", "create", "deallocate", "delete", "insert", "listen", "lock", "notify", "release"),
        *("reset", "rollback", "savepoint", "select", "set", "show", "start", "unlisten", "update", "with"),
    )
)
_RESET: Final = "SELECT pg_advisory_unlock_all()"  # what a pool does with a connection that is given back
_SQL: Final = 300  # characters that are shown of a statement
_ARGUMENT: Final = 60  # of an argument
_ARGUMENTS: Final = 10
_LINES: Final = 10  # a second, of slow statements and of notices
_THERE_ALREADY: Final = frozenset(("42P06", "42P07"))  # what IF NOT EXISTS says, whenever a hub starts
_LEVELS: Final = {"WARNING": "warning", "DEBUG": "debug"}

log = structlog.get_logger()


class Telemetry:
    """Takes note of what happens on all connections that are given to it.

    A statement of `slow` seconds or more is logged; 0 logs none. Text in arguments, where payloads and secrets are, is
    shown only with `arguments`. `tell` is told of what is logged: a kind, a sentence, and details.
    """

    def __init__(self, *, slow: float = 0.0, arguments: bool = False) -> None:
        self._slow = slow
        self._arguments = arguments
        self._slow_lines, self._notice_lines = Budget(_LINES), Budget(_LINES)
        self.durations: dict[str, Histogram] = {}
        """Seconds, by statement; `name_of` names them, and the names are not many."""
        self.failures: Counter[str] = Counter()
        """Statements that failed, by name."""
        self.slow = 0
        """Statements that were slow."""
        self.notices: Counter[str] = Counter()
        """What the server remarked, by severity."""
        self.tell: Callable[[str, str, Mapping[str, Any]], None] = _nobody

    def watch(self, connection: Any, purpose: str) -> None:
        """Take note of all that `connection` does from now on."""
        connection.add_query_logger(lambda record: self.ran(record, purpose))
        if isinstance(connection, TellingConnection):
            connection.on_remark = lambda message: self.remarked(message, purpose)

    def ran(self, record: Any, purpose: str) -> None:
        """A statement has ended."""
        name = name_of(record.query)
        if (durations := self.durations.get(name)) is None:
            durations = self.durations[name] = Histogram(DURATIONS)
        durations.observe(record.elapsed)
        if isinstance(record.exception, Exception):
            self.failures[name] += 1
        if self._slow and record.elapsed >= self._slow:
            self._was_slow(name, record, purpose)

    def _was_slow(self, name: str, record: Any, purpose: str) -> None:
        self.slow += 1
        if (left_out := self._slow_lines.take()) is None:
            return
        details = {
            "statement": name,
            "purpose": purpose,
            "ms": round(1000 * record.elapsed, 1),
            "sql": shortened(" ".join(record.query.split()), _SQL),
            "arguments": [self._shown(argument) for argument in record.args[:_ARGUMENTS]],
            "failure": self._failure(record.exception),
        }
        if left_out:
            details["left_out"] = left_out
        log.warning("slow_query", **details)
        self.tell("slow_query", f"{name} took {details['ms']} ms", details)

    def _shown(self, value: Any) -> Any:
        """Numbers and the like as they are; of what may be a payload only what it is, unless it may be shown."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if self._arguments:
            return shortened(str(value), _ARGUMENT)
        if isinstance(value, str | bytes | list | tuple):
            return f"{type(value).__name__} of {len(value)}"
        return type(value).__name__

    def _failure(self, error: BaseException | None) -> str | None:
        """What it failed with; the server's sentence may quote arguments."""
        if error is None:
            return None
        kind = type(error).__name__
        return f"{kind}: {shortened(str(error).partition(chr(10))[0], _SQL)}" if self._arguments else kind

    def remarked(self, message: Any, purpose: str) -> None:
        """The server has sent a notice or a warning."""
        severity: str = getattr(message, "severity_en", None) or "NOTICE"
        self.notices[severity.lower()] += 1
        if message.sqlstate in _THERE_ALREADY or (left_out := self._notice_lines.take()) is None:
            return
        details = {"severity": severity.lower(), "purpose": purpose, "sqlstate": message.sqlstate}
        for part in ("detail", "hint", "context"):
            if said := getattr(message, part, None):
                details[part] = shortened(said, _SQL)
        if left_out:
            details["left_out"] = left_out
        text = shortened(message.message, _SQL)
        getattr(log, _LEVELS.get(severity, "info"))("postgres", message=text, **details)
        self.tell("notice", text, details)


def _nobody(_kind: str, _text: str, _details: Mapping[str, Any]) -> None:
    pass


class TellingConnection(Base):
    """Hands what the server remarks to `on_remark`, from when that is set, however often a pool gives it away.

    The method that asyncpg's protocol calls for it is not public; a test fails where a new asyncpg calls another one.
    """

    __slots__ = ("on_remark",)
    on_remark: Callable[[Any], None] | None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.on_remark = None

    def _process_log_message(self, fields: Any, last_query: str) -> None:
        if self.on_remark is not None:
            self.on_remark(asyncpg.PostgresLogMessage.new(fields, query=last_query))


def name_of(query: str) -> str:
    """What a statement is called: by the comment it begins with, which Postgres's own views show, too, or by its verb.

    The names are those that stand in the hub's source, and the verbs of SQL, so there are not many.
    """
    if found := _NAME.match(query):
        return found[1]
    if query.startswith(_RESET):
        return "reset"
    word = found[1].lower() if (found := _WORD.match(query)) else _OTHER
    return word if word in _VERBS else _OTHER


def shortened(text: str, most: int) -> str:
    """The beginning of `text`, and how much more there is."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"
