"""Full buffers: one timer sees when they have drained, for all who wait for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from hub.fanout.sessions import Session

_INTERVAL: Final = 0.05  # seconds; a transport gives no signal that many can wait for


class Drains:
    """Watches buffers that were too full until they are all but empty, which is below a 128th of `max_buffer`.

    `on_drained` gets each session that was held up, once.
    """

    def __init__(self, max_buffer: int, on_drained: Callable[[Session], None]) -> None:
        self._max_buffer = max_buffer
        self._on_drained = on_drained
        self._held: dict[Session, None] = {}
        self._waiting: dict[Session, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None  # armed while anybody waits

    def has_room(self, session: Session) -> bool:
        """Whether more can be written to `session`. If not, it is held up until it has drained."""
        if self._has_drained(session):
            return True
        self.hold(session)
        return False

    def hold(self, session: Session) -> None:
        """Have `on_drained` called for `session` when, at the next look or later, it has drained."""
        self._held[session] = None
        self._arm()

    async def writable(self, session: Session) -> None:
        """Return at once where there is room, else when `session` has drained or was forgotten."""
        if session.unsent <= self._max_buffer:
            return
        waiter = self._waiting[session] = asyncio.get_running_loop().create_future()
        self._arm()
        await waiter

    def forget(self, session: Session) -> None:
        """It was closed."""
        self._held.pop(session, None)
        if (waiter := self._waiting.pop(session, None)) and not waiter.done():
            waiter.set_result(None)

    def look(self) -> None:
        """Let those go on that have drained."""
        self._timer = None
        for session in self._drained(self._held):
            del self._held[session]
            self._on_drained(session)
        for session in self._drained(self._waiting):
            if not (waiter := self._waiting.pop(session)).done():
                waiter.set_result(None)
        self._arm()

    def _arm(self) -> None:
        if self._timer is None and (self._held or self._waiting):
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self.look)

    def _drained(self, sessions: Iterable[Session]) -> list[Session]:
        return [session for session in sessions if self._has_drained(session)]

    def _has_drained(self, session: Session) -> bool:
        return session.unsent <= self._max_buffer // 128
