"""Saying goodbye to many."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.web.farewell import BEAT, beats, part


class Guest:
    """Joins those who were told, and goes unless it lingers."""

    def __init__(self, told: list[Guest], *, lingers: bool = False) -> None:
        self._told = told
        self._lingers = lingers
        self.gone = False

    async def depart(self) -> None:
        self._told.append(self)
        if self._lingers:
            await asyncio.Event().wait()
        self.gone = True


@given(st.integers(0, 1_000_000), st.floats(0, 60))
def test_however_many_they_are_it_takes_no_longer_than_it_may(count: int, seconds: float) -> None:
    steps = beats(count, seconds)
    assert 1 <= steps <= max(1, seconds / BEAT + 1)


def test_few_are_told_at_once_and_many_one_after_the_other() -> None:
    assert beats(20, 5) == 1
    assert beats(400, 5) == 20
    assert beats(20_000, 5) == 100
    assert beats(20_000, 0) == 1


async def test_all_are_told_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Guest] = []
    so_far: list[int] = []
    sleep = asyncio.sleep

    async def glance(_seconds: float) -> None:
        await sleep(0)  # has those tell who are told now
        so_far.append(len(told))

    monkeypatch.setattr(asyncio, "sleep", glance)
    await part([Guest(told) for _ in range(100)], 0.2, patience=5)
    assert (so_far, len(told)) == ([25, 50, 75], 100)


async def test_who_does_not_go_is_not_waited_for_beyond_patience() -> None:
    guests = [Guest([], lingers=True), Guest([])]
    await part(guests, 0, patience=0.01)
    assert [guest.gone for guest in guests] == [False, True]


async def test_nobody_at_all_is_no_reason_to_wait() -> None:
    await part([], 5, patience=5)


async def test_it_can_be_given_up() -> None:
    told: list[Guest] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(BEAT / 2):
            await part([Guest(told, lingers=True) for _ in range(10_000)], 60, patience=60)
    assert 0 < len(told) < 10_000
