"""Snapshots of Postgres as values: which transactions one sees, and which snapshot sees more.

The semantics are those of pg_snapshot (Postgres's manual, "Transaction ID and Snapshot Information Functions"):
all below `xmin` had ended, all from `xmax` on had not begun, and of those between, `xip` were in progress.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import Final


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`xip` is ascending, and lies in [xmin, xmax). Transactions that ended without a commit count as seen."""

    xmin: int
    xmax: int
    xip: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for what no snapshot can be."""
        if not 0 < self.xmin <= self.xmax < 1 << 63:
            raise ValueError("a snapshot's bounds are out of order")
        if any(a >= b for a, b in pairwise(self.xip)):
            raise ValueError("a snapshot's transactions are out of order")
        if self.xip and not self.xmin <= self.xip[0] <= self.xip[-1] < self.xmax:
            raise ValueError("a snapshot's transactions are out of its bounds")

    def sees(self, xid: int) -> bool:
        """Whether what transaction `xid` wrote is visible, if it was committed."""
        if xid >= self.xmax:
            return False
        return xid < self.xmin or not self._in_progress(xid)

    def _in_progress(self, xid: int) -> bool:
        place = bisect_left(self.xip, xid)
        return place < len(self.xip) and self.xip[place] == xid

    def contains(self, other: Snapshot) -> bool:
        """Whether this one sees all that `other` sees."""
        if any(other.sees(xid) for xid in self.xip):
            return False
        # Between this xmax and the other's there may only be what the other does not see either.
        start = bisect_left(other.xip, self.xmax)
        return other.xmax <= self.xmax or len(other.xip) - start == other.xmax - self.xmax

    def tightened(self, last: int) -> Snapshot:
        """This snapshot cut to what is known for sure: the transactions up to `last`, the greatest with an event.

        Those above that count as not begun. They may have been rolled back, and then a crash makes Postgres use
        their numbers again: a cursor that counted them as seen would skip whoever gets them next.
        """
        xmax = min(self.xmax, last + 1)
        xip = self.xip[: bisect_left(self.xip, xmax)]
        return Snapshot(xip[0] if xip else xmax, xmax, xip)

    def lifted(self, horizon: int) -> Snapshot:
        """This snapshot when nothing below `horizon` is left to be seen."""
        xmax = max(self.xmax, horizon)
        xip = self.xip[bisect_left(self.xip, horizon) :]
        return Snapshot(xip[0] if xip else xmax, xmax, xip)

    def __str__(self) -> str:
        """The text that Postgres writes and reads."""
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.xip))}"


def parse(text: str) -> Snapshot:
    """The snapshot in Postgres's text. Raises ValueError for anything else."""
    xmin, xmax, xip = text.split(":")
    return Snapshot(int(xmin), int(xmax), tuple(map(int, xip.split(","))) if xip else ())


NOTHING: Final = Snapshot(1, 1)
"""Sees nothing: no transaction has a lower number than 1."""
