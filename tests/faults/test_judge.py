"""The judge of the fault tests finds what it is to find."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from tests.faults import judge
from tests.faults.follower import Follower, Loss
from tests.faults.judge import Fact
from tests.faults.producers import CHANNELS, Notifier

A, B = CHANNELS[:2]
COMMITTED = {1: Fact(A, 1, 1, None), 2: Fact(A, 2, 1, 1), 3: Fact(A, 1, 2, 1), 4: Fact(B, 1, 3, 3)}


def follower(*story: dict[str, Any] | Loss) -> Follower:
    made = Follower(lambda: 0, [A], 1.0)
    made.story.extend(story)
    return made


def notify(number: int, producer: int = 7) -> dict[str, Any]:
    return {"id": None, "channel": A, "payload": {"by": producer, "n": number}}


@pytest.mark.parametrize(
    ("ids", "wrong"),
    [
        ((1, 2, 3), {}),
        ((1, 3, 2), {}),
        ((1, 3), {"lost": 1}),
        ((1, 2, 2, 3), {"twice": 1, "out of order": 1}),
        ((1, 2, 3, 9), {"never committed": 1}),
        ((3, 1, 2), {"out of order": 1, "before their cause": 1}),
        ((2, 1, 3), {"before their cause": 1}),
    ],
)
def test_of_durable_events(ids: tuple[int, ...], wrong: dict[str, int]) -> None:
    assert +judge.durable(ids, lambda channel: channel == A, COMMITTED) == Counter(wrong)


@pytest.mark.parametrize(
    ("story", "wrong"),
    [
        ((notify(1), notify(3), notify(4)), {}),
        ((notify(1), notify(4)), {"NOTIFY lost without a word": 1}),
        ((notify(1), Loss(None, "cut"), notify(4)), {"NOTIFY lost and told": 1}),
        ((notify(1), Loss(frozenset({A}), "listener"), notify(4)), {"NOTIFY lost and told": 1}),
        ((notify(1), Loss(frozenset({B}), "listener"), notify(4)), {"NOTIFY lost without a word": 1}),
        ((Loss(None, "cut"), notify(1), notify(4)), {"NOTIFY lost without a word": 1}),
        ((notify(1), notify(4), Loss(None, "cut")), {"NOTIFY lost without a word": 1}),
        ((notify(1), notify(3), Loss(None, "cut")), {"NOTIFY lost and told": 1}),
        ((notify(1), notify(2), notify(3), notify(4)), {}),
        ((notify(1), notify(1), notify(3), notify(4)), {"NOTIFY twice": 1, "NOTIFY out of order": 1}),
        ((notify(3), notify(1), notify(4)), {"NOTIFY out of order": 1}),
        ((notify(1), notify(3), notify(4), notify(5)), {"NOTIFY never committed": 1}),
    ],
)
def test_of_notifies(story: tuple[dict[str, Any] | Loss, ...], wrong: dict[str, int]) -> None:
    """1, 3 and 4 were committed; of 2 nobody knows."""
    notifier = Notifier("", 7, random.Random(0))
    notifier.committed[A], notifier.doubtful[A] = {1, 3, 4}, {2}
    assert +judge.ephemeral(follower(*story), {7: notifier}) == Counter(wrong)
