"""The hub's journal: what happens to it, as events on `$hub`, for as long as somebody reads them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from hub import channels, event
from hub.budget import Budget
from hub.fanout.fanout import Fanout

_MOST: Final = 20  # a second


class Journal:
    """Tells `fanout` what happens, not more often than a person can follow."""

    def __init__(self, fanout: Fanout) -> None:
        self._fanout = fanout
        self._budget = Budget(_MOST)

    @property
    def is_read(self) -> bool:
        return channels.STATS in self._fanout.channels

    def tell(self, kind: str, text: str, details: Mapping[str, Any]) -> None:
        """Something has happened now."""
        if not self.is_read or (left_out := self._budget.take()) is None:
            return
        now = datetime.now(UTC)
        entry = {"kind": kind, "at": now, "text": text, **details}
        if left_out:
            entry["left_out"] = left_out
        self.write(entry, now)

    def write(self, payload: Mapping[str, Any], at: datetime) -> None:
        encoded = orjson.dumps(payload, option=orjson.OPT_UTC_Z, default=str).decode()
        self._fanout.sink([event.ephemeral(channels.STATS, encoded, at)])
