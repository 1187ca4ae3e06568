"""The inbox: notifications between the connection and those who want them, in batches, with gaps in their place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from hub.postgres.listening import Notification

HELD_BACK: Final = 100_000
"""The most notifications that wait for a gap to be told."""

log = structlog.get_logger()


class Inbox:
    """Passes on what arrives, in order: the first at once, what else the turn of the loop brings as one batch.

    Most come alone, and another turn is a tenth of the time that an event spends in an idle hub.

    It starts shut: what arrives waits until `open` has told the gap before it. An error in `on_batch` is logged, and
    told as a gap of the channels concerned.
    """

    def __init__(
        self, on_batch: Callable[[Sequence[Notification]], None], on_gap: Callable[[Sequence[str]], None]
    ) -> None:
        self._on_batch = on_batch
        self._on_gap = on_gap
        self._waiting: list[Notification] = []
        self._shut = True
        self._scheduled = False

    def __repr__(self) -> str:
        return f"<Inbox {'shut' if self._shut else 'open'} waiting={len(self._waiting)}>"

    def put(self, notification: Notification) -> None:
        """Pass `notification` on, at the end of this turn at the latest or once the inbox is open."""
        if self._shut and len(self._waiting) >= HELD_BACK:
            # Dropped from the front: the hole has to lie before what is passed on first, where the gap will be told.
            self._waiting.clear()
        self._waiting.append(notification)
        if not self._scheduled:
            self._scheduled = True
            self._pass_on()
            asyncio.get_running_loop().call_soon(self._flush)

    def open(self, gap: Sequence[str]) -> None:
        """Tell the `gap`, if there is one, then pass on what waits, and from now on what comes."""
        self._tell(gap)
        self._shut = False
        self._pass_on()

    def shut(self) -> None:
        """Pass on what an open inbox has; what waited in a shut one is dropped, since the next gap covers it."""
        self._pass_on()
        self._waiting.clear()
        self._shut = True

    def _flush(self) -> None:
        self._scheduled = False
        self._pass_on()

    def _pass_on(self) -> None:
        if self._shut or not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        try:
            self._on_batch(batch)
        except Exception:
            log.exception("batch_failed", notifications=len(batch))
            self._tell(sorted({notification.channel for notification in batch}))

    def _tell(self, gap: Sequence[str]) -> None:
        if not gap:
            return
        try:
            self._on_gap(gap)
        except Exception:
            log.exception("gap_failed", channels=len(gap))
