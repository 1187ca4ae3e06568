"""Lengths of time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hub import duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("36h", timedelta(hours=36)),
        ("7d", timedelta(days=7)),
    ],
)
def test_a_number_and_its_unit(text: str, expected: timedelta) -> None:
    assert duration.parse(text) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "1.5h", "7 d", "7D", "7d\n", "٧d", "1d2h", "9999999999s"])
def test_nothing_else(text: str) -> None:
    assert duration.parse(text) is None
