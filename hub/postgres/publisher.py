"""NOTIFY for websocket publishers: what comes in while one transaction commits shares the next."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import Final, NamedTuple, NoReturn

import asyncpg
import structlog

from hub.errors import Code, CommandError
from hub.postgres.connect import Pool

_BATCH: Final = 1_000
_QUEUE: Final = 10_000  # publishes that wait: at most 80 MB, and callers are held back from a tenth of it on
_NOTIFY: Final = "SELECT pg_catalog.pg_notify(c, p) FROM unnest($1::text[], $2::text[]) AS t(c, p)"

log = structlog.get_logger()


class _Item(NamedTuple):
    channel: str
    payload: str
    done: asyncio.Future[None]


class Publisher:
    """Sends NOTIFYs through one connection of `pool` at a time, in the order they were handed over."""

    def __init__(self, pool: Pool, *, timeout: float = 10.0) -> None:
        self._pool = pool
        self._timeout = timeout
        self._queue: deque[_Item] = deque()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __repr__(self) -> str:
        return f"<Publisher queued={len(self._queue)}>"

    async def room(self) -> None:
        """Return once `notify` has room for another one."""
        await self._room.wait()

    def notify(self, channel: str, payload: str) -> asyncio.Future[None]:
        """Queue a NOTIFY. The future is done after the commit; it has CommandError where it failed.

        Raises CommandError (`unavailable`) when the queue is full.
        """
        if len(self._queue) >= _QUEUE:
            raise CommandError(Code.UNAVAILABLE, "Too many events wait to be published; try again.")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Item(channel, payload, done))
        self._filled.set()
        if len(self._queue) >= _QUEUE // 10:
            self._room.clear()
        return done

    async def prove(self, channel: str) -> None:
        """Send an empty NOTIFY on `channel`, by the way that all others take."""
        await self._pool.execute("SELECT pg_catalog.pg_notify($1, '')", channel)

    async def run(self) -> NoReturn:
        """Send what is queued, until cancelled; what is queued then fails as unavailable."""
        try:
            while True:
                await self._filled.wait()
                batch = self._take()
                await self._send(batch)
        finally:
            for item in self._queue:
                item.done.cancel()

    def _take(self) -> list[_Item]:
        """The next batch, up to the first item that stands in it already.

        Postgres folds equal notifications of one transaction into one: of two clients that both say "hello",
        one would go unheard.
        """
        seen: set[tuple[str, str]] = set()
        for item in islice(self._queue, _BATCH):
            if (item.channel, item.payload) in seen:
                break
            seen.add((item.channel, item.payload))
        batch = [self._queue.popleft() for _ in range(len(seen))]
        if not self._queue:
            self._filled.clear()
        if len(self._queue) < _QUEUE // 10:
            self._room.set()
        return batch

    async def _send(self, batch: list[_Item]) -> None:
        """One transaction for all; where that fails, each on its own, so that one bad item harms no other."""
        try:
            await self._notify(batch)
        except Exception as error:  # asyncpg's own state errors too, where a connection died in the middle
            if len(batch) > 1 and isinstance(error, asyncpg.DataError | asyncpg.ProgramLimitExceededError):
                for item in batch:
                    await self._send([item])
                return
            log.warning("publish_failed", events=len(batch), error=str(error))
            refusal = CommandError(Code.UNAVAILABLE, "Postgres did not take the event; try again.")
            for item in batch:
                _finish(item, refusal)
        except BaseException:  # cancelled in the middle: nobody knows whether it was committed
            for item in batch:
                item.done.cancel()
            raise
        else:
            for item in batch:
                _finish(item, None)

    async def _notify(self, batch: list[_Item]) -> None:
        names, payloads = [item.channel for item in batch], [item.payload for item in batch]
        async with asyncio.timeout(self._timeout), self._pool.acquire() as connection:
            await connection.execute(_NOTIFY, names, payloads)


def _finish(item: _Item, error: CommandError | None) -> None:
    if item.done.done():
        return
    if error is None:
        item.done.set_result(None)
    else:
        item.done.set_exception(error)
