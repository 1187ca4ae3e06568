"""Events of one request, all in a transaction of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import orjson

from hub.errors import CommandError
from hub.item import Item
from hub.postgres.acquired import FAILURES, PATIENCE, acquired
from hub.postgres.connect import Connection, Pool
from hub.postgres.loading import Check, Chunks, copy_lines
from hub.postgres.places import Places
from hub.postgres.publisher import ITEMS_FAULTS, PUBLISH, is_silence, publish_placed, refusal, uncertain

_TIMEOUT: Final = 30.0  # seconds for a statement, which may wait for another that uses the same key
_ROLLED_BACK: Final = (CommandError, *FAILURES)


class Items:
    """Publishes through `pool`, and loads through `streams`; waits up to `patience` seconds for a connection of either.

    All methods raise CommandError; then nothing was published, unless it is an UncertainError.
    """

    def __init__(self, pool: Pool, streams: Pool, *, patience: float = PATIENCE, places: Places | None = None) -> None:
        self._pool = pool
        self._streams = streams
        self._patience = patience
        self._places = places or Places()

    async def publish(self, items: Sequence[Item]) -> list[int]:
        """Publish all or none; their ids, in order. The error's field says which one Postgres refused: `[3]`."""
        async with acquired(self._pool, self._patience) as connection:
            try:
                async with _transaction(connection):
                    return await self._publish(connection, items)
            except ITEMS_FAULTS as error:
                raise await self._which(connection, items, error) from None

    async def publish_each(self, items: Sequence[Item]) -> list[int | CommandError]:
        """Publish those that can be, in one transaction; for each its id, or why not."""
        results: list[int | CommandError] = []
        async with acquired(self._pool, self._patience) as connection, _transaction(connection):
            for item in items:
                try:
                    async with connection.transaction():
                        results += await self._publish(connection, [item])
                except ITEMS_FAULTS as error:
                    results.append(refusal(error))
        return results

    async def load(self, chunks: Chunks, check: Check | None = None) -> int:
        """Publish all lines of NDJSON or none, however many; returns how many. The field says which is bad: `line 3`.

        What `chunks` and `check` raise, this raises; `check` is asked for each channel before it is written to.
        """
        async with acquired(self._streams, self._patience) as connection:
            return await copy_lines(connection, chunks, check=check, places=self._places)

    async def _publish(self, connection: Connection, items: Sequence[Item]) -> list[int]:
        columns: list[list[Any]] = [
            [item.channel for item in items],
            [item.text for item in items],
            [orjson.dumps(item.tags).decode() for item in items],
            [item.key for item in items],
        ]
        statement = PUBLISH
        if any(item.place is not None for item in items):
            statement = publish_placed(self._places.needed())
            columns.append([item.place for item in items])
        return [found["id"] for found in await connection.fetch(statement, *columns, timeout=_TIMEOUT)]

    async def _which(self, connection: Connection, items: Sequence[Item], error: Exception) -> CommandError:
        """The refusal of the first that is bad, found by trying each: a statement for all does not say which it was."""
        if isinstance(error, asyncpg.TransactionRollbackError):
            return refusal(error)
        found = refusal(error)
        try:
            async with connection.transaction():
                for place, item in enumerate(items):
                    try:
                        await self._publish(connection, [item])
                    except ITEMS_FAULTS as fault:
                        found = refusal(fault)
                        found.field = f"[{place}]"
                        raise found from None
                raise found
        except _ROLLED_BACK:
            return found


@asynccontextmanager
async def _transaction(connection: Connection) -> AsyncIterator[None]:
    committing = False
    try:
        async with connection.transaction():
            yield
            committing = True
    except ITEMS_FAULTS:
        raise
    except FAILURES as error:
        raise (uncertain() if committing and is_silence(error) else refusal(error)) from error
