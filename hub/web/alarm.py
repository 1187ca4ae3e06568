"""Something that is to happen at a time of day."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

_LONGEST: Final = 60.0  # seconds without a look at the clock, which may be set, or go on while the machine sleeps


class Alarm:
    """Calls `ring` once, `moment` seconds after 1970 or at once if that has passed, unless it is cancelled."""

    __slots__ = ("_handle", "_moment", "_ring")

    def __init__(self, moment: float, ring: Callable[[], None]) -> None:
        self._moment = moment
        self._ring = ring
        self._handle = self._arm()

    def cancel(self) -> None:
        """May be called twice, and when it has rung."""
        self._handle.cancel()

    def _arm(self) -> asyncio.TimerHandle:
        left = self._moment - time.time()
        return asyncio.get_running_loop().call_later(max(0.0, min(left, _LONGEST)), self._look)

    def _look(self) -> None:
        if self._moment <= time.time():
            self._ring()
        else:
            self._handle = self._arm()
