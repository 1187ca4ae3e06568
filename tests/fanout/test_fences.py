"""Fences in the fan-out: an event comes to those whose fence it hits, live and from the ring.

Here the earth is a line: a place is a number, and a fence the numbers between two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from hub import event
from hub.cursor import Cursor
from hub.event import Event
from hub.fanout import ring
from hub.fanout.batches import Batch
from hub.fanout.fanout import Fanout
from hub.fanout.sessions import Join
from hub.patterns import matches
from hub.selection import EMPTY, Selection, select
from hub.snapshot import NOTHING, Snapshot
from tests.fanout.outlet import Outlet
from tests.fanout.test_fanout import NOW, Unread, turns

NAMES = ["a", "b.c", "b.*", "**"]
CHANNELS = ["a", "b.c", "b.d"]


class Stretch(NamedTuple):
    """A fence."""

    start: int
    stop: int

    @property
    def wkb(self) -> bytes:
        return repr(self).encode()

    @property
    def points(self) -> int:
        return 2

    def hits(self, place: Any) -> bool:
        return self.start <= place <= self.stop


class Each:
    """Tests each fence in turn."""

    def __init__(self) -> None:
        self.fences: Counter[Any] = Counter()

    def add(self, fence: Any) -> None:
        self.fences[fence] += 1

    def remove(self, fence: Any) -> None:
        self.fences[fence] -= 1
        assert self.fences[fence] >= 0

    def around(self, places: Sequence[Any]) -> list[list[Any]]:
        there = [fence for fence, count in self.fences.items() if count]
        return [[fence for fence in there if place is not None and fence.hits(place)] for place in places]


fences = st.builds(Stretch, st.integers(0, 5), st.integers(3, 9))
places = st.none() | st.integers(0, 9)
happenings = st.lists(st.tuples(st.sampled_from(CHANNELS), places), max_size=30)
subscribes = st.lists(
    st.tuples(st.sets(st.sampled_from(NAMES), min_size=1), st.none() | fences), min_size=1, max_size=4
)


def happened(number: int, channel: str, place: int | None) -> Event:
    made = event.durable(number, number, channel, str(number), (), NOW)
    return made if place is None else event.placed(made, place, b"%d" % place)


def position(number: int) -> Cursor:
    return Cursor(1, Snapshot(number + 1, number + 1, ()))


def of(commands: Sequence[tuple[set[str], Stretch | None]]) -> Selection:
    """The selection of who subscribes so, the later replacing the earlier."""
    merged = EMPTY
    for names, fence in commands:
        merged = merged.merged(select(names, fence=fence))
    return merged


def wants(selection: Selection, each: Event) -> bool:
    """As README says it."""
    for name in selection.names:
        fence = selection.fence_of(name)
        if matches(name, each.channel) and (fence is None or (each.place is not None and fence.hits(each.place))):
            return True
    return False


@given(happenings, st.lists(subscribes, min_size=1, max_size=4), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
async def test_live_events_come_to_those_whose_fences_they_hit(
    story: list[tuple[str, int | None]], everybody: list[Any], step: int
) -> None:
    index = Each()
    fanout = Fanout(Unread(), max_buffer=1 << 20, fences=lambda: index)
    fanout.start(position(0), [], position(0))
    clients = []
    for commands in everybody:
        outlet = Outlet()
        session = fanout.open(outlet)
        for names, fence in commands:
            fanout.subscribe(session, Join(1, sorted(names), select(names, fence=fence)))
        clients.append((session, outlet, of(commands)))
    events = [happened(number, *what) for number, what in enumerate(story, 1)]
    for start in range(0, len(events), step):
        batch = events[start : start + step]
        fanout.sink(batch, position(batch[-1].id))
        await turns()
    for session, outlet, selection in clients:
        got = [each["payload"] for message in outlet.messages() for each in message.get("events", ())]
        assert got == [each.id for each in events if wants(selection, each)]
        fanout.unsubscribe(session, sorted(selection.names), b"{}")
    assert not +index.fences


@given(happenings, subscribes, st.sets(st.integers(1, 29)), st.integers(0, 29))
@settings(deadline=None, max_examples=200)
def test_the_pages_of_the_ring_hold_what_happened_inside(
    story: list[tuple[str, int | None]], commands: Any, cuts: set[int], start: int
) -> None:
    selection, start = of(commands), min(start, len(story))
    events = [happened(number, *what) for number, what in enumerate(story, 1)]
    kept = ring.Ring(1 << 20, Cursor(1, NOTHING))
    bounds = [0, *sorted(cut for cut in cuts if cut < len(events)), len(events)]
    for number, (first, last) in enumerate(pairwise(bounds)):
        kept.append(Batch(number, position(first), position(last)), events[first:last])
    there, upper, found = position(start), position(len(events)), list[Event]()
    with patch.object(ring, "ROOM", 300):
        while there != upper:
            page = kept.page(selection, there, upper)
            assert page.position != there
            there, found = page.position, [*found, *page.events]
    assert found == [each for each in events[start:] if wants(selection, each)]


def test_what_lies_outside_does_not_keep_the_hub_busy_for_long() -> None:
    """A page ends after some two thousand events that were looked at in vain."""
    events = [happened(number, "a", 9) for number in range(1, 10_001)]
    kept = ring.Ring(1 << 30, Cursor(1, NOTHING))
    for first in range(0, len(events), 100):
        kept.append(Batch(first, position(first), position(first + 100)), events[first : first + 100])
    page = kept.page(select(["a"], fence=Stretch(0, 1)), position(0), position(10_000))
    assert (page.events, page.position) == ([], position(2_000))


def test_the_newest_inside_of_a_fence_are_left_to_the_log() -> None:
    kept = ring.Ring(1 << 20, position(0))
    kept.append(Batch(1, position(0), position(1)), [happened(1, "a", 1)])
    assert kept.newest(select(["a"]), 1) == 0
    assert kept.newest(select(["a"], fence=Stretch(0, 1)), 1) is None


async def test_a_jump_leaves_behind_who_has_a_fence_on_one_of_its_channels() -> None:
    fanout = Fanout(Unread(), max_buffer=1 << 20, fences=Each)
    fanout.start(position(0), [], position(0))
    sessions = [fanout.open(Outlet()) for _ in range(2)]
    for session, name in zip(sessions, ("b.*", "a"), strict=True):
        fanout.subscribe(session, Join(1, [name], select([name], fence=Stretch(0, 1))))
    fanout.jump({"b.c": 7_000}, position(7_000))
    assert [session.behind is not None for session in sessions] == [True, False]


async def test_sessions_with_the_same_fence_share_a_group() -> None:
    """And one that is the only member takes its group along when its fence changes."""
    index = Each()
    fanout = Fanout(Unread(), max_buffer=1 << 20, fences=lambda: index)
    fanout.start(position(0), [], position(0))
    sessions = [fanout.open(Outlet()) for _ in range(3)]
    for session, stop in zip(sessions, (1, 1, 2), strict=True):
        fanout.subscribe(session, Join(1, ["a"], select(["a"], fence=Stretch(0, stop))))
    assert repr(fanout) == "<Fanout sessions=3 groups=2 behind=0>"
    assert sessions[0].group is sessions[1].group
    before = sessions[2].group
    fanout.subscribe(sessions[2], Join(2, ["a"], select(["a"], fence=Stretch(5, 6))))
    assert (sessions[2].group is before, +index.fences) == (True, {Stretch(0, 1): 1, Stretch(5, 6): 1})
    fanout.subscribe(sessions[2], Join(3, ["a"], select(["a"])))
    assert +index.fences == {Stretch(0, 1): 1}
