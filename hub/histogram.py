"""A histogram: how often a number was how large, in buckets, so that it costs the same however many there are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

SECONDS: Final = tuple(round(step * 10.0**power, 6) for power in range(-4, 2) for step in (1, 1.5, 2, 3, 5, 7.5))
"""From 0.1 ms to 75 s: a quantile is off by half at the most."""


class Histogram:
    """Counts numbers by the least of `bounds` that is not below them; what is above all of them has a bucket, too."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, number: float, times: int = 1) -> None:
        self._counts[bisect_left(self.bounds, number)] += times
        self.sum += number * times

    @property
    def counts(self) -> tuple[int, ...]:
        """How many there are in each bucket, now."""
        return tuple(self._counts)


def quantile(share: float, bounds: Sequence[float], counts: Sequence[int]) -> float | None:
    """The number that `share` of all lie below, as if those of a bucket were spread evenly; None where there are none.

    Of what is above all bounds no more is known than that.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    for place, count in enumerate(counts[:-1]):
        if rank <= count:
            least = bounds[place - 1] if place else 0.0
            return least + (bounds[place] - least) * rank / count
        rank -= count
    return bounds[-1]
