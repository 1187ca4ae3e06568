"""The ring: the newest part of the log in memory, so that who was away for a moment costs no query."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from heapq import merge, nlargest
from itertools import chain, islice
from operator import attrgetter, itemgetter

from hub.cursor import Cursor
from hub.event import Event
from hub.fanout.batches import Batch
from hub.page import ROOM, Page
from hub.patterns import Matcher
from hub.selection import Selection, admission

_OVERHEAD = 300  # bytes that an event takes beside its JSON
_GLANCE = 32  # bytes that an event counts for which lies outside of all fences: so much of a page's time it takes
_SERIAL = itemgetter(0)
_ID = attrgetter("id")


class Ring:
    """Keeps the newest batches of the log, in at most `room` bytes.

    All that the log has and the ring has not is visible from its floor.
    """

    def __init__(self, room: int, floor: Cursor) -> None:
        self._room = room
        self._bytes = 0
        self._batches: deque[tuple[Batch, Sequence[Event]]] = deque()
        self._dropped = 0  # batches: the serial of the oldest one here
        self._by_channel: dict[str, _Line] = {}
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
        serial = self._dropped + len(self._batches)
        self._batches.append((batch, events))
        for event in events:
            self._bytes += _size(event)
            if (line := self._by_channel.get(event.channel)) is None:
                line = self._by_channel[event.channel] = _Line()
            line.entries.append((serial, event))
        while self._bytes > self._room:
            self._drop()

    def _drop(self) -> None:
        batch, events = self._batches.popleft()
        self._dropped += 1
        self.floor = batch.after
        for event in events:
            self._bytes -= _size(event)
            if not self._by_channel[event.channel].drop():
                del self._by_channel[event.channel]

    def reaches(self, position: Cursor) -> bool:
        """Whether all that is new since `position` is here."""
        return position.generation == self.floor.generation and position.snapshot.contains(self.floor.snapshot)

    def page(self, selection: Selection, position: Cursor, upper: Cursor) -> Page:
        """What `selection` has behind `position`, which the ring reaches, and at most up to `upper`.

        A place is finished first. A page ends where a batch does, so that the next one need not look at all that is
        left, but inside of a batch that fills it alone.
        """
        seen = position.snapshot.sees
        first = self._serial(lambda batch: not position.snapshot.contains(batch.after.snapshot))
        if position.place:
            end, behind = position.finished, position.place.id
            last = self._serial(lambda batch: batch.before.snapshot.contains(end.snapshot)) - 1
        else:
            end, behind, last = upper, 0, None
        visible, admits = end.snapshot.sees, admission(selection)
        found: list[Event] = []
        # `whole` of those found are of batches before that of `serial`, `passed` of those that were looked at
        size, serial, looked, whole, passed = 0, first, 0, 0, 0
        for number, event in self._since(selection, first):
            if last is not None and number > last:
                break
            if event.id <= behind or seen(event.xid) or not visible(event.xid):
                continue
            if number != serial:
                serial, whole, passed = number, len(found), looked
            looked += 1
            if admits is None or admits(event):
                found.append(event)
                size += len(event.json)
            else:
                size += _GLANCE
            if last is None and size > ROOM:
                batch = self._batches[serial - self._dropped][0]
                if passed and batch.before.snapshot.contains(position.snapshot):
                    return Page(sorted(found[:whole], key=_ID), batch.before)
                if batch.after.snapshot.contains(position.snapshot):
                    last, end = serial, batch.after
        found.sort(key=_ID)
        return _cut(found, position, end)

    def newest(self, selection: Selection, count: int) -> int | None:
        """The id behind which the newest `count` events of `selection` lie; None where these are not all here.

        Of a selection with fences that is left to the log, which has an index of places.
        """
        if selection.fences:
            return None
        recent = [self._by_channel[channel].newest(count) for channel in self._channels(selection)]
        ids = nlargest(count, (event.id for _, event in chain.from_iterable(recent)))
        return ids[-1] - 1 if len(ids) == count else None

    def _serial(self, condition: Callable[[Batch], bool]) -> int:
        """The serial of the first batch of which `condition` is true, as it then is of all that follow."""
        return self._dropped + bisect_left(self._batches, True, key=lambda entry: condition(entry[0]))

    def _since(self, selection: Selection, first: int) -> Iterator[tuple[int, Event]]:
        """The events of `selection` in order of batches, from the one whose serial is `first`, with their serials."""
        patterns = selection.patterns
        if not patterns:
            lines = [line for name in selection.channels if (line := self._by_channel.get(name))]
            return merge(*[line.since(first) for line in lines], key=_SERIAL)
        names, find = selection.channels, cache(Matcher(patterns).find)
        return (
            (serial, event)
            for serial, (_, events) in enumerate(islice(self._batches, first - self._dropped, None), first)
            for event in events
            if event.channel in names or find(event.channel)
        )

    def _channels(self, selection: Selection) -> Iterable[str]:
        """The channels of `selection` that have events here."""
        names, patterns = selection.channels, selection.patterns
        if not patterns:
            return [name for name in names if name in self._by_channel]
        matcher = Matcher(patterns)
        return [name for name in self._by_channel if name in names or matcher.find(name)]


def _size(event: Event) -> int:
    """Bytes that it takes; those of a place are about as many as it has in JSON."""
    return len(event.json) * (1 if event.place is None else 2) + _OVERHEAD


class _Line:
    """A channel's events with the serials of their batches, oldest first."""

    __slots__ = ("_gone", "entries")

    def __init__(self) -> None:
        self.entries: list[tuple[int, Event]] = []
        self._gone = 0  # entries at the front that were dropped, and are removed many at a time

    def drop(self) -> bool:
        """Forget the oldest; whether any are left."""
        self._gone += 1
        if 2 * self._gone > len(self.entries):
            del self.entries[: self._gone]
            self._gone = 0
        return bool(self.entries)

    def since(self, serial: int) -> Iterator[tuple[int, Event]]:
        start = bisect_left(self.entries, serial, lo=self._gone, key=_SERIAL)
        return map(self.entries.__getitem__, range(start, len(self.entries)))  # islice would count up to the start

    def newest(self, count: int) -> Iterator[tuple[int, Event]]:
        return islice(reversed(self.entries), min(count, len(self.entries) - self._gone))


def _cut(found: Sequence[Event], position: Cursor, end: Cursor) -> Page:
    """As many of these events, sorted by id, as a page holds; the others lie behind its place on the way to `end`."""
    size = 0
    for count, event in enumerate(found):
        size += len(event.json)
        if count and size > ROOM:
            return Page(found[:count], position.inside(end, found[count - 1].id))
    return Page(found, end)
