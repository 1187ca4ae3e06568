"""The tail: reads what is new in the log, by polls while there is something, woken by the bell while there is not.

The reader remembers a snapshot: what is new is what is visible now and was not visible then. It keeps the raw one
while its connection lives; what it hands on is tightened (hub/snapshot.py says why), and so is what it goes on from
on the next connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, Protocol

import structlog

from hub import backoff, snapshot
from hub.cursor import Cursor, Witness
from hub.event import Event
from hub.postgres import moment, unseen
from hub.postgres.connect import Connection
from hub.postgres.moment import STANDS
from hub.postgres.places import Places

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

_FIRST: Final = 0.002  # seconds after a read that brought something
_MINUTE: Final = 60.0  # after which a sleeper looks by itself
_DOZE_AGAIN: Final = (0.1, 5.0)  # seconds between tries to fall asleep while producers are in flight
_TIMEOUT: Final = 10.0  # for a poll
_LONG: Final = 300.0  # for the look at more than a batch, and the one at the start
_FLOOR: Final = 10.0  # seconds at the least between two floors

_SET_FLOOR: Final = "/* tail floor */ SELECT hub.set_floor($1::text::pg_snapshot, $2::bigint[])"

log = structlog.get_logger()


class Sink(Protocol):
    """Where the tail's batches go; `hub.fanout` is one."""

    def start(self, floor: Cursor, events: Sequence[Event], position: Cursor) -> None: ...
    def restart(self, floor: Cursor, events: Sequence[Event], position: Cursor) -> None: ...
    def sink(self, events: Sequence[Event], position: Cursor) -> None: ...
    def jump(self, counts: Mapping[str, int], position: Cursor) -> None: ...
    def reset(self, position: Cursor) -> None: ...
    async def room(self) -> None: ...


class Tail:
    """Keeps `sink` up to date with the log, through lost connections.

    `connect` makes its connection. It reads every `interval` seconds at the longest; after `quiet_after` seconds
    without an event it falls asleep, as long as `hears` says that a ring on BELL would reach `wake`. `places` follows
    the log by it.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        sink: Sink,
        hears: Callable[[], bool],
        interval: float = 0.02,
        quiet_after: float = 5.0,
        places: Places | None = None,
    ) -> None:
        self._connect = connect
        self._sink = sink
        self._hears = hears
        self._interval = interval
        self._quiet_after = quiet_after
        self._places = places or Places()
        self._position: Cursor | None = None
        self._floor: Cursor | None = None  # the last that was noted
        self._horizon = 0  # the log's, at the last read
        self._raw = ""  # the snapshot of the last read, as Postgres wrote it
        self._wake = asyncio.Event()
        self._started = asyncio.Event()
        self._fresh: list[asyncio.Future[None]] = []  # for those who want a read that begins after they asked
        self._attempt = 0
        self.asleep = False
        """Whether producers have to ring."""
        self.connected = False
        """Whether the last read succeeded."""
        self.looked_at: float | None = None
        """When the last read ended that succeeded, on the monotonic clock."""
        self.lag: float | None = None
        """How many seconds the newest event was old that the last read brought which brought any."""
        self.news_at = 0.0
        """When that was, on the monotonic clock."""
        self.rings = 0
        """How often producers have rung."""
        self.trouble = "nothing was tried yet"
        """What the last connection ended with."""

    def __repr__(self) -> str:
        state = "lost" if not self.connected else "asleep" if self.asleep else "awake"
        return f"<Tail {state}>"

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def ring(self) -> None:
        """A producer has rung: look at once."""
        self.rings += 1
        self.wake()

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
            known = self._position
            arrived = await moment.arrive(connection, known)
            await self._places.follow(connection, await self._places.look(connection))
            if arrived and known is not None:
                self._raw, self._horizon = str(known.snapshot), 0
            else:
                await self._start(connection, self._sink.start if known is None else self._sink.restart)
            await self._follow(connection)
        finally:
            connection.terminate()

    async def _follow(self, connection: Connection) -> NoReturn:
        now = asyncio.get_running_loop().time
        news_at, doze_at, floor_at, tries = now(), 0.0, 0.0, 0
        while True:
            self._wake.clear()
            if now() >= floor_at and await self._set_floor(connection):
                floor_at = now() + _FLOOR
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

    async def _set_floor(self, connection: Connection) -> bool:
        """Note how far the log was read, if that is news: what this connection has seen, no later one can find lost.

        On another connection it might be after a crash that has taken some of it back.
        """
        if self._floor is self._position or self._position is None:
            return False
        floor, seen = self._position, self._position.witness
        witness = None if seen is None else [seen.xid, seen.id, seen.at]
        noted: bool = await connection.fetchval(_SET_FLOOR, str(floor.snapshot), witness, timeout=_TIMEOUT)
        if noted:
            self._floor = floor
        return noted

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
                if not await connection.fetchval("/* tail doze */ SELECT hub.doze()", timeout=_TIMEOUT):
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
        self.looked_at = time.monotonic()
        for done in waiting:
            if not done.done():
                done.set_result(None)
        return found

    async def _read(self, connection: Connection) -> bool:
        rows = await connection.fetch(self._places.choose(unseen.READ, unseen.READ_PLACED), self._raw, timeout=_TIMEOUT)
        first, position = rows[0], self._position
        assert position is not None
        if self._places.are_news(first["places"]):
            await self._places.follow(connection, first["places"])
            return await self._read(connection)
        if first["horizon"] != self._horizon:
            self._horizon = first["horizon"]
            if self._horizon > snapshot.parse(self._raw).xmin:  # the next connection finds that, and starts again
                raise ConnectionAbortedError("retention has taken what was not read yet")
        if first["generation"] != position.generation:  # the log was emptied; what was committed since is in these rows
            position = self._position = Cursor(first["generation"], position.snapshot, era=first["era"])
            self._sink.reset(position)
        if first["id"] is None:
            if first["snapshot"] != self._raw:
                there = self._go_to(first, position, position.witness)
                if there is not position:  # a transaction ended without an event, or another hub began an era
                    self._sink.sink([], there)
            return False
        if not first["fits"]:
            await self._jump(connection, position)
            return True
        self.lag, self.news_at = max(0.0, time.time() - rows[-1]["published_at"].timestamp()), time.monotonic()
        newest = moment.witness(max(rows, key=lambda row: row["xid"]))
        if position.witness is not None and position.witness.xid > newest.xid:
            newest = position.witness
        self._sink.sink([self._places.read(row) for row in rows], self._go_to(first, position, newest))
        return True

    async def _jump(self, connection: Connection, position: Cursor) -> None:
        """Go past more than a batch holds, a million rows by COPY, say.

        To hand them on one batch after the other would keep all that comes after them waiting for seconds, since
        nobody may get an event before one that its producer could have seen. So only those wait who want some of them.
        """
        row = await connection.fetchrow(unseen.JUMP, self._raw, timeout=_LONG)
        assert row is not None
        log.info("tail_jumped", channels=len(row["counts"]), events=sum(row["counts"].values()))
        self._sink.jump(row["counts"], self._go_to(row, position, moment.witness(row)))

    async def _start(self, connection: Connection, start: Callable[[Cursor, Sequence[Event], Cursor], None]) -> None:
        """Learn where the log stands, and its newest events, in one snapshot."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            row = await connection.fetchrow(STANDS, timeout=_LONG)
            assert row is not None, "hub.log is empty"
            rows = await connection.fetch(self._places.choose(unseen.NEWEST, unseen.NEWEST_PLACED), timeout=_LONG)
        self._raw, self._horizon, self._position = row["snapshot"], row["horizon"], moment.position(row)
        floor, events = unseen.newest(rows, self._position, moment.beginning(row), self._places.read)
        start(floor, events, self._position)
        self.connected, self.looked_at = True, time.monotonic()
        self._started.set()

    def _go_to(self, row: Any, position: Cursor, witness: Witness | None) -> Cursor:
        """Note that everything has been seen that the snapshot of `row` sees, up to `witness` or as before."""
        self._raw = row["snapshot"]
        last = max(position.snapshot.xmax - 1, witness.xid if witness else 0)
        there = Cursor(position.generation, snapshot.parse(self._raw).tightened(last), witness, era=row["era"])
        self._position = position if there == position else there  # one value, as long as it is the same
        return self._position
