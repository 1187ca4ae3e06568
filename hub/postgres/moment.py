"""Where the log stands: what a hub does when it arrives, and the cursor of all that is visible at a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from hub import snapshot
from hub.cursor import Cursor, Witness
from hub.postgres.connect import Connection
from hub.snapshot import NOTHING

NOW: Final = (
    "WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot, generation, era, horizon FROM hub.log)"
)
"""How a statement on the log begins: all that follows sees exactly what `now.snapshot` does."""
GREATEST: Final = """
    SELECT xid::text::bigint AS xid, id, published_at FROM hub.events ORDER BY events.xid DESC, id DESC LIMIT 1
"""
"""The witness of all that is visible."""
STANDS: Final = f"""
{NOW}
SELECT now.snapshot::text, now.generation, now.era, now.horizon::text::bigint AS horizon, w.xid, w.id, w.published_at
  FROM now LEFT JOIN LATERAL ({GREATEST}) AS w ON true
"""  # noqa: S608 - made of constants
AGREES: Final = "trunc(extract(epoch FROM published_at) * 1000000)"
"""An event's time as a witness has it."""
_SURVIVED: Final = f"""
SELECT horizon > $1::text::xid8 OR EXISTS (
    SELECT FROM hub.events WHERE xid = $1::text::xid8 AND id = $2 AND {AGREES} = $3::bigint) FROM hub.log
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


async def arrive(connection: Connection, known: Cursor | None) -> bool:
    """Begin an era; returns whether the log still has all that `known` has seen.

    If it has not, Postgres has lost commits or has been restored, and gives the numbers of what is lost to others: then
    nothing that was read before means anything.
    """
    row = await connection.fetchrow("SELECT * FROM hub.arrive()", timeout=_ARRIVAL)
    assert row is not None
    if row["restored"]:
        log.warning("log_restored", hint="its events are new to this cluster, and older cursors begin anew")
    if known is None or known.generation != row["generation"]:
        return False
    seen = known.witness
    if seen is None or await connection.fetchval(_SURVIVED, str(seen.xid), seen.id, seen.at, timeout=_TIMEOUT):
        return True
    log.warning("commits_lost", hint="Postgres has lost what it had shown; clients read on from where it is sure")
    return False
