"""Saying goodbye to many: not to all at once, or at once they come back, to whoever is left."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterable
from typing import Final, Protocol

BEAT: Final = 0.05  # seconds
_RATE: Final = 400.0  # a second, where there is no hurry: a few are gone in no time


class Guest(Protocol):
    """Somebody who stays until told to go."""

    async def depart(self) -> None:
        """Tell them, and wait until they have gone."""


def beats(count: int, seconds: float) -> int:
    """In how many steps to tell `count` guests, one a BEAT: in `seconds` at the most, and in one where they are few."""
    return max(1, math.ceil(min(seconds, count / _RATE) / BEAT))


async def part(guests: Iterable[Guest], seconds: float, *, patience: float) -> None:
    """Tell each of `guests` when its turn has come, all within `seconds`, and wait up to `patience` for the last.

    The turn is by lot. Those who have not gone by then, or when this is cancelled, are waited for no longer.
    """
    waiting = list(guests)
    random.shuffle(waiting)
    size = math.ceil(len(waiting) / beats(len(waiting), seconds))
    ends: list[asyncio.Future[None]] = []
    try:
        for place, guest in enumerate(waiting):
            if place and place % size == 0:
                await asyncio.sleep(BEAT)
            ends.append(asyncio.ensure_future(guest.depart()))
        if ends:
            await asyncio.wait(ends, timeout=patience)
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
