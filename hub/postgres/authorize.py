"""`hub.authorize`: a function that the database's owner may define, and that is asked what tokens alone would allow.

    CREATE FUNCTION hub.authorize(claims jsonb, action text, channel text) RETURNS boolean …

`claims` are the token's, `action` is `subscribe` or `publish`, `channel` is a channel, or a pattern that is asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from typing import Final

import asyncpg
import structlog

from hub.errors import Code, CommandError
from hub.postgres.acquired import FAILURES, acquired
from hub.postgres.connect import Connection, Pool

_LOOK_EVERY: Final = 60.0  # seconds until a function that was defined meanwhile is found
_GONE_AFTER: Final = 30.0  # seconds for which one that existed is missed before it counts as gone
_TIMEOUT: Final = 5.0  # seconds for an answer
_TELL_EVERY: Final = 1.0  # seconds between two failures that the log is told of
_MOST: Final = 10_000  # answers that are kept
_EXISTS: Final = """
/* authorize look */
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proname OPERATOR(pg_catalog.=) 'authorize'
                  AND pronamespace OPERATOR(pg_catalog.=) 'hub'::pg_catalog.regnamespace)
"""
_ASK: Final = """
/* authorize */
SELECT asked.channel FROM pg_catalog.unnest($3::pg_catalog.text[]) AS asked (channel)
 WHERE hub.authorize($1::pg_catalog.text::pg_catalog.jsonb, $2::pg_catalog.text, asked.channel) IS NOT TRUE
"""
_OWN: Final = "RESET SESSION AUTHORIZATION"  # and the role with it: what the function has set would last
# Where the next try may well end otherwise.
_PASSING: Final = (
    OSError,  # a TimeoutError is one
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)

log = structlog.get_logger()


class Authorizing:
    """Asks the function, where there is one, and keeps each answer for `keep` seconds.

    Questions take half of the pool at the most, so that a slow function holds up nobody else.
    """

    def __init__(self, pool: Pool, *, keep: float) -> None:
        self._pool = pool
        self._keep = keep
        self._slots = asyncio.Semaphore(max(1, pool.get_max_size() // 2))
        self._answers: dict[tuple[bytes, str, str], tuple[bool, float]] = {}  # with the loop time they are good until
        self._missed: float | None = None  # loop time of the look since which it is not there any more
        self._told = -math.inf  # loop time of the last failure that the log was told of
        self.exists = False

    async def run(self) -> None:
        """Look now and then whether there is such a function."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                await self.look()
            except CommandError as error:
                log.warning("authorize_not_looked_for", reason=error.message)

    async def look(self) -> None:
        """Find out whether there is one. Raises CommandError (`unavailable`) where that cannot be known.

        One of that name which takes or returns something else counts, too: it cannot be asked, so all is refused. One
        that existed counts as gone when two looks have missed it with half a minute between: somebody may be about to
        define it anew.
        """
        async with acquired(self._pool, _TIMEOUT) as connection:
            try:
                found = await connection.fetchval(_EXISTS, timeout=_TIMEOUT)
            except FAILURES as error:
                raise CommandError(Code.UNAVAILABLE, f"Postgres does not answer: {error}.") from error
        now = asyncio.get_running_loop().time()
        self._missed = None if found or not self.exists else self._missed or now
        exists = found or (self._missed is not None and now < self._missed + _GONE_AFTER)
        if exists != self.exists:
            log.info("authorize_found" if exists else "authorize_gone")
        self.exists = exists

    async def refused(self, claims: str, action: str, names: Sequence[str]) -> list[str]:
        """Those of `names` that the function does not say yes to, which are none where there is no function.

        Raises CommandError where it cannot say: `forbidden` where it fails, `unavailable` where it may answer later.
        """
        if not self.exists:
            return []
        who = hashlib.sha256(claims.encode()).digest()
        now = asyncio.get_running_loop().time()
        known = {name: kept[0] for name in names if (kept := self._answers.get((who, action, name))) and kept[1] > now}
        asked = [name for name in names if name not in known]
        if asked:
            refused = frozenset(await self._ask(claims, action, asked))
            self._remember(who, action, {name: name not in refused for name in asked})
            known |= {name: name not in refused for name in asked}
        return [name for name in names if not known[name]]

    async def _ask(self, claims: str, action: str, names: Sequence[str]) -> list[str]:
        try:
            async with asyncio.timeout(_TIMEOUT), self._slots, acquired(self._pool, _TIMEOUT) as connection:
                return [row["channel"] for row in await _asked(connection, claims, action, names)]
        except asyncpg.UndefinedFunctionError as error:
            await self.look()  # it may have been dropped
            if not self.exists:
                return []
            if self._missed is not None:
                message = "hub.authorize is not there any more; try again."
                raise CommandError(Code.UNAVAILABLE, message, channels=tuple(names)) from error
            raise self._failed(error, names) from error
        except FAILURES as error:
            raise self._failed(error, names) from error

    def _failed(self, error: Exception, names: Sequence[str]) -> CommandError:
        """The refusal. What went wrong in there is for the log alone, and not more often than anybody reads it."""
        now = asyncio.get_running_loop().time()
        if now > self._told + _TELL_EVERY:
            self._told = now
            log.warning("authorize_failed", channels=names[:10], reason=str(error), kind=type(error).__name__)
        if isinstance(error, _PASSING):
            return CommandError(Code.UNAVAILABLE, "hub.authorize does not answer; try again.", channels=tuple(names))
        return CommandError(Code.FORBIDDEN, "hub.authorize has failed; the hub's log says why.", channels=tuple(names))

    def _remember(self, who: bytes, action: str, answers: dict[str, bool]) -> None:
        if not self._keep:
            return
        until = asyncio.get_running_loop().time() + self._keep
        for name, answer in answers.items():
            self._answers.pop((who, action, name), None)  # so that the oldest is the first
            self._answers[who, action, name] = answer, until
        while len(self._answers) > _MOST:
            del self._answers[next(iter(self._answers))]


async def _asked(connection: Connection, claims: str, action: str, names: Sequence[str]) -> list[asyncpg.Record]:
    """What is refused. Whatever role the function sets is reset, by the transaction where it fails.

    Who gives up does not wait for a function that cannot be cancelled: the connection is ended with it.
    """
    transaction = connection.transaction()
    try:
        await transaction.start()
        found = await connection.fetch(_ASK, claims, action, names)
        await connection.execute(_OWN)
        await transaction.commit()
    except asyncio.CancelledError:
        connection.terminate()
        raise
    except FAILURES:
        try:
            await transaction.rollback()
        except FAILURES:
            connection.terminate()
        raise
    return list(found)
