"""Histograms: counting in buckets, and what can be said of the whole from these."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.histogram import SECONDS, Histogram, quantile


def test_a_number_is_counted_in_the_first_bucket_that_holds_it() -> None:
    found = Histogram((1.0, 2.0))
    for number in (0.0, 1.0, 1.5, 2.0, 3.0):
        found.observe(number)
    found.observe(5.0, times=3)
    assert found.counts == (2, 2, 4)
    assert found.sum == 22.5


def test_nothing_has_no_quantile() -> None:
    assert quantile(0.5, (1.0, 2.0), (0, 0, 0)) is None


@pytest.mark.parametrize(("share", "expected"), [(0.25, 0.5), (0.5, 1.0), (0.75, 1.5), (1.0, 2.0)])
def test_numbers_of_a_bucket_count_as_spread_evenly(share: float, expected: float) -> None:
    assert quantile(share, (1.0, 2.0), (10, 10, 0)) == expected


def test_beyond_the_last_bound_nothing_more_is_known() -> None:
    assert quantile(0.99, (1.0, 2.0), (1, 0, 99)) == 2.0


@given(st.lists(st.floats(0.0002, 70), min_size=1), st.sampled_from([0.5, 0.99]))
def test_a_quantile_is_off_by_half_at_the_most(numbers: list[float], share: float) -> None:
    found = Histogram()
    for number in numbers:
        found.observe(number)
    exact = sorted(numbers)[max(0, -int(-share * len(numbers) // 1) - 1)]
    told = quantile(share, SECONDS, found.counts)
    assert told is not None
    assert exact / 2 <= told <= exact * 2
