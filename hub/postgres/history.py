"""The past: pages of the log, and all of it as a stream, for whoever does not stay.

All that is read comes from one snapshot, in order of ids, which is causal (hub/cursor.py).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import asyncpg

from hub.cursor import Cursor
from hub.errors import Code, CommandError
from hub.page import Page
from hub.postgres import moment, witnesses
from hub.postgres.acquired import FAILURES, PATIENCE, acquired
from hub.postgres.connect import Connection, Pool
from hub.postgres.log import FIRST
from hub.postgres.past import page_of, rows_of, start_of
from hub.postgres.places import Places
from hub.postgres.source import Source
from hub.postgres.tail import PLAN
from hub.query import Query

_PAGE: Final = 100  # events, where nobody says how many
_TIMEOUT: Final = 30.0
_LONG: Final = 600.0  # seconds for a batch: there may be much between two events that are wanted
_DAY: Final = 86_400.0  # for a whole COPY; who waits for it watches its progress
_ROOM: Final = 64 * 1024  # bytes of a batch
_BATCH: Final = 100  # rows of a batch at the most, as in hub/postgres/watched.py
# The path too: through PgBouncer it is open, and hub/postgres/connect.py says why it is closed elsewhere.
_LOCAL: Final = "; ".join(
    f"SET LOCAL {name} = {value}" for name, value in (PLAN | {"search_path": "pg_catalog, pg_temp"}).items()
)
# There is no index for tags and times: README's benchmarks say what one would cost, and what it would gain.
_TOO_FAR: Final = (
    "Postgres took too long to find these events. If they are few among many, name their channels, begin at a `since` "
    "that is nearer, or ask for a stream (application/x-ndjson), which may take its time."
)
_POSTGRES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


@dataclass(frozen=True, slots=True)
class Export:
    """All events of a query. `head` is the cursor at their end, if they have one, and the gap before them, if any."""

    head: Mapping[str, str]
    _connection: Connection
    _query: Query
    _start: Cursor
    _end: Cursor
    _behind: int
    _places: Places

    async def batches(self) -> AsyncGenerator[list[bytes]]:
        """The events as JSON, up to about 64 KB at a time. Raises CommandError when reading fails.

        Nothing is read ahead: who takes no more makes Postgres wait.
        """
        statement, arguments = rows_of(self._query, self._start, self._end, self._behind, self._places.source)
        with _explained():
            cursor = await self._connection.cursor(statement, *arguments, timeout=_LONG)
        count = 10  # they may be large
        while True:
            with _explained():
                batch = [self._places.read(row).json for row in await cursor.fetch(count, timeout=_LONG)]
            if not batch:
                return
            yield batch
            count = max(1, min(len(batch) * _ROOM // sum(map(len, batch)), 4 * count, _BATCH))

    async def copy(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Give the events to `write` as CSV, a line for the columns' names first.

        Postgres waits while `write` does. What that raises comes out of here; else CommandError when reading fails.
        """
        statement, arguments = rows_of(self._query, self._start, self._end, self._behind, self._places.source, csv=True)
        failures: list[BaseException] = []

        async def output(data: bytes) -> None:
            try:
                await write(data)
            except BaseException as error:
                failures.append(error)
                raise

        try:
            with _explained():
                await self._connection.copy_from_query(
                    statement, *arguments, output=output, format="csv", header=True, timeout=_DAY
                )
        except BaseException:
            if failures:
                # asyncpg has asked for the COPY to be cancelled. If this was the last piece there is none any more, and
                # the next statement would wait for its end for ever.
                self._connection.terminate()
                raise failures[0] from None
            raise


class History:
    """Reads pages on connections of `pool`, streams on those of `streams`; waits up to `patience` seconds for one.

    All methods raise CommandError: `bad_request` for a cursor that cannot be used, or `unavailable`.
    """

    def __init__(self, pool: Pool, streams: Pool, *, patience: float = PATIENCE, places: Places | None = None) -> None:
        self._pool = pool
        self._streams = streams
        self._patience = patience
        self._places = places or Places()

    async def page(self, query: Query) -> Page:
        """The oldest events of `query`, at least one if there is one, and the position to go on from."""
        async with acquired(self._pool, self._patience) as connection:
            with _explained():
                async with _snapshot(connection):
                    query = replace(query, limit=query.limit or query.last or _PAGE)
                    return await _page(connection, query, self._places)

    @asynccontextmanager
    async def open(self, query: Query) -> AsyncIterator[Export]:
        """All events of `query`."""
        async with (
            acquired(self._streams, self._patience) as connection,
            opened(connection, query, self._places) as export,
        ):
            yield export


@asynccontextmanager
async def opened(connection: Connection, query: Query, places: Places | None = None) -> AsyncIterator[Export]:
    """All events of `query` on a connection of its own."""
    places = places or Places()
    with _explained(_POSTGRES):  # and not what comes from whoever reads
        async with _snapshot(connection):
            with _explained():
                if connection.get_server_version().major >= 17:
                    await connection.execute("SET LOCAL transaction_timeout = 0")
                start, end, gap = await _stands(connection, query)
                behind = await _behind(connection, query, start, end, places.source)
            head = {} if query.limit else {"cursor": str(_done(query, end))}
            yield Export(head | ({"gap": gap} if gap else {}), connection, query, start, end, behind, places)


@asynccontextmanager
async def _snapshot(connection: Connection) -> AsyncIterator[None]:
    """One snapshot for all that is read, by the indexes of the log."""
    transaction = connection.transaction(isolation="repeatable_read", readonly=True)
    await transaction.start()
    try:
        await connection.execute(_LOCAL)
        yield
    except BaseException:
        with suppress(asyncpg.InterfaceError):  # of a connection that is gone: what it went for is told
            await transaction.rollback()
        raise
    await transaction.commit()


async def _stands(connection: Connection, query: Query) -> tuple[Cursor, Cursor, str | None]:
    """Where to begin, where to end, and the reason why something may be missing at the beginning."""
    row = await connection.fetchrow(moment.STANDS, timeout=_TIMEOUT)
    assert row is not None
    now, start = moment.position(row), moment.beginning(row)
    since = query.since if query.since and query.since.generation == now.generation else None
    if query.until is not None:
        _check_until(query.until, since, start)
    end, gap = _end(query, now), None
    if since is None:
        return start, end, "reset" if query.since else None
    if since.era != now.era:
        verified = await witnesses.verify(connection, since, now.era)
        since, gap = verified.position, verified.gap
    if not now.snapshot.contains(since.upper):  # ahead of a log that has lost what it had
        return start, end, "reset"
    if since.snapshot.xmin < row["horizon"]:
        return since.lifted(row["horizon"]), end, gap or "expired"
    return since, end, gap


def _check_until(until: Cursor, since: Cursor | None, start: Cursor) -> None:
    """Raise CommandError for an end that has not seen all that `since` has.

    A place ends a part of one replay, so it goes only with the start of that, or with an earlier place in it: else no
    cursor could say what of two replays has been read, and the next page would repeat events, or leave some out.
    """
    if until.generation != start.generation:
        raise CommandError(Code.BAD_REQUEST, "The cursor is of another log than this.", field="until")
    later = since is None or until.snapshot.contains(since.upper) or _further(until, since)
    if not later or (until.place is not None and not (since or start).upper.contains(until.snapshot)):
        text = "`until` has not seen all that `since` has: it is older, or of the middle of pages that began elsewhere."
        raise CommandError(Code.BAD_REQUEST, text, field="until")


def _further(until: Cursor, since: Cursor) -> bool:
    """Whether both are places in one replay, and `until` is not the earlier one."""
    there, here = until.place, since.place
    if there is None or here is None or (until.snapshot, there.upper) != (since.snapshot, here.upper):
        return False
    return there.id >= here.id


def _end(query: Query, now: Cursor) -> Cursor:
    """The moment up to which is read: what `until` has not seen must not count as read."""
    if query.until is None or not now.snapshot.contains(query.until.upper):
        return now
    return query.until.finished


def _done(query: Query, end: Cursor) -> Cursor:
    """The cursor of who has read all up to `end`."""
    return query.until if query.until is not None and query.until.finished == end else end


async def _behind(connection: Connection, query: Query, start: Cursor, end: Cursor, source: Source) -> int:
    """An id that nothing lies before that is wanted."""
    if query.last is not None:
        statement, arguments = start_of(query, start, end, source)
    elif query.since is not None:
        statement, arguments = FIRST, [str(start.snapshot), str(end.snapshot)]
    else:
        return 0
    found: int | None = await connection.fetchval(statement, *arguments, timeout=_TIMEOUT)
    return 0 if found is None else found - 1


async def _page(connection: Connection, query: Query, places: Places) -> Page:
    start, end, gap = await _stands(connection, query)
    middle = start.finished if start.place else end
    page = await _read(connection, query, start, middle, places)
    if not page.events and middle.snapshot != end.snapshot:  # the way to where a place leads is done
        page = await _read(connection, query, middle, end, places)
    if page.position.place is None and page.position.snapshot == end.snapshot:
        page = replace(page, position=_done(query, end))
    return replace(page, gap=gap)


async def _read(connection: Connection, query: Query, start: Cursor, end: Cursor, places: Places) -> Page:
    source = places.source
    behind = start.place.id if start.place else await _behind(connection, query, start, end, source)
    statement, arguments = page_of(query, start, end, behind, source)
    rows: Sequence[Any] = await connection.fetch(statement, *arguments, timeout=_TIMEOUT)
    whole = not rows or rows[0]["found"] == len(rows) < (query.limit or 0)
    position = end if whole else start.inside(end, rows[-1]["id"])
    return Page([places.read(row) for row in rows], position)


@contextmanager
def _explained(failures: tuple[type[Exception], ...] = FAILURES) -> Iterator[None]:
    """Raise `failures` as CommandError."""
    try:
        yield
    except failures as error:
        if isinstance(error.__context__, CommandError):  # which says more than that nothing can be rolled back now
            raise error.__context__ from None
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        if isinstance(error, asyncpg.InvalidTextRepresentationError):  # of a snapshot that only a forged cursor has
            raise CommandError(Code.BAD_REQUEST, f"The cursor cannot be used: {reason}.") from error
        if isinstance(error, TimeoutError | asyncpg.QueryCanceledError):
            raise CommandError(Code.UNAVAILABLE, _TOO_FAR) from error
        raise CommandError(Code.UNAVAILABLE, f"The log cannot be read: {reason}.") from error
