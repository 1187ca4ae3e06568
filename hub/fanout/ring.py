"""The ring: the newest part of the log in memory, so that who was away for a moment costs no query."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from heapq import nlargest
from itertools import chain, islice

from hub.cursor import Cursor
from hub.event import Event
from hub.fanout.batches import Batch
from hub.page import ROOM, Page
from hub.patterns import Matcher
from hub.selection import Selection

_OVERHEAD = 300  # bytes that an event takes beside its JSON


class Ring:
    """Keeps the newest batches of the log, in at most `room` bytes.

    All that the log has and the ring has not is visible from its floor.
    """

    def __init__(self, room: int, floor: Cursor) -> None:
        self._room = room
        self._bytes = 0
        self._batches: deque[tuple[Batch, Sequence[Event]]] = deque()
        self._by_channel: dict[str, deque[tuple[int, Event]]] = {}
        self.floor = floor

    def __repr__(self) -> str:
        return f"<Ring batches={len(self._batches)} bytes={self._bytes}>"

    def reset(self, floor: Cursor) -> None:
        """Forget everything: the log goes on from `floor`."""
        self._batches.clear()
        self._by_channel.clear()
        self._bytes = 0
        self.floor = floor

    def append(self, batch: Batch, events: Sequence[Event]) -> None:
        """Add the next batch, and drop the oldest for which there is no room any more."""
        self._batches.append((batch, events))
        for event in events:
            self._bytes += len(event.json) + _OVERHEAD
            self._by_channel.setdefault(event.channel, deque()).append((batch.number, event))
        while self._bytes > self._room:
            self._drop()

    def _drop(self) -> None:
        batch, events = self._batches.popleft()
        self.floor = batch.after
        for event in events:
            self._bytes -= len(event.json) + _OVERHEAD
            of_channel = self._by_channel[event.channel]
            of_channel.popleft()
            if not of_channel:
                del self._by_channel[event.channel]

    def reaches(self, position: Cursor) -> bool:
        """Whether all that is new since `position` is here."""
        return position.generation == self.floor.generation and position.snapshot.contains(self.floor.snapshot)

    def page(self, selection: Selection, position: Cursor, upper: Cursor) -> Page:
        """What `selection` has behind `position`, which the ring reaches, and at most up to `upper`.

        A place is finished first. Either the page is full or its position is the end of what was asked for.
        """
        end, behind = (position.finished, position.place.id) if position.place else (upper, 0)
        seen, visible = position.snapshot.sees, end.snapshot.sees
        found = [
            event
            for event in self._since(selection, position)
            if event.id > behind and visible(event.xid) and not seen(event.xid)
        ]
        found.sort(key=lambda event: event.id)
        size = 0
        for count, event in enumerate(found):
            size += len(event.json)
            if count and size > ROOM:
                return Page(found[:count], position.inside(end, found[count - 1].id))
        return Page(found, end)

    def newest(self, selection: Selection, count: int) -> int | None:
        """The id behind which the newest `count` events of `selection` lie; None where these are not all here."""
        recent = [islice(reversed(self._by_channel[channel]), count) for channel in self._channels(selection)]
        ids = nlargest(count, (event.id for _, event in chain.from_iterable(recent)))
        return ids[-1] - 1 if len(ids) == count else None

    def _since(self, selection: Selection, position: Cursor) -> Iterable[Event]:
        """All events of `selection` in batches that `position` does not see the whole of."""
        sees = position.snapshot.contains
        start = bisect_right(self._batches, False, key=lambda entry: not sees(entry[0].after.snapshot))
        if start == len(self._batches):
            return
        first = self._batches[start][0].number
        for channel in self._channels(selection):
            recent = []
            for number, event in reversed(self._by_channel[channel]):
                if number < first:
                    break
                recent.append(event)
            yield from recent

    def _channels(self, selection: Selection) -> Iterable[str]:
        """The channels of `selection` that have events here."""
        names, patterns = selection.channels, selection.patterns
        if not patterns:
            return [name for name in names if name in self._by_channel]
        matcher = Matcher(patterns)
        return [name for name in self._by_channel if name in names or matcher.find(name)]
