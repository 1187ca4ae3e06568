"""What is new in the log: the statements that find it, and the events that their rows are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from hub import event
from hub.cursor import Cursor
from hub.event import Event
from hub.postgres.moment import GREATEST, NOW
from hub.postgres.source import PLACED, PLAIN, Source

BATCH: Final = 5_000
"""Events of one read; where there are more, subscribers read them from the log by themselves."""
_BATCH_BYTES: Final = 4 << 20
_RING: Final = 10_000  # events that are looked at to fill the ring at the start
_RING_BYTES: Final = 8 << 20


def _unseen(source: Source) -> str:
    columns = f"ev.id, ev.xid, ev.channel, ev.payload, ev.tags, ev.published_at{source.also('ev.')}"
    return f"""
    SELECT {columns} FROM {source.table} AS ev
     WHERE ev.xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND ev.xid < pg_snapshot_xmax(now.snapshot)
    UNION ALL
    SELECT {columns}
      FROM pg_snapshot_xip($1::text::pg_snapshot) AS open (xid) JOIN {source.table} AS ev ON ev.xid = open.xid
     WHERE pg_visible_in_snapshot(open.xid, now.snapshot)
"""  # noqa: S608 - made of constants, as all here


def _read(source: Source) -> str:
    return f"""
/* tail read */
{NOW}
SELECT now.snapshot::text, now.generation, now.era, now.horizon, now.places, e.id, e.xid::text::bigint AS xid,
       e.channel, e.tags, e.published_at, e.fits, CASE WHEN e.fits THEN e.payload::text END AS payload
       {"".join(f", CASE WHEN e.fits THEN e.{column} END AS {column}" for column in source.columns)}
  FROM now LEFT JOIN LATERAL (
    SELECT *, count(*) OVER () <= {BATCH} AND sum({source.size}) OVER () <= {_BATCH_BYTES} AS fits
      FROM ({_unseen(source)} LIMIT {BATCH} + 1) AS unseen
  ) AS e ON true
 ORDER BY e.id
"""  # noqa: S608


def _newest(source: Source) -> str:
    return f"""
/* tail newest */
SELECT id, xid::text::bigint AS xid, channel, tags, published_at, payload::text, whole{source.also()}
  FROM (SELECT *, count(*) OVER () < {_RING} AND sum({source.size}) OVER () <= {_RING_BYTES} AS whole,
               sum({source.size}) OVER (ORDER BY xid DESC, id DESC) AS bytes
          FROM (SELECT * FROM {source.table} ORDER BY xid DESC, id DESC LIMIT {_RING}) AS newest) AS sized
 WHERE bytes <= {_RING_BYTES}
 ORDER BY sized.xid DESC, id DESC
"""  # noqa: S608


READ: Final = _read(PLAIN)
READ_PLACED: Final = _read(PLACED)
JUMP: Final = f"""
/* tail jump */
{NOW}
SELECT now.snapshot::text, now.generation, now.era, w.xid, w.id, w.published_at,
       (SELECT jsonb_object_agg(channel, events) FROM (
          SELECT channel, count(*) AS events FROM ({_unseen(PLAIN)}) AS unseen GROUP BY channel) AS counted) AS counts
  FROM now LEFT JOIN LATERAL ({GREATEST}) AS w ON true
"""  # noqa: S608
NEWEST: Final = _newest(PLAIN)
NEWEST_PLACED: Final = _newest(PLACED)

Read = Callable[[Any], Event]


def newest(rows: Sequence[Any], position: Cursor, known: Cursor, read: Read) -> tuple[Cursor, list[Event]]:
    """The newest events, of whole transactions, and the cursor that sees all others; nothing is below `known`."""
    if not rows or rows[0]["whole"]:
        return known, [read(row) for row in reversed(rows)]
    cut = rows[-1]["xid"]  # of which there may be more
    kept = [read(row) for row in reversed(rows) if row["xid"] != cut]
    return position.back_at(position.snapshot.tightened(cut)), kept


def read(row: Any) -> Event:
    """The event that a row of hub.events is, its payload as text."""
    return event.durable(row["xid"], row["id"], row["channel"], row["payload"], row["tags"], row["published_at"])
