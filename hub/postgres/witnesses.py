"""Witnesses: whether the log still has what cursors of other eras have seen, and else from where to go on.

Postgres can lose commits that were seen, by a crash with synchronous_commit off or the promotion of a standby that was
behind, and then gives their xids and ids to others. If the event with the greatest xid that was seen is still there,
no lower xid was given out again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from hub import snapshot
from hub.cursor import Cursor, Witness
from hub.page import Page
from hub.postgres import moment
from hub.postgres.connect import Connection
from hub.postgres.moment import SURVIVED, Proof
from hub.snapshot import NOTHING

_MOST: Final = 1_000  # in one statement
_KEPT: Final = 10_000  # answers
_TIMEOUT: Final = 30.0
# An era that is not known, neither as ended nor as the one that lasts, was lost itself, or is too old to be kept.
_LOOK: Final = f"""
/* replay verify */
SELECT {SURVIVED} AS there,
       floors.era IS NOT NULL AS known, floors.floor::text AS floor, floors.witness
  FROM hub.log AS log
 CROSS JOIN unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::integer[])
            WITH ORDINALITY AS asked (xid, id, at, xmin, era, place)
  LEFT JOIN (SELECT era, floor, witness FROM hub.floors UNION ALL SELECT era, floor, witness FROM hub.log) AS floors
    ON floors.era = asked.era
 ORDER BY asked.place
"""  # noqa: S608 - made of constants

_Key = tuple[int, Proof, int]  # the era that asks, what for, and the era that this is of


class Witnesses:
    """Looks them up by `fetch`, all at once that are asked for while a look is under way."""

    def __init__(self, fetch: Callable[..., Awaitable[list[Any]]]) -> None:
        self._fetch = fetch
        self._asked: dict[_Key, asyncio.Future[Any]] = {}  # not looked up yet
        self._answers: dict[_Key, Any] = {}  # what is there in an era stays: when retention takes it, that is known
        self._task: asyncio.Task[None] | None = None

    async def verify(self, position: Cursor, era: int) -> Page:
        """`position` in `era`, if the log has what it has seen, else where to go on, with the gap's reason.

        Raises OSError while the log cannot be read.
        """
        proof = moment.proof(position)
        if proof is None:
            return Page([], position.of(era))
        key = era, proof, position.era
        row: Any = self._answers.get(key) or await asyncio.shield(self._ask(key))
        return _judged(row, position, era)

    def _ask(self, key: _Key) -> asyncio.Future[Any]:
        if key not in self._asked:
            self._asked[key] = asyncio.get_running_loop().create_future()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look(), name="witnesses")
        return self._asked[key]

    async def _look(self) -> None:
        while self._asked:
            batch = dict(list(self._asked.items())[:_MOST])
            for key in batch:
                del self._asked[key]
            try:
                rows = await self._fetch(_LOOK, *_asked((proof, era) for _, proof, era in batch))
            except BaseException as error:
                failure = error if isinstance(error, OSError) else ConnectionError("the look was given up")
                for answer in batch.values():
                    _fail(answer, failure)
                if not isinstance(error, OSError):
                    raise
            else:
                if len(self._answers) > _KEPT:
                    self._answers.clear()
                for (key, answer), row in zip(batch.items(), rows, strict=True):
                    self._answers[key] = row
                    answer.set_result(row)


async def verify(connection: Connection, position: Cursor, era: int) -> Page:
    """The same on a connection of the caller's, in its transaction; raises what that raises."""
    proof = moment.proof(position)
    if proof is None:
        return Page([], position.of(era))
    (row,) = await connection.fetch(_LOOK, *_asked([(proof, position.era)]), timeout=_TIMEOUT)
    return _judged(row, position, era)


def _asked(several: Iterable[tuple[Proof, int]]) -> list[list[Any]]:
    """The arguments of _LOOK: a list for each of its columns."""
    return [list(column) for column in zip(*((*proof, era) for proof, era in several), strict=True)]


def _judged(row: Any, position: Cursor, era: int) -> Page:
    if row["there"]:
        return Page([], position.of(era))
    if not row["known"]:
        return Page([], position.fallen_back(NOTHING, None, era), gap="reset")
    floor = snapshot.parse(row["floor"]) if row["floor"] else NOTHING
    witness = Witness(*row["witness"]) if row["witness"] else None
    return Page([], position.fallen_back(floor, witness, era), gap="failover")


def _fail(answer: asyncio.Future[Any], failure: OSError) -> None:
    answer.set_exception(failure)
    answer.exception()  # whoever asked may be gone, and then nobody else looks at it
