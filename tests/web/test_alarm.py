"""Alarms ring by the clock on the wall."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from hub.web import alarm
from hub.web.alarm import Alarm


async def test_it_rings_once_its_time_has_come() -> None:
    rung = asyncio.Event()
    moment = time.time() + 0.02
    Alarm(moment, rung.set)
    async with asyncio.timeout(5):
        await rung.wait()
    assert time.time() >= moment


async def test_it_rings_at_once_where_that_has_passed() -> None:
    rung = asyncio.Event()
    Alarm(0.0, rung.set)
    assert not rung.is_set()
    async with asyncio.timeout(5):
        await rung.wait()


async def test_one_that_was_cancelled_does_not() -> None:
    rung, later = asyncio.Event(), asyncio.Event()
    Alarm(0.0, rung.set).cancel()
    Alarm(0.0, later.set)
    await later.wait()
    assert not rung.is_set()


async def test_it_looks_at_the_clock_now_and_then_which_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm, "_LONGEST", 0.01)
    looks = iter([1_000.0, 1_000.0, 1_000.0, 5_000.0])
    monkeypatch.setattr(alarm, "time", SimpleNamespace(time=lambda: next(looks)))
    rung = asyncio.Event()
    Alarm(4_000.0, rung.set)
    async with asyncio.timeout(5):
        await rung.wait()
    assert next(looks, None) is None
