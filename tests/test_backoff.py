"""How long to wait before the next try."""

from hypothesis import given
from hypothesis import strategies as st

from hub import backoff


@given(st.integers(0, 10_000))
def test_a_delay_is_within_what_doubles_up_to_the_most(attempt: int) -> None:
    assert 0 <= backoff.delay(attempt) <= min(30.0, 2.0 ** min(attempt, 10))


def test_those_who_failed_together_do_not_come_back_together() -> None:
    assert len({backoff.delay(5) for _ in range(100)}) == 100
