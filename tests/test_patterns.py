"""Patterns: which channels they mean, and that three ways to find out agree."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import channels, patterns
from hub.patterns import Matcher

WORDS = st.sampled_from(["a", "b", "ab", "", "a+", "$", "x y", "ü"])
CHANNELS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.lists(WORDS | st.just("*"), max_size=3).flatmap(
    lambda words: st.sampled_from(["*", "**", "a", ""]).map(lambda last: ".".join([*words, last]))
)


@pytest.mark.parametrize(
    ("pattern", "channel", "expected"),
    [
        ("orders.*", "orders.new", True),
        ("orders.*", "orders", False),
        ("orders.*", "orders.new.eu", False),
        ("orders.**", "orders.new.eu", True),
        ("orders.**", "orders", False),
        ("*.new", "orders.new", True),
        ("**", "anything.at.all", True),
        ("**", "$hub", False),
        ("*", "hub_bell", False),
        ("orders.*", "ordersXnew", False),
    ],
)
def test_a_star_is_a_word_and_two_are_the_rest(pattern: str, channel: str, expected: bool) -> None:
    assert patterns.matches(pattern, channel) is expected


@given(PATTERNS, CHANNELS)
def test_the_regular_expression_means_the_same(pattern: str, channel: str) -> None:
    if not channel.startswith("$"):
        assert bool(re.match(patterns.regex(pattern), channel)) == patterns.matches(pattern, channel)


@given(st.lists(PATTERNS, min_size=1), CHANNELS)
def test_one_regular_expression_means_the_same_as_many(several: list[str], channel: str) -> None:
    if not channel.startswith("$"):
        expected = any(patterns.matches(pattern, channel) for pattern in several)
        assert bool(re.match(patterns.union(several), channel)) == expected


@given(st.lists(PATTERNS, unique=True), st.data(), st.lists(CHANNELS))
def test_many_patterns_at_once_mean_the_same(several: list[str], data: st.DataObject, channels: list[str]) -> None:
    matcher = Matcher(several)
    removed = data.draw(st.sets(st.sampled_from(several))) if several else set()
    for pattern in removed:
        matcher.remove(pattern)
    left = [pattern for pattern in several if pattern not in removed]
    for channel in channels:
        assert sorted(matcher.find(channel)) == sorted(p for p in left if patterns.matches(p, channel))


@pytest.mark.parametrize("pattern", ["*", "**", "a.*", "*.b", "a.*.c", "a.**"])
def test_whole_words_are_patterns(pattern: str) -> None:
    assert patterns.is_pattern(pattern)
    assert patterns.fault(pattern) is None


@pytest.mark.parametrize("pattern", ["a*", "***", "**.a", "a.**.b", "a.b*", "*a.b"])
def test_parts_of_words_are_not(pattern: str) -> None:
    assert "is no pattern" in (patterns.fault(pattern) or "")


def test_a_pattern_is_bounded_as_a_channel_is() -> None:
    assert "63 are the most" in (patterns.fault("*." + "x" * 62) or "")


@given(PATTERNS | CHANNELS, PATTERNS | CHANNELS, CHANNELS)
def test_what_is_covered_means_nothing_else(granted: str, wanted: str, channel: str) -> None:
    if patterns.covers(granted, wanted) and patterns.matches(wanted, channel):
        assert patterns.matches(granted, channel)


@given(st.lists(PATTERNS, unique=True), PATTERNS | CHANNELS)
def test_many_patterns_cover_what_one_of_them_covers(several: list[str], wanted: str) -> None:
    expected = any(patterns.covers(pattern, wanted) for pattern in several if not channels.is_own(wanted))
    assert Matcher(several).covers(wanted) is expected


@given(PATTERNS | CHANNELS, PATTERNS | CHANNELS)
def test_what_is_not_covered_means_something_else(granted: str, wanted: str) -> None:
    """Words that stand in no pattern, one or two for a `**`, are all that it takes to find it."""
    if channels.is_own(wanted) or patterns.covers(granted, wanted):
        return
    found = [wanted.replace("**", rest).replace("*", "new") for rest in ("new", "new.new")]
    assert not all(patterns.matches(granted, channel) for channel in found)


@pytest.mark.parametrize("granted", ["**", "*", "$*", "hub_bell"])
def test_no_other_name_covers_one_of_the_hubs_own(granted: str) -> None:
    assert not patterns.covers(granted, "$hub")
    assert patterns.covers("$hub", "$hub")
