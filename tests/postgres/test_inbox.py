"""Batches and gaps, in the order in which they belong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from hub.postgres import inbox
from hub.postgres.inbox import Inbox
from hub.postgres.listening import Notification


class Story:
    """What an inbox told, in order. `fails` makes the next batches end in an error."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.fails = False
        self.inbox = Inbox(self.on_batch, self.on_gap)

    def on_batch(self, batch: Sequence[Notification]) -> None:
        if self.fails:
            raise RuntimeError("a mistake in the hub")
        self.told.append([payload for _, payload in batch])

    def on_gap(self, gap: Sequence[str]) -> None:
        self.told.append(f"gap {' '.join(gap)}")

    def put(self, *payloads: str, channel: str = "a") -> None:
        for payload in payloads:
            self.inbox.put(Notification(channel, payload))


async def test_the_first_goes_at_once_and_what_else_the_turn_brings_as_one_batch() -> None:
    story = Story()
    story.inbox.open([])
    story.put("1", "2")
    story.put("3", channel="b")
    story.put("4")
    assert story.told == [["1"]]
    await asyncio.sleep(0)
    story.put("5")
    await asyncio.sleep(0)
    assert story.told == [["1"], ["2", "3", "4"], ["5"]]


async def test_what_comes_before_it_is_open_waits_until_the_gap_is_told() -> None:
    story = Story()
    story.put("1")
    await asyncio.sleep(0)
    story.put("2")
    assert story.told == []
    story.inbox.open(["a", "b"])
    assert story.told == ["gap a b", ["1", "2"]]


async def test_without_a_loss_there_is_no_gap() -> None:
    story = Story()
    story.inbox.open([])
    assert story.told == []


async def test_what_came_before_the_loss_goes_out_at_once() -> None:
    story = Story()
    story.inbox.open([])
    story.put("1")
    story.inbox.shut()
    assert story.told == [["1"]]
    story.put("2")
    story.inbox.open(["a"])
    await asyncio.sleep(0)
    assert story.told == [["1"], "gap a", ["2"]]


async def test_a_second_loss_before_the_gap_was_told_takes_what_waited_with_it() -> None:
    """It would be told without what was lost before it."""
    story = Story()
    story.put("1")
    story.inbox.shut()
    story.put("2")
    story.inbox.open(["a"])
    assert story.told == ["gap a", ["2"]]


async def test_what_waits_is_bounded_and_its_hole_lies_where_the_gap_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "HELD_BACK", 3)
    story = Story()
    story.put("1", "2", "3", "4", "5")
    story.inbox.open(["a"])
    assert story.told == ["gap a", ["4", "5"]]


async def test_an_error_in_a_batch_is_logged_told_as_a_gap_and_harms_nothing_after_it() -> None:
    story = Story()
    story.inbox.open([])
    story.put("0")
    story.fails = True
    story.put("1", channel="b")
    story.put("2", channel="a")
    with capture_logs() as logs:
        await asyncio.sleep(0)
    story.fails = False
    story.put("3")
    await asyncio.sleep(0)
    assert story.told == [["0"], "gap a b", ["3"]]
    assert [(entry["event"], entry["notifications"]) for entry in logs] == [("batch_failed", 2)]


async def test_an_error_in_telling_a_gap_is_logged_and_the_rest_goes_on() -> None:
    told: list[Any] = []

    def on_gap(gap: Sequence[str]) -> None:
        raise RuntimeError("a mistake in the hub")

    made = Inbox(told.append, on_gap)
    made.put(Notification("a", "1"))
    with capture_logs() as logs:
        made.open(["a"])
    assert [entry["event"] for entry in logs] == ["gap_failed"]
    assert told == [[Notification("a", "1")]]


async def test_it_says_what_it_is_up_to() -> None:
    story = Story()
    story.put("1")
    assert repr(story.inbox) == "<Inbox shut waiting=1>"
    story.inbox.open([])
    assert repr(story.inbox) == "<Inbox open waiting=0>"
