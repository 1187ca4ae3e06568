"""Cursors as text: what the hub wrote is read back, anything else is refused."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import cursor
from hub.cursor import Cursor, Place, Witness
from hub.snapshot import Snapshot

XIDS = st.integers(1, 2**62)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    xmax = draw(XIDS)
    xip = sorted(draw(st.sets(st.integers(1, xmax), max_size=20)) - {xmax})
    return Snapshot(xip[0] if xip else xmax, xmax, tuple(xip))


@st.composite
def cursors(draw: st.DrawFn) -> Cursor:
    witness = draw(st.none() | st.builds(Witness, XIDS, XIDS, XIDS))
    place = draw(st.none() | st.builds(Place, snapshots(), XIDS))
    return Cursor(draw(st.integers(0, 2**62)), draw(snapshots()), witness, place, draw(st.integers(0, 2**31 - 1)))


@given(cursors())
def test_a_cursor_is_read_back(value: Cursor) -> None:
    text = str(value)
    assert cursor.parse(text) == value
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text), "it can stand in a URL as it is"


def refused(text: str) -> bool:
    try:
        cursor.parse(text)
    except ValueError as refusal:
        return str(refusal).startswith("The cursor is")
    return False


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    assert refused(text)


@given(st.binary(max_size=60))
def test_any_other_bytes_are_refused_or_are_exactly_what_the_hub_writes(data: bytes) -> None:
    text = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    assert refused(text) or str(cursor.parse(text)) == text


@given(cursors(), st.data())
def test_a_cursor_that_was_cut_off_is_refused(value: Cursor, data: st.DataObject) -> None:
    text = str(value)
    assert refused(text[: data.draw(st.integers(0, len(text) - 1))])


def test_a_thousand_transactions_in_flight_make_a_cursor_of_bounded_length() -> None:
    xip = tuple(range(1_000_000, 1_003_000, 3))
    busy = Snapshot(xip[0], 1_003_000, xip)
    text = str(Cursor(1, busy, Witness(1_002_999, 5_000_000, 1_763_800_000_000_000)))
    assert len(text) < 3_000
    assert cursor.parse(text).snapshot == busy


@pytest.mark.parametrize("text", ["", "A", "x" * (cursor.MAX_LENGTH + 1), "AQAB=", "A Q", "ÄÖ"])
def test_odd_texts_are_refused(text: str) -> None:
    assert refused(text)


def test_an_era_that_postgres_cannot_count_to_is_no_cursor_of_the_hub() -> None:
    """It would spoil the look at the log for all whose cursors are looked up with it."""
    with pytest.raises(ValueError, match="none of this hub"):
        cursor.parse(str(Cursor(1, Snapshot(1, 1), era=1 << 31)))
