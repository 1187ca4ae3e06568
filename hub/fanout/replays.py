"""The seam from the log to live: brings sessions up to date that are behind, or that subscribe from a cursor.

A session catches up with one thing at a time: first with what it is behind with, then with its joins in order. Each
step takes one page, from the ring if that reaches, else from the log, and never past the log's position in the
fan-out. The last step is from the ring and without an await: between it and the first live batch nothing can come.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, Protocol

from hub import backoff, protocol
from hub.cursor import Cursor
from hub.fanout.batches import Gap, gap
from hub.fanout.ring import Ring
from hub.fanout.sessions import Join, Replay, Session
from hub.page import Page
from hub.selection import Selection
from hub.snapshot import NOTHING

_MOST_DELAY: Final = 5.0  # seconds between tries to read the log


class Log(Protocol):
    """Where events are read from that the ring has not. Each method raises OSError while the log cannot be read."""

    async def page(self, selection: Selection, position: Cursor, upper: Cursor) -> Page:
        """As `Ring.page`; a page that is not full may have its position inside, too."""

    async def newest(self, selection: Selection, count: int, upper: Cursor) -> int:
        """The id behind which the newest `count` events of `selection` lie that `upper` sees."""

    async def verify(self, position: Cursor, era: int) -> Page:
        """The same position in `era`, if all that it has seen is still there; else where to go on, after a gap."""

    async def fresh(self) -> None:
        """Return when all that is visible in the log now has come to the fan-out."""


class Live(Protocol):
    """What the replays need of the fan-out."""

    position: Cursor
    ring: Ring

    def has_room(self, session: Session) -> bool:
        """Whether the session's buffer has drained; if it has not, `Replays.advance` is called when it has."""

    def catch_up(self, session: Session) -> None:
        """Make a session that is behind live: it has been written all that the ring has."""

    def merge(self, session: Session, join: Join) -> bool:
        """Add a join to what the session is live with, or tell that the session is behind."""


class Replays:
    """Drives them. All of a session's state is in the session."""

    def __init__(self, live: Live, log: Log) -> None:
        self._live = live
        self._log = log
        self._attempts = 0  # to read the log in vain, since it could be read last
        self.deliveries = 0
        self.bytes = 0
        self.gaps: Counter[str] = Counter()  # those told, by reason

    def advance(self, session: Session) -> None:
        """Take the next step, if there is one and nothing is under way; the others follow by themselves."""
        work = session.behind or (session.joins[0] if session.joins else None)
        if work is None or session.reading is not None or not self._live.has_room(session):
            return
        upper = self._live.position
        if work.position is None:
            self._look_up(session, work, upper)
        elif work.position.generation != upper.generation:
            self._start_over(session, work, upper)
        elif work.position.era != upper.era:
            self._read(session, work, self._log.verify(work.position, upper.era), self._resume)
        elif not upper.snapshot.contains(work.position.upper):
            self._await_tail(session, work, upper)
        elif self._live.ring.reaches(work.position):
            page = self._live.ring.page(work.selection, work.position, upper)
            self._take(session, work, replace(page, position=page.position.of(upper.era)))
            if work.position == upper:
                self._finish(session, work)
            asyncio.get_running_loop().call_soon(self.advance, session)
        else:
            self._read(session, work, self._log.page(work.selection, work.position, upper))

    def stop(self, session: Session) -> None:
        """Give up what is being read for `session`: it is no longer wanted, or not like this."""
        reading, session.reading = session.reading, None
        if reading is not None:
            reading.cancel()

    # Steps

    def _look_up(self, session: Session, work: Replay, upper: Cursor) -> None:
        """Turn `last` into a position: a place behind which just these events lie.

        The tail looks first: who has just published something expects to find it among the newest.
        """
        assert work.last is not None
        if not work.awaited:
            work.awaited = True
            self._read(session, work, self._log.fresh())
            return
        work.awaited = False
        ring = self._live.ring
        behind = ring.newest(work.selection, work.last)
        if behind is not None:
            work.position = upper.back_at(ring.floor.snapshot).inside(upper, behind)
            self.advance(session)
        else:
            self._read(session, work, self._newest(work, upper))

    async def _newest(self, work: Replay, upper: Cursor) -> None:
        behind = await self._log.newest(work.selection, work.last or 0, upper)
        work.position = upper.back_at(NOTHING).inside(upper, behind)

    def _start_over(self, session: Session, work: Replay, upper: Cursor) -> None:
        """The position means nothing in this log: say so, and give all that there is."""
        work.position = upper.back_at(NOTHING)
        work.unannounced = True
        self._tell(session, work, "reset", work.position)
        self.advance(session)

    def _await_tail(self, session: Session, work: Replay, upper: Cursor) -> None:
        """The position is ahead: another hub has read further. Whether it is ahead of the log, the log knows."""
        if work.awaited:
            work.awaited = False
            self._start_over(session, work, upper)
        else:
            work.awaited = True
            self._read(session, work, self._log.fresh())

    def _take(self, session: Session, work: Replay, page: Page) -> None:
        """Write a page; word of what retention has taken from the log goes before it."""
        assert work.position is not None
        position = page.position
        if page.horizon > work.position.snapshot.xmin:
            position = position.lifted(page.horizon)
            if not work.unannounced:
                self._tell(session, work, "expired", work.position.lifted(page.horizon))
        work.unannounced = False
        work.position = position
        if page.events:
            encoded = [event.json for event in page.events]
            cursor = str(position)
            message = protocol.events(encoded, cursor, work.asked_by)
            session.send(message, cursor)
            session.deliveries += len(encoded)
            self.deliveries += len(encoded)
            self.bytes += len(message)

    def _resume(self, session: Session, work: Replay, page: Page) -> None:
        """Go on where the log still has what was seen: at the same place, or after a gap at an earlier one."""
        work.position = page.position
        if page.gap is not None:
            work.unannounced = page.gap == "reset"
            self._tell(session, work, page.gap, page.position)

    def _tell(self, session: Session, work: Replay, reason: str, cursor: Cursor) -> None:
        work.lossless = False
        self.gaps[reason] += 1
        session.send(*gap(Gap(work.selection.names, reason, cursor=cursor), work.asked_by))

    def _finish(self, session: Session, work: Replay) -> None:
        if not isinstance(work, Join):
            self._live.catch_up(session)
        elif self._live.merge(session, work):
            session.joins = session.joins[1:]

    # Reading the log

    def _read(
        self,
        session: Session,
        work: Replay,
        reading: Coroutine[Any, Any, Page | None],
        use: Callable[[Session, Replay, Page], None] | None = None,
    ) -> None:
        """Have `reading` done, the page that it brings used (taken, if nothing else is said), and go on."""
        task = session.reading = asyncio.create_task(reading, name="replay")
        task.add_done_callback(lambda done: self._has_read(session, work, done, use or self._take))

    def _has_read(
        self,
        session: Session,
        work: Replay,
        task: asyncio.Task[Page | None],
        use: Callable[[Session, Replay, Page], None],
    ) -> None:
        if task.cancelled() or session.reading is not task:
            return
        if failed := task.exception():
            if not isinstance(failed, OSError):
                session.outlet.abort()
                raise failed
            # Nothing is lost by waiting: the position stays where it is. `reading` stays too, so that nobody advances.
            self._attempts += 1
            delay = backoff.delay(self._attempts, first=0.1, most=_MOST_DELAY)
            asyncio.get_running_loop().call_later(delay, self._try_again, session, task)
            return
        self._attempts = 0
        session.reading = None
        if (page := task.result()) is not None:
            use(session, work, page)
        self.advance(session)

    def _try_again(self, session: Session, task: asyncio.Task[Any]) -> None:
        if session.reading is task:
            session.reading = None
            self.advance(session)
