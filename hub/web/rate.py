"""How fast a client may send."""

from __future__ import annotations

from enum import Enum
from typing import Final

_BURST: Final = 2.0  # seconds' worth that may come at once


class Call(Enum):
    """What a message calls for that was one too many."""

    WARN = 1
    CLOSE = 2


class Rate:
    """Counts the messages of one client against `rate` a second: a bucket of twice that many, which drips.

    Kept as the time until which what has come is paid for (GCRA, the virtual scheduling of ITU-T I.371), so a client
    costs two slots and no timer.
    """

    __slots__ = ("_paid", "_warned")

    def __init__(self) -> None:
        self._paid = 0.0  # as a time of `now`
        self._warned = False

    def count(self, now: float, rate: float) -> Call | None:
        """Count one message at the time `now` in seconds; what it calls for, mostly nothing.

        A bucket that is emptied is worth a warning and filled again, once; until it has been full the next time, the
        client has that much more to heed it.
        """
        if self._paid <= now:
            self._paid, self._warned = now, False
        self._paid += 1 / rate
        ahead = self._paid - now
        if ahead > 2 * _BURST:
            return Call.CLOSE
        if ahead > _BURST and not self._warned:
            self._warned = True
            return Call.WARN
        return None
