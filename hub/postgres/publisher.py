"""Events of websocket publishers: what comes in while one transaction commits shares the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, Final, NamedTuple, NoReturn

import asyncpg
import orjson
import structlog

from hub.errors import Code, CommandError, UncertainError
from hub.fence import Place
from hub.postgres.acquired import PATIENCE, acquired
from hub.postgres.connect import Connection, Pool
from hub.postgres.places import Places

_BATCH: Final = 1_000
_BATCH_BYTES: Final = 4 << 20
_QUEUE: Final = 10_000  # publishes that wait
_QUEUE_BYTES: Final = 64 << 20
_TIMEOUT: Final = 10.0  # seconds
_OFTEN: Final = 10  # callers are held back from this part of the queue on

_NOTIFY: Final = "/* publish notify */ SELECT pg_catalog.pg_notify(c, p) FROM unnest($1::text[], $2::text[]) AS t(c, p)"
_TAGS: Final = "ARRAY(SELECT pg_catalog.jsonb_array_elements_text(item.tags::jsonb))"
_ITEMS: Final = "unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS item (channel, payload, tags, place)"
_INSERT: Final = f"""
/* publish insert */
INSERT INTO hub.events (channel, payload, tags)
SELECT item.channel, item.payload::jsonb, {_TAGS} FROM {_ITEMS} ORDER BY item.place
RETURNING id
"""  # noqa: S608 - made of constants
PUBLISH: Final = f"""
/* publish */
SELECT CASE WHEN item.key IS NULL THEN hub.publish(item.channel, item.payload::jsonb, {_TAGS})
            ELSE hub.publish_once(item.channel, item.payload::jsonb, item.key, {_TAGS}) END AS id
  FROM (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
               WITH ORDINALITY AS given (channel, payload, tags, key, place) ORDER BY place) AS item
"""  # noqa: S608


@cache
def publish_placed(home: str) -> str:
    """The same with places, where PostGIS lives in `home`. An event that was published before keeps its own."""
    return f"""
/* publish */
SELECT hub.put_place(CASE WHEN item.key IS NULL THEN hub.publish(item.channel, item.payload::jsonb, {_TAGS})
                          ELSE hub.publish_once(item.channel, item.payload::jsonb, item.key, {_TAGS}) END,
                     item.spot) AS id
  FROM (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::{home}.geometry[])
               WITH ORDINALITY AS given (channel, payload, tags, key, spot, place) ORDER BY place) AS item
"""  # noqa: S608


ITEMS_FAULTS: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    asyncpg.TransactionRollbackError,
)
"""What one item can do to all that share its transaction."""
_SILENCE: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)

log = structlog.get_logger()


class _Item(NamedTuple):
    done: asyncio.Future[Any]
    channel: str
    payload: str
    tags: str = "[]"
    key: str | None = None
    place: Place | None = None

    @property
    def size(self) -> int:
        return len(self.payload) + len(self.tags) + (0 if self.place is None else len(self.place.wkb))


class Publisher:
    """Publishes through `pool`, by one transaction at a time for each tier, in the order in which it was asked to.

    Waits up to `patience` seconds for a connection, and ten for the answer.
    """

    def __init__(self, pool: Pool, *, patience: float = PATIENCE, places: Places | None = None) -> None:
        self._pool = pool
        self._notifies = _Lane(pool, patience, _notify, _once_each)
        self._inserts = _Lane(pool, patience, partial(_insert, places or Places()), list)

    def __repr__(self) -> str:
        return f"<Publisher notifies={len(self._notifies.queue)} inserts={len(self._inserts.queue)}>"

    async def room(self) -> None:
        """Return once there is room for another one."""
        await self._notifies.room.wait()
        await self._inserts.room.wait()

    def notify(self, channel: str, payload: str) -> asyncio.Future[None]:
        """Queue a NOTIFY. The future is done after the commit; it has CommandError where it failed.

        Raises CommandError (`unavailable`) when the queue is full.
        """
        return self._notifies.put(_Item(_future(), channel, payload))

    def publish(
        self,
        channel: str,
        payload: str,
        tags: Sequence[str] = (),
        key: str | None = None,
        *,
        place: Place | None = None,
    ) -> asyncio.Future[int | None]:
        """Queue an event for the log. The future has its id after the commit; otherwise as `notify`.

        A `key` that was used within 24 hours gives the id of then.
        """
        return self._inserts.put(_Item(_future(), channel, payload, orjson.dumps(tags).decode(), key, place))

    async def prove(self, channel: str) -> None:
        """Send an empty NOTIFY on `channel`, by the way that all others take."""
        await self._pool.execute("SELECT pg_catalog.pg_notify($1, '')", channel)

    async def run(self) -> NoReturn:
        """Publish what is queued, until cancelled; what is queued then fails as unavailable."""
        async with asyncio.TaskGroup() as tasks:
            for lane in (self._notifies, self._inserts):
                tasks.create_task(lane.run())
        raise AssertionError("lanes do not end")


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


class _Lane:
    """A queue and the transactions that empty it: `send` publishes a batch, `shared` says which may share one."""

    def __init__(self, pool: Pool, patience: float, send: Any, shared: Any) -> None:
        self._pool = pool
        self._patience = patience
        self._publish = send
        self._shared = shared
        self._bytes = 0
        self._filled = asyncio.Event()
        self.queue: deque[_Item] = deque()
        self.room = asyncio.Event()
        self.room.set()

    def put(self, item: _Item) -> asyncio.Future[Any]:
        if len(self.queue) >= _QUEUE or self._bytes >= _QUEUE_BYTES:
            raise CommandError(Code.UNAVAILABLE, "Too many events wait to be published; try again.")
        self.queue.append(item)
        self._bytes += item.size
        self._filled.set()
        self._measure()
        return item.done

    def _measure(self) -> None:
        if len(self.queue) >= _QUEUE // _OFTEN or self._bytes >= _QUEUE_BYTES // _OFTEN:
            self.room.clear()
        else:
            self.room.set()

    async def run(self) -> NoReturn:
        try:
            while True:
                await self._filled.wait()
                await self._send(self._take())
        finally:
            for item in self.queue:
                item.done.cancel()

    def _take(self) -> list[_Item]:
        """The next batch."""
        size, count = 0, 0
        for item in self.queue:
            size += item.size
            if count and (size > _BATCH_BYTES or count == _BATCH):
                break
            count += 1
        batch: list[_Item] = self._shared([self.queue[index] for index in range(count)])
        for item in batch:
            self.queue.popleft()
            self._bytes -= item.size
        if not self.queue:
            self._filled.clear()
        self._measure()
        return batch

    async def _send(self, batch: list[_Item]) -> None:
        """One transaction for all; where that fails, each on its own, so that one bad item harms no other."""
        try:
            async with acquired(self._pool, self._patience) as connection, asyncio.timeout(_TIMEOUT):
                ids = await self._publish(connection, batch)
        except (CommandError, *ITEMS_FAULTS) as error:
            if isinstance(error, CommandError) and error.code is Code.UNAVAILABLE:  # there is no connection
                log.warning("publish_failed", events=len(batch), error=error.message)
                for item in batch:
                    _finish(item, error=CommandError(error.code, error.message))
            elif len(batch) > 1:
                for item in batch:
                    await self._send([item])
            else:
                _finish(batch[0], error=refusal(error))
        except Exception as error:  # asyncpg's own state errors too, where a connection died in the middle
            log.warning("publish_failed", events=len(batch), error=str(error) or type(error).__name__)
            for item in batch:
                _finish(item, error=uncertain() if is_silence(error) else refusal(error))
        except BaseException:  # cancelled in the middle: nobody knows whether it was committed
            for item in batch:
                item.done.cancel()
            raise
        else:
            for item, number in zip(batch, ids, strict=True):
                _finish(item, number)


def _once_each(items: list[_Item]) -> list[_Item]:
    """The first of `items`, up to one that stands among them already.

    Postgres folds equal notifications of one transaction into one: of two clients that both say "hello", one would go
    unheard.
    """
    seen: set[tuple[str, str]] = set()
    for item in items:
        if (item.channel, item.payload) in seen:
            break
        seen.add((item.channel, item.payload))
    return items[: len(seen)]


async def _notify(connection: Connection, batch: list[_Item]) -> list[None]:
    await connection.execute(_NOTIFY, [item.channel for item in batch], [item.payload for item in batch])
    return [None] * len(batch)


async def _insert(places: Places, connection: Connection, batch: list[_Item]) -> list[int]:
    columns = [item.channel for item in batch], [item.payload for item in batch], [item.tags for item in batch]
    keys = [item.key for item in batch]
    spots = [item.place for item in batch]
    if any(spot is not None for spot in spots):
        rows = await connection.fetch(publish_placed(places.needed()), *columns, keys, spots)
    elif any(key is not None for key in keys):
        rows = await connection.fetch(PUBLISH, *columns, keys)
    else:
        rows = await connection.fetch(_INSERT, *columns)
    return [row["id"] for row in rows]


def refusal(error: Exception) -> CommandError:
    """What the one who published it is told."""
    match error:
        case CommandError():
            return error
        case asyncpg.CheckViolationError() if getattr(error, "constraint_name", "") in ("payload_fits", "tags_fit"):
            return CommandError(Code.TOO_LARGE, "`payload` or `tags` is over the limit, as Postgres writes it.")
        case asyncpg.DataError() | asyncpg.IntegrityConstraintViolationError() | asyncpg.ProgramLimitExceededError():
            reason = " ".join(str(error).split()).rstrip(".")  # details stand on lines of their own
            return CommandError(Code.BAD_REQUEST, f"Postgres refuses the event: {reason}.")
        case _:
            return CommandError(Code.UNAVAILABLE, "Postgres did not take the event; try again.")


def is_silence(error: Exception) -> bool:
    """Whether `error` says nothing of what Postgres has done, or goes on to do."""
    return isinstance(error, _SILENCE)


def uncertain() -> UncertainError:
    """What is told of a commit that nothing was heard of."""
    text = "The connection to Postgres was lost; the event may have been published or not. Only with a `key` try again."
    return UncertainError(Code.UNAVAILABLE, text)


def _finish(item: _Item, number: int | None = None, *, error: CommandError | None = None) -> None:
    if item.done.done():
        return
    if error is None:
        item.done.set_result(number)
    else:
        item.done.set_exception(error)
