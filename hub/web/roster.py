"""Who is connected, for an operator: where they come from, how far they are, and the way to send one off."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from dataclasses import dataclass
from heapq import nlargest
from typing import Final, Literal, Protocol

from hub import errors
from hub.fanout.sessions import Session

_NORMAL: Final = 1000, 1001, 1005, 1006  # close codes of clients that just leave
_KNOWN: Final = frozenset(_NORMAL).union(close.code for close in errors.CLOSE_CODES)
OTHER: Final = "other"


class Visitor(Protocol):
    """The other side of a session."""

    @property
    def subject(self) -> str | None:
        """Who it is, if that was said."""

    def dismiss(self) -> None:
        """Send it off; it is not to come back by itself."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One who is connected; `since` is in seconds since 1970."""

    id: str
    kind: Literal["websocket", "sse"]
    address: str
    session: Session
    visitor: Visitor
    since: float


class Roster:
    """Keeps an entry for each who is connected, and counts how those left who were."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self.closes: Counter[str] = Counter()
        """Websockets that have ended, by close code; codes that only clients make up are one."""
        self.draining = False
        """Whether all are being sent away."""

    def __len__(self) -> int:
        return len(self._entries)

    def kinds(self) -> dict[str, float]:
        """How many there are of each kind."""
        streams = sum(entry.kind == "sse" for entry in self._entries.values())
        return {"websocket": len(self._entries) - streams, "sse": streams}

    def get(self, name: str) -> Entry | None:
        return self._entries.get(name)

    def fullest(self, count: int) -> list[Entry]:
        """The `count` whose buffers are fullest, these first."""
        return nlargest(count, self._entries.values(), key=lambda entry: entry.session.unsent)

    def enter(self, kind: Literal["websocket", "sse"], address: str, session: Session, visitor: Visitor) -> Entry:
        """Make an entry, to be kept until `leave`; a context manager would be kept for each connection, too."""
        entry = Entry(secrets.token_hex(8), kind, address, session, visitor, time.time())
        self._entries[entry.id] = entry
        return entry

    def leave(self, entry: Entry) -> None:
        del self._entries[entry.id]

    def closed(self, code: int | None) -> None:
        """A websocket has ended; without a close frame it has no code."""
        self.closes[str(code) if code in _KNOWN else "1006" if code is None else OTHER] += 1
