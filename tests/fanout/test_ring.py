"""The ring: pages of it, put together, are what a position has not seen."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from hub import event
from hub.cursor import Cursor
from hub.event import Event
from hub.fanout import ring
from hub.fanout.batches import Batch
from hub.selection import select
from hub.snapshot import Snapshot

NOW = datetime(2026, 11, 1, tzinfo=UTC)
NAMES = ["a", "b.c", "b.d"]


class Story:
    """Transactions 1, 2, … that are committed in another order, and read a few at a time."""

    def __init__(self, order: list[int], channels: list[str], cuts: set[int]) -> None:
        self.order = order
        self.events = {xid: event.durable(xid, xid, channels[xid - 1], str(xid), (), NOW) for xid in order}
        self.bounds = [0, *sorted(cuts & set(range(1, len(order)))), len(order)]

    def position(self, committed: int) -> Cursor:
        """What somebody has seen who looked when so many were committed."""
        seen = set(self.order[:committed])
        xmax = 1 + max(seen, default=0)
        xip = tuple(xid for xid in range(1, xmax) if xid not in seen)
        return Cursor(1, Snapshot(xip[0] if xip else xmax, xmax, xip))

    def ring(self, room: int) -> ring.Ring:
        made = ring.Ring(room, self.position(0))
        for number, (start, stop) in enumerate(pairwise(self.bounds)):
            events = sorted((self.events[xid] for xid in self.order[start:stop]), key=lambda each: each.id)
            made.append(Batch(10 * number, self.position(start), self.position(stop)), events)
        return made


@st.composite
def stories(draw: st.DrawFn) -> Story:
    count = draw(st.integers(1, 25))
    order = draw(st.permutations(range(1, count + 1)))
    channels = draw(st.lists(st.sampled_from(NAMES), min_size=count, max_size=count))
    return Story(order, channels, draw(st.sets(st.integers(1, count))))


def follow(kept: ring.Ring, names: list[str], position: Cursor, upper: Cursor) -> list[Event]:
    """All pages, from `position` to `upper`."""
    found: list[Event] = []
    while position != upper:
        page = kept.page(select(names), position, upper)
        assert page.position != position, "a page leads on"
        ids = [each.id for each in page.events]
        assert ids == sorted(ids)
        found += page.events
        position = page.position
    return found


@given(stories(), st.data(), st.sampled_from([["a"], ["a", "b.d"], ["b.*"], ["a", "**"], ["none"]]))
def test_pages_put_together_are_what_a_position_has_not_seen(story: Story, data: Any, names: list[str]) -> None:
    size = len(story.events[1].json)
    kept = story.ring(data.draw(st.integers(1, 30)) * (size + 300))
    committed = data.draw(st.integers(0, len(story.order)))  # maybe by another hub, which looked at other moments
    position, upper = story.position(committed), story.position(len(story.order))
    if not kept.reaches(position):
        assert not position.snapshot.contains(kept.floor.snapshot)
        return
    with patch.object(ring, "ROOM", data.draw(st.integers(0, 6)) * size):
        got = [each.id for each in follow(kept, names, position, upper)]
    matching = {"a": {"a"}, "b.d": {"b.d"}, "b.*": {"b.c", "b.d"}, "**": set(NAMES), "none": set()}
    wanted = set().union(*(matching[name] for name in names))
    assert sorted(got) == sorted(xid for xid in story.order[committed:] if story.events[xid].channel in wanted)


@given(stories(), st.integers(1, 10), st.integers(1, 30))
def test_the_newest_are_those_with_the_greatest_ids_or_nothing_where_some_are_gone(
    story: Story, count: int, room: int
) -> None:
    kept = story.ring(room * (len(story.events[1].json) + 300))
    behind = kept.newest(select(["a"]), count)
    ids = sorted(xid for xid, each in story.events.items() if each.channel == "a")
    if behind is not None:
        assert len([number for number in ids if number > behind]) >= count
    elif kept.floor == story.position(0):
        assert len(ids) < count
