"""So many a second."""

from __future__ import annotations

from hub.budget import Budget


def test_what_is_over_the_budget_is_left_out_and_told_with_the_next() -> None:
    now = 5.0
    budget = Budget(2, clock=lambda: now)
    assert [budget.take() for _ in range(5)] == [0, 0, None, None, None]
    now = 6.5
    assert [budget.take() for _ in range(3)] == [3, 0, None]
