"""The tail: reads what is new in the log, by polls while there is something, woken by the bell while there is not.

The reader remembers a snapshot: what is new is what is visible now and was not visible then. It keeps the raw one
while its connection lives; what it hands on is tightened (hub/snapshot.py says why), and so is what it goes on from
on the next connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn, Protocol

import structlog

from hub import backoff, event, snapshot
from hub.cursor import Cursor, Witness
from hub.event import Event
from hub.postgres.connect import Connection
from hub.snapshot import NOTHING

PLAN: Final = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}
"""Session settings for whoever reads the log: by its indexes, even where it was never analysed."""
SESSION: Final = PLAN | {
    # A hub that is frozen in its sleep must not make producers ring for ever.
    "idle_in_transaction_session_timeout": "90s",
    "lock_timeout": "0",
    "statement_timeout": "0",
}
BELL: Final = "hub_bell"
"""The channel that producers ring on."""

BATCH: Final = 5_000
"""Events of one read; where there are more, subscribers read them from the log by themselves."""
_BATCH_BYTES: Final = 4 << 20
_RING: Final = 10_000  # events that are looked at to fill the ring at the start
_RING_BYTES: Final = 8 << 20
_FIRST: Final = 0.002  # seconds after a read that brought something
_MINUTE: Final = 60.0  # after which a sleeper looks by itself
_DOZE_AGAIN: Final = (0.1, 5.0)  # seconds between tries to fall asleep while producers are in flight
_TIMEOUT: Final = 10.0  # for a poll
_LONG: Final = 300.0  # for the look at more than a batch, and the one at the start
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_UNSEEN: Final = """
    SELECT id, xid, channel, payload, tags, published_at FROM hub.events
     WHERE xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND xid < pg_snapshot_xmax(now.snapshot)
    UNION ALL
    SELECT ev.id, ev.xid, ev.channel, ev.payload, ev.tags, ev.published_at
      FROM pg_snapshot_xip($1::text::pg_snapshot) AS open (xid) JOIN hub.events AS ev ON ev.xid = open.xid
     WHERE pg_visible_in_snapshot(open.xid, now.snapshot)
"""
_NOW: Final = "WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot, generation, horizon FROM hub.log)"
_READ: Final = f"""
{_NOW}
SELECT now.snapshot::text, now.generation, e.id, e.xid::text::bigint AS xid, e.channel, e.tags, e.published_at,
       e.fits, CASE WHEN e.fits THEN e.payload::text END AS payload
  FROM now LEFT JOIN LATERAL (
    SELECT *, count(*) OVER () <= {BATCH} AND sum(pg_column_size(payload)) OVER () <= {_BATCH_BYTES} AS fits
      FROM ({_UNSEEN} LIMIT {BATCH} + 1) AS unseen
  ) AS e ON true
 ORDER BY e.id
"""  # noqa: S608 - made of constants
_GREATEST: Final = """
    SELECT xid::text::bigint AS xid, id, published_at FROM hub.events ORDER BY events.xid DESC, id DESC LIMIT 1
"""
_START: Final = f"""
{_NOW}
SELECT now.snapshot::text, now.generation, now.horizon::text::bigint AS horizon, w.xid, w.id, w.published_at
  FROM now LEFT JOIN LATERAL ({_GREATEST}) AS w ON true
"""  # noqa: S608
_JUMP: Final = f"""
{_NOW}
SELECT now.snapshot::text, now.generation, w.xid, w.id, w.published_at,
       (SELECT jsonb_object_agg(channel, events)
          FROM (SELECT channel, count(*) AS events FROM ({_UNSEEN}) AS unseen GROUP BY channel) AS counted) AS counts
  FROM now LEFT JOIN LATERAL ({_GREATEST}) AS w ON true
"""  # noqa: S608
_NEWEST: Final = f"""
SELECT id, xid::text::bigint AS xid, channel, tags, published_at, payload::text, whole
  FROM (SELECT *, count(*) OVER () < {_RING} AND sum(pg_column_size(payload)) OVER () <= {_RING_BYTES} AS whole,
               sum(pg_column_size(payload)) OVER (ORDER BY xid DESC, id DESC) AS bytes
          FROM (SELECT * FROM hub.events ORDER BY xid DESC, id DESC LIMIT {_RING}) AS newest) AS sized
 WHERE bytes <= {_RING_BYTES}
 ORDER BY sized.xid DESC, id DESC
"""  # noqa: S608

log = structlog.get_logger()


class Sink(Protocol):
    """Where the tail's batches go; `hub.fanout` is one."""

    def start(self, floor: Cursor, events: Sequence[Event], position: Cursor) -> None: ...
    def sink(self, events: Sequence[Event], position: Cursor) -> None: ...
    def jump(self, counts: Mapping[str, int], position: Cursor) -> None: ...
    def reset(self, position: Cursor) -> None: ...
    async def room(self) -> None: ...


class Tail:
    """Keeps `sink` up to date with the log, through lost connections.

    `connect` makes its connection. It reads every `interval` seconds at the longest; after `quiet_after` seconds
    without an event it falls asleep, as long as `hears` says that a ring on BELL would reach `wake`.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        sink: Sink,
        hears: Callable[[], bool],
        interval: float = 0.02,
        quiet_after: float = 5.0,
    ) -> None:
        self._connect = connect
        self._sink = sink
        self._hears = hears
        self._interval = interval
        self._quiet_after = quiet_after
        self._position: Cursor | None = None
        self._raw = ""  # the snapshot of the last read, as Postgres wrote it
        self._wake = asyncio.Event()
        self._started = asyncio.Event()
        self._fresh: list[asyncio.Future[None]] = []  # for those who want a read that begins after they asked
        self._attempt = 0
        self.asleep = False
        """Whether producers have to ring."""
        self.connected = False
        """Whether the last read succeeded."""
        self.trouble = "nothing was tried yet"
        """What the last connection ended with."""

    def __repr__(self) -> str:
        state = "lost" if not self.connected else "asleep" if self.asleep else "awake"
        return f"<Tail {state}>"

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    async def started(self) -> None:
        """Return when the sink knows where the log stands."""
        await self._started.wait()

    async def fresh(self) -> None:
        """Return after a read that began after this was called."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fresh.append(done)
        self.wake()
        await done

    async def run(self) -> NoReturn:
        """Tail until cancelled."""
        while True:
            try:
                await self._serve()
            except Exception as error:  # whatever it is, the next connection may be better
                self.trouble = str(error) or type(error).__name__
                log.warning("tail_lost", reason=self.trouble, attempt=self._attempt)
            self.connected = False
            await asyncio.sleep(backoff.delay(self._attempt, first=0.1, most=5.0))
            self._attempt += 1

    async def _serve(self) -> NoReturn:
        connection = await self._connect()
        try:
            connection.add_termination_listener(lambda _: self.wake())
            if connection.get_server_version().major >= 17:
                await connection.execute("SET transaction_timeout = 0")
            if self._position is None:
                await self._start(connection)
            else:
                self._raw = str(self._position.snapshot)
            await self._follow(connection)
        finally:
            connection.terminate()

    async def _follow(self, connection: Connection) -> NoReturn:
        now = asyncio.get_running_loop().time
        news_at, doze_at, tries = now(), 0.0, 0
        while True:
            self._wake.clear()
            if await self._look(connection):
                news_at, tries = now(), 0
            elif now() - news_at >= self._quiet_after and now() >= doze_at and self._hears():
                if await self._doze(connection):
                    news_at, tries = now(), 0
                    continue
                doze_at = now() + min(_DOZE_AGAIN[0] * 2**tries, _DOZE_AGAIN[1])
                tries = min(tries + 1, 10)
            # So an event waits a quarter at most of the time that lies between it and the one before.
            await self._wait(min(max(_FIRST, (now() - news_at) / 4), self._interval))

    async def _wait(self, seconds: float) -> bool:
        """Whether somebody woke us within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await self._wake.wait()
        except TimeoutError:
            return False

    # Sleep

    async def _doze(self, connection: Connection) -> bool:
        """Sleep until there is something to do; False where producers in flight keep the hub awake.

        Explicitly read committed: in a repeatable-read transaction the look after the lock would see nothing new.
        """
        while True:
            await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED", timeout=_TIMEOUT)
            try:
                if not await connection.fetchval("SELECT hub.doze()", timeout=_TIMEOUT):
                    return False
                if await self._look_aside(connection):
                    return True
                self.asleep = True
                if await self._wait(_MINUTE) and not connection.is_closed():
                    await self._look(connection)  # now, and not one round trip later
                    return True
            finally:
                self.asleep = False
                if not connection.is_closed():
                    await connection.execute("ROLLBACK", timeout=_TIMEOUT)
            if connection.is_closed():
                raise ConnectionResetError("the connection was closed")

    async def _look_aside(self, connection: Connection) -> bool:
        """A look that leaves neither a lock on hub.events nor a snapshot behind: others may change and vacuum it."""
        await connection.execute("SAVEPOINT look", timeout=_TIMEOUT)
        found = await self._look(connection)
        await connection.execute("ROLLBACK TO look", timeout=_TIMEOUT)
        return found

    # Reading

    async def _look(self, connection: Connection) -> bool:
        """Read what is new; whether there was anything."""
        await self._sink.room()
        waiting, self._fresh = self._fresh, []
        try:
            found = await self._read(connection)
        except BaseException:
            self._fresh += waiting
            raise
        self._attempt, self.connected = 0, True
        for done in waiting:
            if not done.done():
                done.set_result(None)
        return found

    async def _read(self, connection: Connection) -> bool:
        rows = await connection.fetch(_READ, self._raw, timeout=_TIMEOUT)
        first, position = rows[0], self._position
        assert position is not None
        if first["generation"] != position.generation:  # the log was emptied; what was committed since is in these rows
            position = self._position = Cursor(first["generation"], position.snapshot)
            self._sink.reset(position)
        if first["id"] is None:
            if first["snapshot"] != self._raw:
                there = self._go_to(first, position, position.witness)
                if there is not position:  # a transaction ended without an event
                    self._sink.sink([], there)
            return False
        if not first["fits"]:
            await self._jump(connection, position)
            return True
        newest = _witness(max(rows, key=lambda row: row["xid"]))
        if position.witness is not None and position.witness.xid > newest.xid:
            newest = position.witness
        self._sink.sink([_event(row) for row in rows], self._go_to(first, position, newest))
        return True

    async def _jump(self, connection: Connection, position: Cursor) -> None:
        """Go past more than a batch holds, a million rows by COPY, say.

        To hand them on one batch after the other would keep all that comes after them waiting for seconds, since
        nobody may get an event before one that its producer could have seen. So only those wait who want some of them.
        """
        row = await connection.fetchrow(_JUMP, self._raw, timeout=_LONG)
        assert row is not None
        log.info("tail_jumped", channels=len(row["counts"]), events=sum(row["counts"].values()))
        self._sink.jump(row["counts"], self._go_to(row, position, _witness(row)))

    async def _start(self, connection: Connection) -> None:
        """Learn where the log stands, and its newest events, in one snapshot."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            row = await connection.fetchrow(_START, timeout=_LONG)
            assert row is not None, "hub.log is empty"
            rows = await connection.fetch(_NEWEST, timeout=_LONG)
        # Retention has left nothing below the horizon, so that much has been seen, whatever is there.
        known = Cursor(row["generation"], NOTHING.lifted(row["horizon"]))
        position = self._go_to(row, known, None if row["xid"] is None else _witness(row))
        floor, events = _newest(rows, position, known)
        self._sink.start(floor, events, position)
        self._started.set()

    def _go_to(self, row: Any, position: Cursor, witness: Witness | None) -> Cursor:
        """Note that everything has been seen that the snapshot of `row` sees, up to `witness` or as before."""
        self._raw = row["snapshot"]
        last = max(position.snapshot.xmax - 1, witness.xid if witness else 0)
        there = Cursor(position.generation, snapshot.parse(self._raw).tightened(last), witness)
        self._position = position if there == position else there  # one value, as long as it is the same
        return self._position


def _newest(rows: Sequence[Any], position: Cursor, known: Cursor) -> tuple[Cursor, list[Event]]:
    """The newest events, of whole transactions, and the cursor that sees all others; nothing is below `known`."""
    if not rows or rows[0]["whole"]:
        return known, [_event(row) for row in reversed(rows)]
    cut = rows[-1]["xid"]  # of which there may be more
    kept = [_event(row) for row in reversed(rows) if row["xid"] != cut]
    return Cursor(position.generation, position.snapshot.tightened(cut)), kept


def _witness(row: Any) -> Witness:
    return Witness(row["xid"], row["id"], (row["published_at"] - _EPOCH) // _MICROSECOND)


def _event(row: Any) -> Event:
    return event.durable(row["xid"], row["id"], row["channel"], row["payload"], row["tags"], row["published_at"])
