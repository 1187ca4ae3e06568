"""A pool that knows how many wait for one of its connections, which asyncpg's does not tell."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import asyncpg
from asyncpg.pool import PoolAcquireContext

from hub.postgres.record import Record

if TYPE_CHECKING:
    Base = asyncpg.Pool[Record]
else:  # generic for type checkers only
    Base = asyncpg.Pool


class Pool(Base):
    """asyncpg's; `waiting` is how many wait now."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.waiting = 0

    def acquire(self, *, timeout: float | None = None) -> PoolAcquireContext[Record]:
        return cast("PoolAcquireContext[Record]", _Acquiring(self, super().acquire(timeout=timeout)))


class _Acquiring:
    """A connection of `pool` that is waited for: to be awaited, or entered."""

    __slots__ = ("_acquired", "_pool")

    def __init__(self, pool: Pool, acquired: Any) -> None:
        self._pool = pool
        self._acquired = acquired

    def __await__(self) -> Generator[Any, Any, Any]:
        self._pool.waiting += 1
        try:
            return (yield from self._acquired.__await__())
        finally:
            self._pool.waiting -= 1

    async def __aenter__(self) -> Any:
        self._pool.waiting += 1
        try:
            return await self._acquired.__aenter__()
        finally:
            self._pool.waiting -= 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._acquired.__aexit__(kind, error, trace)
