"""Counting what comes on which channel."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from hub import event
from hub.event import Event
from hub.fanout.traffic import WINDOW, Traffic

NOW = datetime(2026, 11, 1, 9, tzinfo=UTC)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def make(channel: str, payload: str = "1") -> Event:
    return event.ephemeral(channel, payload, NOW)


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(1, 5)), max_size=40))
def test_a_rate_is_that_of_the_last_whole_seconds(steps: list[tuple[int, int]]) -> None:
    clock = Clock()
    traffic = Traffic(clock=clock)
    came: list[int] = []
    for wait, count in steps:
        clock.now += wait
        traffic.count([make("a")] * count)
        came += [traffic.now] * count
        recent = [second for second in came if 0 < traffic.now - second <= WINDOW]
        assert traffic.tallies["a"].rate(traffic.now) == len(recent) / WINDOW
        assert traffic.tallies["a"].events == len(came)


def test_a_silent_channel_comes_to_rest() -> None:
    clock = Clock()
    traffic = Traffic(clock=clock)
    traffic.count([make("a")] * 20)
    clock.now += 1
    assert traffic.tallies["a"].rate(traffic.now) == 2.0
    clock.now += WINDOW
    assert traffic.tallies["a"].rate(traffic.now) == 0.0


def test_of_the_last_event_no_payload_is_kept() -> None:
    traffic = Traffic()
    traffic.count([make('a,"payload":', '"' + "x" * 10_000 + '"'), make("b")])
    tally = traffic.tallies['a,"payload":']
    assert tally.last == {"at": "2026-11-01T09:00:00Z", "id": None}
    assert len(tally._head) < 200


def test_what_was_only_counted_has_no_last_event() -> None:
    traffic = Traffic()
    traffic.add({"a": 3})
    assert (traffic.tallies["a"].events, traffic.tallies["a"].last) == (3, None)


def test_the_channels_that_were_silent_for_longest_are_forgotten() -> None:
    traffic = Traffic(most=2)
    for name in ("a", "b", "a", "c"):
        traffic.count([make(name)])
    assert list(traffic.tallies) == ["a", "c"]
    traffic.count([make(name) for name in "defg"])
    assert list(traffic.tallies) == ["f", "g"]
