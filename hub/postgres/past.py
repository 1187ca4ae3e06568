"""The statements that read the past: what a query says, as SQL.

What does not count is left out, so that the rest can be answered by an index. Only values go into arguments.
"""

from __future__ import annotations

from typing import Any, Final

from hub import patterns
from hub.cursor import Cursor
from hub.fence import Fence
from hub.postgres.source import PLAIN, Source
from hub.query import Query

ROOM: Final = 1 << 20
"""Bytes of a page's payloads, unless it holds a single one."""

_ROWS: Final = "id, xid::text::bigint AS xid, channel, payload::text, tags, published_at"
_CSV: Final = """
    id, channel, to_char(published_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at, payload,
    array_to_json(tags) AS tags
"""
_VISIBLE: Final = "pg_visible_in_snapshot(xid, {}::text::pg_snapshot)"

Statement = tuple[str, list[Any]]


class _Where:
    """A condition that grows, and the arguments that it needs."""

    def __init__(self, query: Query, start: Cursor, end: Cursor, behind: int, source: Source) -> None:
        self.arguments: list[Any] = []  # the first is `behind`
        self.text = f"id > {self.take(behind)}::bigint"
        self._add(_VISIBLE, str(end.upper))
        self._add(f"NOT {_VISIBLE}", str(start.snapshot))
        if query.until is not None:
            self._add_until(query.until)
        if query.tags:
            self._add("tags && {}::text[]", list(query.tags))
        # Times as text: where rows are streamed, asyncpg takes no datetime (hub/postgres/codecs.py).
        if query.begin is not None:
            self._add("published_at >= {}::text::timestamptz", query.begin.isoformat())
        if query.end is not None:
            self._add("published_at < {}::text::timestamptz", query.end.isoformat())
        if query.fence is not None:
            self._add_fence(query.fence, source.home)

    def take(self, value: Any) -> str:
        """The name of a new argument."""
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def _add(self, condition: str, *values: Any) -> None:
        self.text += f" AND {condition.format(*map(self.take, values))}"

    def _add_until(self, until: Cursor) -> None:
        if until.place is None:
            self._add(_VISIBLE, str(until.snapshot))
        else:
            seen = str(until.snapshot), until.place.id, str(until.place.upper)
            self._add(f"({_VISIBLE} OR id <= {{}}::bigint AND {_VISIBLE})", *seen)

    def _add_fence(self, fence: Fence, home: str) -> None:
        """For the index of places, and then exactly. Where there are no places nothing is inside."""
        if home:
            shape = f"{home}.st_geomfromewkb({self.take(fence.wkb)}::bytea)"
            self.text += f" AND place OPERATOR({home}.&&) {shape} AND {home}.st_intersects(place, {shape})"
        else:
            self.text += " AND false"

    def leave_out(self, start: Cursor) -> None:
        """Not what has been seen inside the replay that `start` is a place in."""
        if start.place is not None:
            self._add(f"NOT (id <= {{}}::bigint AND {_VISIBLE})", start.place.id, str(start.place.upper))

    def choose(self, query: Query) -> None:
        """Only of the channels of `query`."""
        names = list(query.selection.channels)
        if query.selection.patterns:
            regex = patterns.union(query.selection.patterns)
            self._add("(channel = ANY({}::text[]) OR channel ~ {}::text)", names, regex)
        elif names:
            self._add("channel = ANY({}::text[])", names)


def rows_of(
    query: Query, start: Cursor, end: Cursor, behind: int, source: Source = PLAIN, *, csv: bool = False
) -> Statement:
    """All events of `query` that `end` sees and `start` does not, in order of ids, the first one above `behind`."""
    where = _Where(query, start, end, behind, source)
    where.leave_out(start)
    where.choose(query)
    limit = f"LIMIT {where.take(query.limit)}::bigint" if query.limit else ""
    columns = _csv(source) if csv else _ROWS + source.also()
    text = f"SELECT {columns} FROM {source.table} AS events WHERE {where.text} ORDER BY events.id {limit}"  # noqa: S608
    return text, where.arguments


def _csv(source: Source) -> str:
    return f"{_CSV}, {source.home}.st_asgeojson(place, 15, 0) AS place" if source.home else _CSV


def page_of(query: Query, start: Cursor, end: Cursor, behind: int, source: Source = PLAIN) -> Statement:
    """As many of them as `query` allows and there is room for; `found` counts those without regard to room."""
    where = _Where(query, start, end, behind, source)
    chosen = _chosen(query, where, source, "ASC", query.limit or 1)
    text = f"""
/* history page */
SELECT {_ROWS}{source.also()}, found FROM (
    SELECT ev.*, count(*) OVER () AS found, row_number() OVER (ORDER BY ev.id) AS number,
           sum({source.size}) OVER (ORDER BY ev.id) AS upto
      FROM ({chosen}) AS chosen JOIN {source.table} AS ev ON ev.xid = chosen.xid AND ev.id = chosen.id) AS sized
 WHERE number = 1 OR upto <= {ROOM} ORDER BY id
"""  # noqa: S608
    return text, where.arguments


def start_of(query: Query, start: Cursor, end: Cursor, source: Source = PLAIN) -> Statement:
    """The least id of the newest `query.last` events."""
    where = _Where(query, start, end, 0, source)
    chosen = _chosen(query, where, source, "DESC", query.last or 1)
    return f"/* history start */ SELECT min(id) FROM ({chosen}) AS newest", where.arguments  # noqa: S608


def _chosen(query: Query, where: _Where, source: Source, order: str, count: int) -> str:
    """The first `count` in this order: for names from the index of each, else from that of all ids."""
    if not query.selection.names or query.selection.patterns or query.fence is not None:
        where.choose(query)
        limit = where.take(count)
        return f"SELECT id, xid FROM {source.table} WHERE {where.text} ORDER BY id {order} LIMIT {limit}::bigint"  # noqa: S608
    # Not `channel =`, which goes with any index by id: with statistics Postgres takes each channel for as frequent as
    # the average, and would look for the few events of a rare one among all ids. Only one index has this order.
    names, limit = where.take(list(query.selection.names)), where.take(count)
    return f"""
        SELECT of_channel.* FROM unnest({names}::text[]) AS wanted (channel) CROSS JOIN LATERAL (
            SELECT id, xid FROM hub.events
             WHERE (events.channel, events.id) > (wanted.channel, $1::bigint) AND events.channel <= wanted.channel
               AND {where.text}
             ORDER BY events.channel {order}, id {order} LIMIT {limit}::bigint) AS of_channel
         ORDER BY id {order} LIMIT {limit}::bigint
    """  # noqa: S608
