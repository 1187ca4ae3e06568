"""Heartbeats: one timer for all sessions finds the dead, and shows the living that the hub is alive.

Every session is visited twice a heartbeat. A browser does not see ping frames, so a session that nothing was
written to since the last visit gets a message too. While bytes wait in its buffer no pong can be expected;
then only a buffer that stays as full as it was counts against it. Who is subscribed to nothing and asks for nothing is
there for nothing, and is sent away in the end.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from hub.errors import IDLE, STALLED, Close
from hub.fanout.sessions import Session

_SLOTS = 16
_PATIENCE = 3  # visits without a sign of life


@dataclass(slots=True)
class Beat:
    """What the last visit saw."""

    slot: int
    after: int = -1
    unsent: int = 0
    shrunk: float = 0.0  # loop time when the buffer was last seen to shrink
    silent: int = 0  # visits since anything was heard
    idle: int = 0  # visits without a subscription since anything was asked for


class Pulse:
    """Visits sessions; `heartbeat` and the timeouts are seconds. `sign` makes the frame that says the hub lives."""

    def __init__(
        self,
        sign: Callable[[Session], bytes],
        *,
        heartbeat: float,
        stall_timeout: float,
        idle_timeout: float = math.inf,
    ) -> None:
        self._sign = sign
        self._interval = heartbeat / 2 / _SLOTS
        self._stall_timeout = stall_timeout
        self._idle_visits = 2 * idle_timeout / heartbeat
        self._slots: list[dict[Session, None]] = [{} for _ in range(_SLOTS)]
        self._next = 0

    def watch(self, session: Session) -> None:
        """Begin to visit `session`, where the fewest are."""
        slot = min(range(_SLOTS), key=lambda index: len(self._slots[index]))
        session.pulse = Beat(slot)
        self._slots[slot][session] = None

    def forget(self, session: Session) -> None:
        if isinstance(beat := session.pulse, Beat):
            self._slots[beat.slot].pop(session, None)

    def heard(self, session: Session) -> None:
        """Something came from the other side, whatever it was."""
        if isinstance(beat := session.pulse, Beat):
            beat.silent = 0

    def asked(self, session: Session) -> None:
        """There was a command."""
        if isinstance(beat := session.pulse, Beat):
            beat.idle = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            slot = self._slots[self._next]
            self._next = (self._next + 1) % _SLOTS
            now = asyncio.get_running_loop().time()
            for session in tuple(slot):
                if isinstance(beat := session.pulse, Beat):
                    self._visit(session, beat, now)

    def _visit(self, session: Session, beat: Beat, now: float) -> None:
        unsent, before = session.unsent, beat.unsent
        beat.unsent = unsent
        if unsent:
            if not before or unsent < before:
                beat.shrunk = now
            elif now - beat.shrunk > self._stall_timeout:
                session.ended = STALLED.code
                session.outlet.abort()
            return
        framing = session.framing
        beat.silent += bool(framing.ping)
        if beat.silent > _PATIENCE:
            self._end(session, STALLED)
            return
        beat.idle = 0 if session.selection.names or session.joins else beat.idle + 1
        if beat.idle > self._idle_visits:
            self._end(session, IDLE)
            return
        quiet = session.after == beat.after
        beat.after = session.after
        session.write(framing.ping + self._sign(session) if quiet else framing.ping)

    def _end(self, session: Session, close: Close) -> None:
        session.ended = close.code
        session.write(session.framing.goodbye(close))
        session.outlet.abort()
