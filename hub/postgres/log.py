"""The log, read back: pages for those who were away, paced by them, so nothing is held between two pages."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from functools import cache
from typing import Any, Final, TypeVar

import asyncpg
import structlog

from hub import patterns
from hub.cursor import Cursor
from hub.page import ROOM, Page
from hub.postgres.connect import Pool
from hub.postgres.places import Places
from hub.postgres.source import PLACED, PLAIN, Source
from hub.postgres.witnesses import Witnesses
from hub.selection import Selection, admission

_ROWS: Final = 1_000  # of a page
_WINDOW: Final = 20_000  # ids that one page looks at for patterns
_KEPT: Final = 64  # pages for whoever asks for the same; at most 16 MB, but for single large events
_TIMEOUT: Final = 30.0
_LONG: Final = 300.0  # to find where a replay begins and ends, which reads an index of all that is new

_NOW: Final = "WITH now AS MATERIALIZED (SELECT generation, horizon::text::bigint AS horizon FROM hub.log)"
_COLUMNS: Final = "id, xid, channel, payload, tags, published_at"
_BETWEEN: Final = """
    id > $2 AND id <= $3 AND pg_visible_in_snapshot(xid, $5::text::pg_snapshot)
    AND NOT pg_visible_in_snapshot(xid, $4::text::pg_snapshot)
"""


# Of a channel by the index on (channel, id), and by no other: hub/postgres/past.py says what `channel =` would lead to.
def _named(source: Source) -> str:
    return f"""
    SELECT of_channel.* FROM unnest($1::text[]) AS wanted (channel) CROSS JOIN LATERAL (
        SELECT {_COLUMNS}{source.also()} FROM {source.table} AS events
         WHERE (events.channel, events.id) > (wanted.channel, $2) AND events.channel <= wanted.channel AND {_BETWEEN}
         ORDER BY events.channel, id LIMIT {_ROWS}) AS of_channel
     ORDER BY id LIMIT {_ROWS}
"""  # noqa: S608 - made of constants, as all here


def _matching(source: Source, tables: str = "", further: str = "") -> str:
    return f"""
    SELECT {_COLUMNS}{source.also()} FROM {tables or f"{source.table} AS events"}
     WHERE (channel = ANY($1::text[]) OR channel ~ $6::text) AND {_BETWEEN} {further}
     ORDER BY events.id LIMIT {_ROWS}
"""  # noqa: S608


def _page(source: Source, rows: str) -> str:
    """The statement of a page: as many of `rows` as there is room for, and whether these were all."""
    return f"""
/* replay page */
{_NOW}
SELECT now.generation, now.horizon, e.id, e.xid::text::bigint AS xid, e.channel, e.payload::text, e.tags,
       e.published_at{source.also("e.")}, e.found < {_ROWS} AND e.bytes <= {ROOM} AS whole
  FROM now LEFT JOIN LATERAL (
    SELECT *, count(*) OVER () AS found, sum({source.size}) OVER () AS bytes,
           sum({source.size}) OVER (ORDER BY id) AS upto, row_number() OVER (ORDER BY id) AS number
      FROM ({rows}) AS found
  ) AS e ON e.number = 1 OR e.upto <= {ROOM}
 ORDER BY e.id
"""  # noqa: S608


_PAGE_NAMED: Final = _page(PLAIN, _named(PLAIN))
_PAGE_NAMED_PLACED: Final = _page(PLACED, _named(PLACED))
_PAGE_MATCHING: Final = _page(PLAIN, _matching(PLAIN))
_PAGE_MATCHING_PLACED: Final = _page(PLACED, _matching(PLACED))


@cache
def _page_fenced(home: str) -> str:
    """Of those that are near one of the fences. Which are inside is for the fences to say, here and in the ring.

    OFFSET 0 has the place of each event of the window looked up; else Postgres would look through all places there are.
    """
    shapes = f"ARRAY(SELECT {home}.st_geomfromewkb(shape) FROM unnest($7::bytea[]) AS fence (shape))"  # noqa: S608
    tables = """hub.events AS events CROSS JOIN LATERAL (
        SELECT place FROM hub.places AS p WHERE p.xid = events.xid AND p.id = events.id OFFSET 0) AS its"""
    return _page(PLACED, _matching(PLACED, tables, f"AND place OPERATOR({home}.&&) ANY ({shapes})"))


@cache
def _newest_fenced(home: str) -> str:
    fence = f"{home}.st_geomfromewkb($5::bytea)"
    return f"""
/* replay newest */
SELECT min(id) AS id, count(*) AS found FROM (
    SELECT id FROM hub.placed
     WHERE (channel = ANY($1::text[]) OR channel ~ $4::text)
       AND pg_visible_in_snapshot(xid, $2::text::pg_snapshot)
       AND place OPERATOR({home}.&&) {fence} AND {home}.st_intersects(place, {fence})
     ORDER BY id DESC LIMIT $3) AS newest
"""  # noqa: S608


FIRST: Final = """
/* replay first */
SELECT min(id) FROM (
    SELECT id FROM hub.events
     WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND xid < pg_snapshot_xmax($2::text::pg_snapshot)
    UNION ALL
    SELECT ev.id FROM pg_snapshot_xip($1::text::pg_snapshot) AS open (xid) JOIN hub.events AS ev ON ev.xid = open.xid
) AS unseen
"""
"""The least id that is not visible in the first snapshot but below the second's end; null where there is none."""
_LAST: Final = "/* replay last */ SELECT max(id) FROM hub.events"
# The channels that there are, one step through the index for each (a "loose index scan").
_CHANNELS: Final = """
/* replay channels */
WITH RECURSIVE known (channel) AS (
    (SELECT channel FROM hub.events ORDER BY channel LIMIT 1)
    UNION ALL
    SELECT (SELECT ev.channel FROM hub.events AS ev WHERE ev.channel > known.channel ORDER BY ev.channel LIMIT 1)
      FROM known WHERE known.channel IS NOT NULL
)
SELECT channel FROM known WHERE channel ~ $1::text
"""
_NEWEST: Final = """
/* replay newest */
SELECT min(id) AS id, count(*) AS found FROM (
    SELECT of_channel.id FROM unnest($1::text[]) AS wanted (channel) CROSS JOIN LATERAL (
        SELECT id FROM hub.events
         WHERE events.channel >= wanted.channel AND events.channel <= wanted.channel
           AND pg_visible_in_snapshot(xid, $2::text::pg_snapshot)
         ORDER BY events.channel DESC, id DESC LIMIT $3) AS of_channel
     ORDER BY id DESC LIMIT $3) AS newest
"""

T = TypeVar("T")
log = structlog.get_logger()


class Log:
    """Reads pages through `pool`; `fresh` returns when the tail has looked anew.

    Equal questions that are asked at the same time, or one soon after the other, are asked once: many clients that
    lost one hub come back with one cursor. All methods raise OSError while the log cannot be read.
    """

    def __init__(self, pool: Pool, *, fresh: Callable[[], Awaitable[None]], places: Places | None = None) -> None:
        self._pool = pool
        self._fresh = fresh
        self._places = places or Places()
        self._asked: dict[Hashable, asyncio.Task[Any]] = {}
        self._pages: OrderedDict[Hashable, Page] = OrderedDict()
        self._witnesses = Witnesses(self._fetch)
        self.queries = 0
        """Statements that were sent."""

    async def fresh(self) -> None:
        await self._fresh()

    async def page(self, selection: Selection, position: Cursor, upper: Cursor) -> Page:
        """The next page of `selection` behind `position`: inside it if it is a place, else on the way to `upper`."""
        end = position.finished if position.place else upper
        key = selection.names, selection.fences, position, end
        if (known := self._pages.get(key)) is not None:
            return known
        page = await self._once(key, self._read(selection, position, end))
        self._pages[key] = page
        while len(self._pages) > _KEPT:
            self._pages.popitem(last=False)
        return page

    async def verify(self, position: Cursor, era: int) -> Page:
        """The position in `era`, or after a gap another one (hub/postgres/witnesses.py)."""
        return await self._witnesses.verify(position, era)

    async def newest(self, selection: Selection, count: int, upper: Cursor) -> int:
        """The id behind which the newest `count` events of `selection` lie that `upper` sees; 0 where it has fewer."""
        key = selection.names, selection.fences, count, upper
        return await self._once(key, self._find_newest(selection, count, upper))

    async def _once(self, key: Hashable, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, or of the same work that is under way. Whoever is cancelled disturbs no other."""
        task = self._asked.get(key)
        if task is not None:
            work.close()
        else:
            task = self._asked[key] = asyncio.create_task(work, name="log")
            task.add_done_callback(lambda done: self._answered(key, done))
        result: T = await asyncio.shield(task)
        return result

    def _answered(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._asked[key]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone, and then nobody else looks at it

    async def _read(self, selection: Selection, position: Cursor, end: Cursor) -> Page:
        snapshots = str(position.snapshot), str(end.snapshot)
        if position.place is not None:
            behind = position.place.id
        else:
            first = await self._fetch(FIRST, *snapshots, timeout=_LONG)
            behind = (first[0]["min"] or 1) - 1
        last = (await self._fetch(_LAST))[0]["max"] or 0
        last_here = min(last, behind + _WINDOW) if selection.patterns or selection.fences else last
        statement, further = self._statement(selection)
        rows = await self._fetch(statement, list(selection.channels), behind, last_here, *snapshots, *further)
        found = [row for row in rows if row["id"] is not None]
        events = list(filter(admission(selection) or bool, map(self._places.read, found)))
        if found and not found[0]["whole"]:
            there = position.inside(end, found[-1]["id"])
        elif last_here < last:
            there = position.inside(end, last_here)
        else:
            there = end
        return Page(events, there, rows[0]["horizon"])

    def _statement(self, selection: Selection) -> tuple[str, list[Any]]:
        """The one that has a page of `selection`, and what it is told beside names, ids and snapshots."""
        choose, home = self._places.choose, self._places.home
        fences = selection.wholly_fenced
        if fences and home is not None:
            return _page_fenced(home), [_regex(selection), [fence.wkb for fence in fences]]
        if selection.patterns or selection.fences:
            return choose(_PAGE_MATCHING, _PAGE_MATCHING_PLACED), [_regex(selection)]
        return choose(_PAGE_NAMED, _PAGE_NAMED_PLACED), []

    async def _find_newest(self, selection: Selection, count: int, upper: Cursor) -> int:
        if selection.fences:
            return await self._find_newest_fenced(selection, count, upper)
        names = selection.channels
        if selection.patterns:
            found = await self._fetch(_CHANNELS, patterns.union(selection.patterns), timeout=_LONG)
            names |= {row["channel"] for row in found}
        row = (await self._fetch(_NEWEST, list(names), str(upper.snapshot), count, timeout=_LONG))[0]
        return row["id"] - 1 if row["found"] == count else 0

    async def _find_newest_fenced(self, selection: Selection, count: int, upper: Cursor) -> int:
        if self._places.home is None:
            return 0
        fence = next(iter(selection.fences))[1]  # they are one, that of a subscribe
        arguments = list(selection.channels), str(upper.snapshot), count, _regex(selection), fence.wkb
        row = (await self._fetch(_newest_fenced(self._places.home), *arguments, timeout=_LONG))[0]
        return row["id"] - 1 if row["found"] == count else 0

    async def _fetch(self, statement: str, *arguments: object, timeout: float = _TIMEOUT) -> list[Any]:
        try:
            self.queries += 1
            async with self._pool.acquire() as connection:
                return await connection.fetch(statement, *arguments, timeout=timeout)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError) as error:
            log.warning("log_unreadable", error=str(error) or type(error).__name__)
            raise ConnectionError(str(error)) from error


def _regex(selection: Selection) -> str | None:
    """That of all patterns; where there are none, null, which no channel matches."""
    return patterns.union(selection.patterns) if selection.patterns else None
