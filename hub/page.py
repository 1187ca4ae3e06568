"""A page of the log: events in order, and the position behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hub.cursor import Cursor
from hub.event import Event

ROOM: Final = 64 * 1024
"""Bytes of a page's events, unless it holds a single one."""


@dataclass(frozen=True, slots=True)
class Page:
    """`events` are in order of ids. `horizon` is the log's when it was read: nothing below it is left there.

    `gap` is the reason why something may have been lost before them, if it may.
    """

    events: Sequence[Event]
    position: Cursor
    horizon: int = 0
    gap: str | None = None
