"""Who wants which channel, counted."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import Code, CommandError
from hub.postgres.holds import Holds


def holds(*, linger: float = 60.0, most: int = 10) -> tuple[Holds, list[None]]:
    """Holds, and a list that grows with each change."""
    changes: list[None] = []
    return Holds(linger=linger, most=most, on_change=lambda: changes.append(None)), changes


async def test_the_first_hold_is_a_change_and_the_others_are_not() -> None:
    made, changes = holds()
    for _ in range(3):
        made.take("a")
    assert made.wanted() == {"a"}
    assert len(changes) == 1


async def test_a_channel_lingers_after_its_last_holder_and_then_goes() -> None:
    made, changes = holds(linger=0.0)
    made.take("a")
    made.take("a")
    made.give("a")
    made.give("a")
    assert made.wanted() == {"a"}
    while made.wanted():
        await asyncio.sleep(0)
    assert len(changes) == 2


async def test_who_comes_back_while_it_lingers_costs_nothing() -> None:
    made, changes = holds()
    for _ in range(100):
        made.take("a")
        made.give("a")
    made.take("a")
    assert repr(made) == "<Holds held=1 lingering=0>"
    assert len(changes) == 1


async def test_who_comes_back_is_not_forgotten_when_the_time_is_over() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    made, _ = holds(linger=0.0)
    other, _ = holds(linger=0.0)
    for each in (made, other):
        each.take("a")
        each.give("a")
    made.take("a")
    while other.wanted():
        await asyncio.sleep(0)
    assert made.wanted() == {"a"}
    assert complaints == []


async def test_more_channels_than_allowed_are_refused_and_the_others_stay() -> None:
    made, _ = holds(most=2)
    made.take("a")
    made.take("b")
    with pytest.raises(CommandError, match="2 channels already") as refused:
        made.take("c")
    assert (refused.value.code, refused.value.channels) == (Code.TOO_MANY, ("c",))
    made.take("a")
    assert made.wanted() == {"a", "b"}


async def test_what_lingers_makes_way_oldest_first() -> None:
    """Clients that come and go with new names each time cost no more than the bound."""
    made, _ = holds(most=3)
    for name in "abcdefg":
        made.take(name)
        made.give(name)
    assert made.wanted() == {"e", "f", "g"}
    made.take("h")
    assert made.wanted() == {"f", "g", "h"}


@pytest.mark.parametrize("name", ["", "a\0b", "a\ud800", "é" * 32])
async def test_a_name_that_postgres_would_not_hear_is_refused(name: str) -> None:
    """Too long a name is cut off without an error; a lone surrogate ended the connection for everybody."""
    made, changes = holds()
    with pytest.raises(CommandError) as refused:
        made.take(name)
    assert (refused.value.code, refused.value.channels) == (Code.BAD_CHANNEL, (name,))
    assert not made.wanted()
    assert not changes


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_a_channel_is_wanted_as_long_as_one_holder_is_left(steps: list[tuple[str, bool]]) -> None:
    async def play() -> None:
        made, _ = holds(linger=0.0)
        counts: Counter[str] = Counter()
        for name, take in steps:
            if take:
                made.take(name)
                counts[name] += 1
            elif counts[name]:
                made.give(name)
                counts[name] -= 1
            assert {each for each in counts if counts[each]} <= made.wanted()
        held = {each for each in counts if counts[each]}
        while made.wanted() != held:
            await asyncio.sleep(0)

    asyncio.run(play())


STEPS = st.lists(st.tuples(st.sampled_from(["take", "give", "ask", "lose"]), st.sampled_from("abcdef")), max_size=40)


@given(STEPS)
def test_who_follows_the_changes_has_what_is_wanted(steps: list[tuple[str, str]]) -> None:
    async def course() -> None:
        made, _ = holds(most=3)
        held: Counter[str] = Counter()
        followed: set[str] = set()
        for step, name in [*steps, ("ask", "")]:
            if step == "take" and (held[name] or len(+held) < 3):
                made.take(name)
                held[name] += 1
            elif step == "give" and held[name]:
                made.give(name)
                held[name] -= 1
            elif step == "ask":
                new, gone = made.changes()
                assert not new & followed
                assert gone <= followed
                followed = (followed | new) - gone
                assert followed == made.wanted()
            elif step == "lose":
                made.begin_again()
                followed = set()

    asyncio.run(course())
