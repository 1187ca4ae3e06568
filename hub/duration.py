"""Lengths of time, as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_WRITTEN: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)


def parse(text: str) -> timedelta | None:
    """The time that is written as 90s, 15m, 36h or 7d; None for anything else."""
    if (found := _WRITTEN.fullmatch(text)) is None:
        return None
    return int(found[1]) * timedelta(**{_UNITS[found[2]]: 1})
