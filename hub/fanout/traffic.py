"""What comes on which channel, counted: for people who ask what goes on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hub.event import Event

WINDOW: Final = 10  # seconds over which rates are taken
_BEHIND_AT: Final = b',"payload":'  # stands for itself in an event's JSON: a channel's quotes are escaped


class Tally:
    """What came on one channel: `events` in all, and of each of the last seconds how many."""

    __slots__ = ("_head", "_second", "_seconds", "events")

    def __init__(self) -> None:
        self.events = 0
        self._head = b""  # of the last event: its JSON, but not its payload, which may be large
        self._second = 0
        self._seconds = [0] * (WINDOW + 1)  # one for the second that has only begun

    def add(self, count: int, second: int) -> None:
        self._forget(second)
        self.events += count
        self._seconds[second % (WINDOW + 1)] += count

    def see(self, event: Event) -> None:
        """It is the last that came."""
        self._head = event.json[: event.json.index(_BEHIND_AT)]

    def rate(self, second: int) -> float:
        """Events a second, over the last whole seconds."""
        self._forget(second)
        return (sum(self._seconds) - self._seconds[second % (WINDOW + 1)]) / WINDOW

    @property
    def last(self) -> dict[str, Any] | None:
        """Time and id of the last event, if it was seen."""
        if not self._head:
            return None
        head = json.loads(self._head + b"}")
        return {"at": head["at"], "id": head["id"]}

    def _forget(self, second: int) -> None:
        for past in range(max(self._second + 1, second - WINDOW), second + 1):
            self._seconds[past % (WINDOW + 1)] = 0
        self._second = second


class Traffic:
    """Keeps a tally of each of the `most` channels on which something came last; others begin again at nothing."""

    def __init__(self, *, most: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._tallies: dict[str, Tally] = {}  # in the order of the last event

    @property
    def tallies(self) -> Mapping[str, Tally]:
        return self._tallies

    @property
    def now(self) -> int:
        """The second that it is, for `Tally.rate`."""
        return int(self._clock())

    def count(self, events: Sequence[Event]) -> None:
        """These have come, in this order."""
        last = {event.channel: event for event in events}
        if len(last) == 1:
            counts: Mapping[str, int] = {events[0].channel: len(events)}
        else:
            counts = Counter([event.channel for event in events])
        self.add(counts)
        for name in counts.keys() & self._tallies.keys():
            self._tallies[name].see(last[name])

    def add(self, counts: Mapping[str, int]) -> None:
        """So many have come on each of these channels."""
        second = self.now
        for name, count in counts.items():
            tally = self._tallies.pop(name, None) or Tally()
            tally.add(count, second)
            self._tallies[name] = tally
        while len(self._tallies) > self._most:
            del self._tallies[next(iter(self._tallies))]
