"""How fast a client may send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.web.rate import Call, Rate


def sent(rate: Rate, count: int, *, at: float, most: float = 10.0) -> list[Call]:
    """What `count` messages at one time call for."""
    return [call for call in (rate.count(at, most) for _ in range(count)) if call]


def test_a_burst_of_twice_the_rate_is_free() -> None:
    assert sent(Rate(), 20, at=100.0) == []


def test_the_first_emptying_is_a_warning_and_the_second_the_end() -> None:
    rate = Rate()
    assert sent(rate, 21, at=100.0) == [Call.WARN]
    assert sent(rate, 19, at=100.0) == []
    assert sent(rate, 1, at=100.0) == [Call.CLOSE]


def test_who_heeds_the_warning_is_warned_again_another_time() -> None:
    rate = Rate()
    assert sent(rate, 21, at=100.0) == [Call.WARN]
    assert sent(rate, 10, at=101.0) == [], "as many as dripped through meanwhile, and no second word"
    assert sent(rate, 21, at=110.0) == [Call.WARN], "the bucket had been full again"


@given(st.lists(st.floats(0.1, 5.0), max_size=50), st.floats(0.0, 1e6))
def test_who_keeps_to_the_rate_never_hears_of_it(pauses: list[float], start: float) -> None:
    rate, now = Rate(), start
    for pause in pauses:
        now += pause
        assert rate.count(now, 10.0) is None


@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=20))
def test_no_more_than_the_burst_twice_and_the_rate_gets_through(pauses: list[float]) -> None:
    rate, now = Rate(), 100.0
    for count in range(60):
        now += pauses[count % len(pauses)]
        if rate.count(now, 10.0) is Call.CLOSE:
            return
        assert count <= 40 + 10 * (now - 100.0)
