"""Where the log stands: what a hub does when it arrives, and the cursor of all that is visible at a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from hub import snapshot
from hub.cursor import Cursor, Witness
from hub.postgres.connect import Connection
from hub.snapshot import NOTHING

NOW: Final = """
WITH now AS MATERIALIZED (
    SELECT pg_current_snapshot() AS snapshot, generation, era, horizon::text::bigint AS horizon, places FROM hub.log)"""
"""How a statement on the log begins: all that follows sees exactly what `now.snapshot` does."""
GREATEST: Final = """
    SELECT xid::text::bigint AS xid, id, published_at FROM hub.events ORDER BY events.xid DESC, id DESC LIMIT 1
"""
"""The witness of all that is visible."""
STANDS: Final = f"""
/* log stands */
{NOW}
SELECT now.snapshot::text, now.generation, now.era, now.horizon, w.xid, w.id, w.published_at
  FROM now LEFT JOIN LATERAL ({GREATEST}) AS w ON true
"""  # noqa: S608 - made of constants
SURVIVED: Final = """
EXISTS (SELECT FROM hub.events WHERE events.xid = asked.xid::xid8 AND id = asked.id
           AND trunc(extract(epoch FROM published_at) * 1000000)::bigint = asked.at)
OR log.horizon > asked.xid::xid8
   AND (asked.id = 0 OR log.horizon > asked.xmin::xid8
        OR COALESCE(pg_visible_in_snapshot(asked.xid::xid8, floors.floor), false))
"""
"""Whether what was `asked` for is still there: a witness, or with the id 0 all up to an xid.

What retention has taken cannot be looked up. Where it has taken more than that, beyond a cursor's xmin, its reader is
told so anyway, and gets all that is left; else it was not lost before if the floor of its era has seen it.
"""
_SURVIVED: Final = f"""
/* log survived */
SELECT log.horizon::text::bigint AS horizon, {SURVIVED} AS survived FROM hub.log AS log
 CROSS JOIN (SELECT $1::text, $2::bigint, $3::bigint, $4::text, $5::integer) AS asked (xid, id, at, xmin, era)
  LEFT JOIN hub.floors AS floors ON floors.era = asked.era
"""  # noqa: S608
_TIMEOUT: Final = 10.0
_ARRIVAL: Final = 3600.0  # a restored log is written anew
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

log = structlog.get_logger()


def witness(row: Any) -> Witness:
    return Witness(row["xid"], row["id"], (row["published_at"] - _EPOCH) // _MICROSECOND)


def position(row: Any) -> Cursor:
    """The cursor that has seen all that the row of STANDS sees.

    Retention has left nothing below the horizon, so that much has been seen, whatever is there.
    """
    seen = None if row["xid"] is None else witness(row)
    last = max(beginning(row).snapshot.xmax - 1, seen.xid if seen else 0)
    return Cursor(row["generation"], snapshot.parse(row["snapshot"]).tightened(last), seen, era=row["era"])


def beginning(row: Any) -> Cursor:
    """The cursor that has seen nothing of what the log still has."""
    return Cursor(row["generation"], NOTHING.lifted(row["horizon"]), era=row["era"])


Proof = tuple[str, int, int, str]


def proof(seen: Cursor) -> Proof | None:
    """What SURVIVED has to be asked for, so that all is there that was seen: xid, id, time, xmin. None for nothing."""
    xmin = str(seen.snapshot.xmin)
    if seen.witness is not None:
        return str(seen.witness.xid), seen.witness.id, seen.witness.at, xmin
    return (str(seen.upper.xmax - 1), 0, 0, xmin) if seen.upper.xmax > NOTHING.xmax else None


async def arrive(connection: Connection, known: Cursor | None) -> bool:
    """Begin an era; returns whether one can go on from `known`: the log still has what it has seen, and all since then.

    If it has not what was seen, Postgres has lost commits or has been restored, and gives the numbers of what is lost
    to others: then nothing that was read before means anything. What came since may have been taken by retention.
    """
    row = await connection.fetchrow("SELECT * FROM hub.arrive()", timeout=_ARRIVAL)
    assert row is not None
    if row["restored"]:
        log.warning("log_restored", hint="its events are new to this cluster, and older cursors begin anew")
    if known is None or known.generation != row["generation"]:
        return False
    asked = proof(known) or ("0", 0, 0, "0")
    found = await connection.fetchrow(_SURVIVED, *asked, known.era, timeout=_TIMEOUT)
    assert found is not None
    if found["survived"] or proof(known) is None:
        return bool(found["horizon"] <= known.snapshot.xmin)
    log.warning("commits_lost", hint="Postgres has lost what it had shown; clients read on from where it is sure")
    return False
