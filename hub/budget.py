"""So many a second and no more, of what only people read: what is left out is counted, and told with the next."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """Allows `most` a second."""

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._second = 0
        self._taken = 0
        self._left_out = 0

    def take(self) -> int | None:
        """How many were left out since the last one that was not; None where this one is, too."""
        if (second := int(self._clock())) != self._second:
            self._second, self._taken = second, 0
        if self._taken >= self._most:
            self._left_out += 1
            return None
        self._taken += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
