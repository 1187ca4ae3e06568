"""How the hub is: numbers of all its parts, for whoever reports them."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import deque
from dataclasses import dataclass, field
from operator import sub
from pathlib import Path
from typing import Final, NoReturn

import structlog

from hub.fanout.fanout import Fanout
from hub.histogram import SECONDS, quantile
from hub.postgres.acquired import acquired
from hub.postgres.connect import Pool
from hub.postgres.listener import Listener
from hub.postgres.tail import Tail
from hub.postgres.telemetry import Telemetry
from hub.web.roster import Roster

_STEP: Final = 0.25  # seconds between looks at the loop
_WINDOW: Final = 10.0  # seconds that what is told of the last moments goes back
_QUEUE: Final = "/* notification queue */ SELECT pg_catalog.pg_notification_queue_usage()"
_QUEUE_EVERY: Final = 5.0  # seconds for which an answer to that is good
_QUEUE_WAIT: Final = 1.0
_STATM: Final = Path("/proc/self/statm")

log = structlog.get_logger()


@dataclass
class Vitals:
    """What is known without asking anybody; but for the notification queue, of which Postgres is asked."""

    fanout: Fanout
    listener: Listener
    tail: Tail
    pool: Pool
    telemetry: Telemetry
    roster: Roster
    _lags: deque[float] = field(default_factory=lambda: deque([0.0], maxlen=round(_WINDOW / _STEP)))
    _ages: deque[tuple[int, ...]] = field(default_factory=lambda: deque(maxlen=round(_WINDOW / _STEP)))
    _queue: tuple[float, float | None] = -_QUEUE_EVERY, None  # when Postgres was asked, and what it said

    async def run(self) -> NoReturn:
        """Look at the loop, until cancelled."""
        while True:
            self._ages.append(self._written())
            before = time.perf_counter()  # the loop's own clock counts milliseconds
            await asyncio.sleep(_STEP)
            self._lags.append(max(0.0, time.perf_counter() - before - _STEP))

    @property
    def loop_lag(self) -> float:
        """The seconds by which the loop was late, at the worst in the last ten."""
        return max(self._lags)

    @property
    def loop_lag_now(self) -> float:
        """The same of the last second."""
        return max(list(self._lags)[-round(1 / _STEP) :])

    @property
    def tail_lag(self) -> float | None:
        """How old the newest event was when it was read; None where nothing came in the last ten seconds."""
        return self.tail.lag if time.monotonic() - self.tail.news_at < _WINDOW else None

    @property
    def behind(self) -> int:
        return sum(session.behind is not None for session in self.fanout.sessions)

    @property
    def memory(self) -> int:
        """Bytes of this process; where they cannot be read, the most that it ever had."""
        try:
            return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @property
    def tasks(self) -> int:
        return len(asyncio.all_tasks())

    @property
    def pool_used(self) -> int:
        return self.pool.get_size() - self.pool.get_idle_size()

    def age(self, share: float) -> float | None:
        """How old `share` of all events were at the most that were written in the last ten seconds."""
        before = self._ages[0] if self._ages else None
        counts = self._written()
        return quantile(share, SECONDS, counts if before is None else tuple(map(sub, counts, before)))

    def _written(self) -> tuple[int, ...]:
        sweep = self.fanout.sweep
        return tuple(map(sum, zip(sweep.durable_ages.counts, sweep.ephemeral_ages.counts, strict=True)))

    async def queue(self) -> float | None:
        """The share of Postgres's notification queue that is used; None where it does not say soon."""
        asked, known = self._queue
        if time.monotonic() - asked < _QUEUE_EVERY:
            return known
        self._queue = time.monotonic(), known  # whoever asks meanwhile gets what was known
        answer: float | None = None
        try:
            async with asyncio.timeout(_QUEUE_WAIT), acquired(self.pool, _QUEUE_WAIT) as connection:
                answer = await connection.fetchval(_QUEUE)
        except Exception as error:  # whatever it is, the rest is worth telling
            log.debug("queue_unknown", reason=str(error) or type(error).__name__)
        self._queue = self._queue[0], answer
        return answer
