"""Snapshots as values, against a plain model: the set of transactions that one sees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import snapshot
from hub.snapshot import Snapshot

LARGEST = 40


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    xmax = draw(st.integers(1, LARGEST))
    running = sorted(draw(st.sets(st.integers(1, LARGEST))))
    xip = tuple(xid for xid in running if xid < xmax)
    xmin = draw(st.integers(1, xip[0] if xip else xmax))
    return Snapshot(xmin, xmax, xip)


def seen(value: Snapshot) -> set[int]:
    return {xid for xid in range(1, LARGEST + 2) if xid < value.xmax and xid not in value.xip}


@given(snapshots())
def test_it_sees_what_had_ended(value: Snapshot) -> None:
    assert {xid for xid in range(1, LARGEST + 2) if value.sees(xid)} == seen(value)


@given(snapshots(), snapshots())
def test_one_contains_another_if_it_sees_all_that_the_other_sees(one: Snapshot, other: Snapshot) -> None:
    assert one.contains(other) == (seen(other) <= seen(one))


@given(snapshots(), st.integers(0, LARGEST + 5))
def test_tightened_it_sees_the_same_up_to_the_last_event_and_nothing_above(value: Snapshot, last: int) -> None:
    assert seen(value.tightened(last)) == {xid for xid in seen(value) if xid <= last}


@given(snapshots())
def test_its_text_is_read_back(value: Snapshot) -> None:
    assert snapshot.parse(str(value)) == value


@pytest.mark.parametrize(
    "text", ["", "1:2", "2:1:", "1:5:3,2", "1:5:7", "3:5:2", "0:5:", "1:2:x", "1:99999999999999999999:"]
)
def test_what_is_no_snapshot_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        snapshot.parse(text)
