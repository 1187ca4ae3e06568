"""What is new in the log: the statements that find it, and the events that their rows are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from hub import event
from hub.cursor import Cursor
from hub.event import Event
from hub.postgres.moment import GREATEST, NOW

BATCH: Final = 5_000
"""Events of one read; where there are more, subscribers read them from the log by themselves."""
_BATCH_BYTES: Final = 4 << 20
_RING: Final = 10_000  # events that are looked at to fill the ring at the start
_RING_BYTES: Final = 8 << 20

_UNSEEN: Final = """
    SELECT id, xid, channel, payload, tags, published_at FROM hub.events
     WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND xid < pg_snapshot_xmax(now.snapshot)
    UNION ALL
    SELECT ev.id, ev.xid, ev.channel, ev.payload, ev.tags, ev.published_at
      FROM pg_snapshot_xip($1::text::pg_snapshot) AS open (xid) JOIN hub.events AS ev ON ev.xid = open.xid
     WHERE pg_visible_in_snapshot(open.xid, now.snapshot)
"""
READ: Final = f"""
/* tail read */
{NOW}
SELECT now.snapshot::text, now.generation, now.era, now.horizon, e.id, e.xid::text::bigint AS xid, e.channel, e.tags,
       e.published_at, e.fits, CASE WHEN e.fits THEN e.payload::text END AS payload
  FROM now LEFT JOIN LATERAL (
    SELECT *, count(*) OVER () <= {BATCH} AND sum(pg_column_size(payload)) OVER () <= {_BATCH_BYTES} AS fits
      FROM ({_UNSEEN} LIMIT {BATCH} + 1) AS unseen
  ) AS e ON true
 ORDER BY e.id
"""  # noqa: S608 - made of constants
JUMP: Final = f"""
/* tail jump */
{NOW}
SELECT now.snapshot::text, now.generation, now.era, w.xid, w.id, w.published_at,
       (SELECT jsonb_object_agg(channel, events)
          FROM (SELECT channel, count(*) AS events FROM ({_UNSEEN}) AS unseen GROUP BY channel) AS counted) AS counts
  FROM now LEFT JOIN LATERAL ({GREATEST}) AS w ON true
"""  # noqa: S608
NEWEST: Final = f"""
/* tail newest */
SELECT id, xid::text::bigint AS xid, channel, tags, published_at, payload::text, whole
  FROM (SELECT *, count(*) OVER () < {_RING} AND sum(pg_column_size(payload)) OVER () <= {_RING_BYTES} AS whole,
               sum(pg_column_size(payload)) OVER (ORDER BY xid DESC, id DESC) AS bytes
          FROM (SELECT * FROM hub.events ORDER BY xid DESC, id DESC LIMIT {_RING}) AS newest) AS sized
 WHERE bytes <= {_RING_BYTES}
 ORDER BY sized.xid DESC, id DESC
"""  # noqa: S608


def newest(rows: Sequence[Any], position: Cursor, known: Cursor) -> tuple[Cursor, list[Event]]:
    """The newest events, of whole transactions, and the cursor that sees all others; nothing is below `known`."""
    if not rows or rows[0]["whole"]:
        return known, [read(row) for row in reversed(rows)]
    cut = rows[-1]["xid"]  # of which there may be more
    kept = [read(row) for row in reversed(rows) if row["xid"] != cut]
    return position.back_at(position.snapshot.tightened(cut)), kept


def read(row: Any) -> Event:
    """The event that a row of hub.events is, its payload as text."""
    return event.durable(row["xid"], row["id"], row["channel"], row["payload"], row["tags"], row["published_at"])
