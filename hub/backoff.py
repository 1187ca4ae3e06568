"""How long to wait before the next try: full jitter, so that not all who failed together return together."""

from __future__ import annotations

import random


def delay(attempt: int, *, first: float = 1.0, most: float = 30.0) -> float:
    """Seconds before try `attempt` (from 0): anything up to `first`, which doubles each time up to `most`."""
    return random.uniform(0, min(most, first * 2 ** min(attempt, 32)))  # noqa: S311 - spreads load, no secret
