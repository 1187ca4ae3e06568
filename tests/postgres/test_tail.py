"""The tail and its bell, against a real Postgres: each committed event once, whoever sleeps or dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hub.cursor import Cursor
from hub.event import Event
from hub.postgres import postmaster, unseen
from hub.postgres import tail as tails
from hub.postgres.connect import Connection, Target, connect, connect_listening
from hub.postgres.embedded import Embedded
from hub.postgres.listener import Listener
from hub.postgres.listening import ListeningConnection
from hub.postgres.migrate import migrate
from hub.postgres.tail import BELL, SESSION, Tail
from tests.postgres.conftest import opened

PATIENCE = 20.0
SQL = Path(__file__).parent.parent.parent / "sql"


class Sunk:
    """What a tail handed on, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.jumps: list[Mapping[str, int]] = []
        self.resets = self.restarts = 0
        self.floor: Cursor
        self.position: Cursor
        self._news = asyncio.Event()

    def start(self, floor: Cursor, events: Sequence[Event], position: Cursor) -> None:
        self.floor, self.position = floor, position
        self.before = list(events)

    def restart(self, floor: Cursor, events: Sequence[Event], position: Cursor) -> None:
        self.restarts += 1
        self.start(floor, events, position)
        self._news.set()

    def sink(self, events: Sequence[Event], position: Cursor) -> None:
        assert all(not self.position.snapshot.sees(each.xid) and position.snapshot.sees(each.xid) for each in events)
        self.events += events
        self.position = position
        self._news.set()

    def jump(self, counts: Mapping[str, int], position: Cursor) -> None:
        self.jumps.append(counts)
        self.position = position
        self._news.set()

    def reset(self, position: Cursor) -> None:
        self.resets += 1
        self.position = position
        self._news.set()

    async def room(self) -> None:
        return

    @property
    def ids(self) -> list[int]:
        return [each.id for each in self.events]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def has(self, *ids: int) -> None:
        await self.until(lambda: set(ids) <= set(self.ids))


class Reader:
    """A tail at work, as a hub has one, with a listener that hears the bell."""

    def __init__(self, dsn: str, **options: Any) -> None:
        self.sunk = Sunk()
        self.target = Target(dsn)
        self.session = dict(SESSION) | options.pop("session", {})
        self.deaf = asyncio.Event()  # set: the listener finds no way to Postgres
        self.connections: list[Any] = []
        self.listener = Listener(
            self._listening, on_batch=lambda _: self.tail.wake(), on_gap=print, on_lost=lambda: self.tail.wake()
        )
        self.listener.hold(BELL)
        hears = lambda: self.listener.connected and BELL in self.listener.channels  # noqa: E731
        self.tail = Tail(self._tailing, sink=self.sunk, hears=hears, **{"quiet_after": 0.05} | options)

    async def _tailing(self) -> Connection:
        self.connections.append(await connect(self.target, purpose="tail", settings=self.session))
        return self.connections[-1]

    async def _listening(self) -> ListeningConnection:
        if self.deaf.is_set():
            raise OSError("deaf")
        return await connect_listening(self.target)

    async def asleep(self) -> None:
        """Return when it sleeps; nothing signals that, since nobody else needs to know."""
        async with asyncio.timeout(PATIENCE):
            while not self.tail.asleep:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def reading(dsn: str, **options: Any) -> AsyncIterator[Reader]:
    reader = Reader(dsn, **options)
    tasks = [asyncio.create_task(reader.listener.run()), asyncio.create_task(reader.tail.run())]
    try:
        async with asyncio.timeout(PATIENCE):
            await reader.tail.started()
        yield reader
        assert not [task for task in tasks if task.done()]
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


@pytest.fixture
async def another(database: str) -> AsyncIterator[Callable[[], Awaitable[asyncpg.Connection]]]:
    """Opens further connections for producers."""
    async with AsyncExitStack() as stack:

        async def make() -> asyncpg.Connection:
            return await stack.enter_async_context(opened(Target(database)))

        yield make


async def publish(connection: Connection, channel: str = "a") -> int:
    number = await connection.fetchval("SELECT hub.publish($1, '1')", channel)
    assert isinstance(number, int)
    return number


# What is read


async def test_what_is_committed_is_read_once_and_what_is_rolled_back_never(
    database: str, connection: Connection
) -> None:
    async with reading(database) as reader:
        first = await publish(connection)
        await connection.execute("BEGIN")
        await publish(connection)
        await connection.execute("ROLLBACK")
        last = await publish(connection)
        await reader.sunk.has(last)
        assert reader.sunk.ids == [first, last]


async def test_a_transaction_that_commits_late_is_read_late_and_not_missed(
    database: str, connection: Connection, another: Any
) -> None:
    late = await another()
    async with reading(database) as reader:
        await late.execute("BEGIN")
        early = await publish(late)
        then = await publish(connection)
        await reader.sunk.has(then)
        await late.execute("COMMIT")
        await reader.sunk.has(early)
        assert reader.sunk.ids == [then, early]


async def test_a_hub_that_starts_between_two_commits_reads_the_second(
    database: str, connection: Connection, another: Any
) -> None:
    late = await another()
    await late.execute("BEGIN")
    early = await publish(late)
    before = await publish(connection)
    async with reading(database) as reader:
        assert [each.id for each in reader.sunk.before] == [before]
        await late.execute("COMMIT")
        await reader.sunk.has(early)
        assert reader.sunk.ids == [early]


async def test_a_transaction_that_ends_without_an_event_leaves_the_cursor(
    database: str, connection: Connection, another: Any
) -> None:
    """What is still open in a cursor keeps its log from being deleted unannounced: it has to go when it ends."""
    idle = await another()
    await idle.execute("BEGIN; SELECT pg_current_xact_id()")
    async with reading(database) as reader:
        await reader.sunk.has(await publish(connection))
        assert len(reader.sunk.position.snapshot.xip) == 1
        await idle.execute("ROLLBACK")
        await reader.sunk.until(lambda: not reader.sunk.position.snapshot.xip)


async def test_more_than_a_batch_is_jumped_over(database: str, connection: Connection) -> None:
    async with reading(database) as reader:
        await connection.execute(
            "INSERT INTO hub.events (channel, payload) SELECT 'c' || n % 3, '1' FROM generate_series(1, $1::int) AS n",
            unseen.BATCH + 1,
        )
        await reader.sunk.until(lambda: reader.sunk.jumps)
        assert reader.sunk.jumps == [{"c0": 1667, "c1": 1667, "c2": 1667}]
        last = await publish(connection)
        await reader.sunk.has(last)
        assert reader.sunk.ids == [last]


async def test_a_few_large_events_are_more_than_a_batch_too(database: str, connection: Connection) -> None:
    async with reading(database) as reader:
        await connection.execute(
            "INSERT INTO hub.events (channel, payload) "
            "SELECT 'large', to_jsonb(repeat('x', 700000)) FROM generate_series(1, 10)"
        )
        await reader.sunk.until(lambda: reader.sunk.jumps)
        assert reader.sunk.ids == []


async def test_the_newest_events_fill_the_ring_at_the_start(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await publish(connection) for _ in range(20)]
    async with reading(database) as reader:
        assert [each.id for each in reader.sunk.before] == ids
        assert not any(reader.sunk.floor.snapshot.sees(each.xid) for each in reader.sunk.before)
    monkeypatch.setattr(unseen, "NEWEST", unseen.NEWEST.replace("10000", "8"))
    async with reading(database) as reader:
        assert [each.id for each in reader.sunk.before] == ids[-7:], "the oldest transaction may not be there whole"
        assert not any(reader.sunk.floor.snapshot.sees(each.xid) for each in reader.sunk.before)
        assert reader.sunk.floor.snapshot.sees(reader.sunk.before[0].xid - 1)


async def test_a_truncate_is_told_and_what_follows_it_is_read(database: str, connection: Connection) -> None:
    async with reading(database) as reader:
        await reader.sunk.has(await publish(connection))
        generation = reader.sunk.position.generation
        await connection.execute("TRUNCATE hub.events")
        await reader.sunk.has(await publish(connection))
        assert reader.sunk.resets == 1
        assert reader.sunk.position.generation != generation


async def test_a_lost_connection_loses_nothing_and_repeats_nothing(database: str, connection: Connection) -> None:
    async with reading(database) as reader:
        ids = []
        for _ in range(5):
            ids.append(await publish(connection))
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'pghub tail'"
            )
            ids.append(await publish(connection))
        await reader.sunk.has(*ids)
        assert reader.sunk.ids == ids


async def test_rolled_back_transactions_and_a_crash_do_not_hide_what_follows(data_dir: Path) -> None:
    """Postgres hands out again what never reached the disk; a cursor must not have counted it as seen."""
    async with Embedded(data_dir) as server:
        async with opened(Target(server.dsn)) as connection:
            await migrate(connection, SQL)
            async with reading(server.dsn) as reader:
                await reader.sunk.has(await publish(connection))
                for _ in range(50):
                    await connection.execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK")
                await asyncio.wait_for(reader.tail.fresh(), PATIENCE)
                position = reader.sunk.position
                crash(data_dir)
                await server.stop()
                await server.start()
                async with opened(Target(server.dsn)) as again:
                    ids = [await publish(again), await publish(again)]
                    xids = [
                        int(r[0]) for r in await again.fetch("SELECT xid::text FROM hub.events WHERE id = ANY($1)", ids)
                    ]
                await reader.sunk.has(*ids)
        assert not any(position.snapshot.sees(xid) for xid in xids)


def crash(data_dir: Path) -> None:
    """End the server without a checkpoint, as a power cut does."""
    found = postmaster.read(data_dir / "postgres")
    assert found is not None
    os.kill(found.pid, signal.SIGQUIT)


# Sleep


async def test_where_commits_were_lost_it_starts_again(database: str, connection: Connection) -> None:
    async with reading(database) as reader:
        await reader.sunk.has(await publish(connection), await publish(connection))
        before = reader.sunk.position
        await connection.execute(
            "DELETE FROM hub.events WHERE xid = (SELECT max(xid) FROM hub.events)"
        )  # as a crash does
        reader.connections[-1].terminate()
        await reader.sunk.until(lambda: reader.sunk.restarts)
        assert before.witness is not None
        assert reader.sunk.position.witness is not None
        assert reader.sunk.position.witness.xid < before.witness.xid
        assert reader.sunk.position.era != before.era
        await reader.sunk.has(await publish(connection))


async def test_how_far_it_has_read_is_noted_while_it_is_awake(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "_FLOOR", 0.01)
    async with reading(database, quiet_after=1000) as reader:
        number = await publish(connection)
        await reader.sunk.has(number)
        async with asyncio.timeout(PATIENCE):
            while await connection.fetchval(
                "SELECT count(*) FROM hub.log, hub.events WHERE NOT pg_visible_in_snapshot(xid, floor)"
            ):
                await asyncio.sleep(0.01)  # nothing signals it
        noted = await connection.fetchval("SELECT xmin FROM hub.log")
        await reader.tail.fresh()
        await reader.tail.fresh()
        assert await connection.fetchval("SELECT xmin FROM hub.log") == noted, "only what is news is noted"


async def test_a_sleeping_hub_is_woken_by_a_producer(database: str, connection: Connection) -> None:
    async with reading(database) as reader:
        for _ in range(3):
            await reader.asleep()
            await reader.sunk.has(await publish(connection))


async def test_a_producer_with_an_old_snapshot_wakes_it_too(
    database: str, connection: Connection, another: Any
) -> None:
    old = await another()
    async with reading(database) as reader:
        await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM hub.events")
        await reader.asleep()
        number = await publish(old)
        await old.execute("COMMIT")
        await reader.sunk.has(number)


async def test_a_producer_in_flight_keeps_it_awake(database: str, another: Any) -> None:
    slow = await another()
    async with reading(database) as reader:
        await slow.execute("BEGIN")
        number = await publish(slow)
        await asyncio.wait_for(reader.tail.fresh(), PATIENCE)
        for _ in range(20):
            await asyncio.wait_for(reader.tail.fresh(), PATIENCE)
            assert not reader.tail.asleep
        await slow.execute("COMMIT")
        await reader.sunk.has(number)


async def test_a_producer_that_gave_an_earlier_savepoint_up_rings_for_the_next(database: str, another: Any) -> None:
    producer = await another()
    async with reading(database) as reader:
        await producer.execute("BEGIN; SAVEPOINT s; SELECT hub.publish('a', '1'); ROLLBACK TO s")
        await reader.asleep()
        number = await publish(producer)
        await producer.execute("COMMIT")
        await reader.sunk.has(number)


async def test_several_hubs_sleep_and_all_are_woken(database: str, connection: Connection) -> None:
    async with reading(database) as one, reading(database) as two, reading(database) as three:
        for _ in range(3):
            for reader in (one, two, three):
                await reader.asleep()
            number = await publish(connection)
            for reader in (one, two, three):
                await reader.sunk.has(number)


async def test_two_phase_commits_wait_for_the_next_wake(database: str, connection: Connection) -> None:
    async with reading(database) as reader:
        await reader.asleep()
        await connection.execute("BEGIN; SET LOCAL hub.ring = 'off'")
        number = await publish(connection)
        await connection.execute("PREPARE TRANSACTION 'two'")
        await connection.execute("COMMIT PREPARED 'two'")
        assert reader.tail.asleep
        reader.tail.wake()
        await reader.sunk.has(number)


async def test_repeatable_read_as_the_hub_s_default_loses_no_ring(database: str, connection: Connection) -> None:
    async with reading(database, session={"default_transaction_isolation": "repeatable read"}) as reader:
        for _ in range(3):
            await reader.asleep()
            await reader.sunk.has(await publish(connection))


async def test_a_hub_that_is_killed_in_its_sleep_leaves_no_lock_behind(database: str, connection: Connection) -> None:
    async with reading(database) as reader:
        await reader.asleep()
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'pghub tail'"
        )
        await reader.sunk.has(await publish(connection))


async def test_a_hub_that_is_frozen_in_its_sleep_gives_the_bell_back(database: str, connection: Connection) -> None:
    """Postgres ends the transaction of one that does not move; here after half a second instead of ninety."""
    async with reading(database, session={"idle_in_transaction_session_timeout": "500ms"}) as reader:
        await reader.asleep()
        first = reader.connections[0]
        async with asyncio.timeout(PATIENCE):
            while not first.is_closed():
                await asyncio.sleep(0.01)
        await reader.sunk.has(await publish(connection))


async def test_a_deaf_hub_does_not_sleep(database: str, connection: Connection) -> None:
    async with reading(database) as reader:
        await reader.asleep()
        reader.deaf.set()
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'pghub listener'"
        )
        for _ in range(5):
            await asyncio.wait_for(reader.tail.fresh(), PATIENCE)
            await reader.sunk.has(await publish(connection))
            assert not reader.tail.asleep
        reader.deaf.clear()
        await reader.asleep()
        await reader.sunk.has(await publish(connection))


async def test_nobody_rings_while_no_hub_runs(database: str, connection: Connection) -> None:
    async with opened(Target(database)) as listening:
        rung: list[str] = []
        await listening.add_listener(BELL, lambda *message: rung.append(message[3]))
        number = await publish(connection)
        await listening.execute("SELECT 1")
        assert rung == []
        await listening.reset()
        await listening.remove_listener(BELL, print)
    async with reading(database) as reader:
        assert [each.id for each in reader.sunk.before] == [number]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE hub.events ADD COLUMN extra int",
        "CREATE INDEX CONCURRENTLY extra ON hub.events (source)",
        "VACUUM hub.events",
        "REINDEX TABLE hub.events",
        "LOCK TABLE hub.events IN ACCESS EXCLUSIVE MODE",
    ],
)
async def test_a_sleeping_hub_is_in_nobody_s_way(database: str, connection: Connection, statement: str) -> None:
    async with reading(database) as reader:
        await reader.sunk.has(await publish(connection))
        await reader.asleep()
        await connection.execute("SET lock_timeout = '2s'")
        async with asyncio.timeout(PATIENCE):
            await connection.execute(f"BEGIN; {statement}; COMMIT" if statement.startswith("LOCK") else statement)
        assert reader.tail.asleep
        held = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pghub tail' AND backend_xmin IS NOT NULL"
        )
        assert await connection.fetchval(f"{held} AND datname = current_database()") == 0, "no snapshot is held"


async def test_dozing_writes_nothing_to_the_server_s_log(data_dir: Path) -> None:
    async with Embedded(data_dir) as server, opened(Target(server.dsn)) as connection:
        await migrate(connection, SQL)
        async with reading(server.dsn) as reader:
            await connection.execute("BEGIN")
            await publish(connection)
            for _ in range(20):  # producers in flight: it tries to fall asleep, in vain
                await asyncio.wait_for(reader.tail.fresh(), PATIENCE)
            await connection.execute("COMMIT")
            await reader.asleep()
            for _ in range(3):
                await reader.sunk.has(await publish(connection))
                await reader.asleep()
    written = logged(data_dir)
    assert written
    assert not [line for line in written if "ERROR" in line or "not available" in line]


def logged(data_dir: Path) -> list[str]:
    return [line for path in data_dir.rglob("*.log") for line in path.read_text(errors="replace").splitlines()]


# Many


async def test_a_thousand_writers_in_flight_are_read_once_each_when_they_commit(
    database: str, connection: Connection
) -> None:
    """Prepared transactions stand for writers: as open to all others, and they need no connection each."""
    async with reading(database) as reader:
        await connection.execute("SET hub.ring = 'off'")
        ids = []
        for number in range(1_000):
            await connection.execute("BEGIN")
            ids.append(await publish(connection))
            await connection.execute(f"PREPARE TRANSACTION 'w{number}'")
        seen = await publish(connection)
        reader.tail.wake()
        await reader.sunk.has(seen)
        assert len(str(reader.sunk.position)) < 3_000
        for number in reversed(range(1_000)):
            await connection.execute(f"COMMIT PREPARED 'w{number}'")
        reader.tail.wake()
        await reader.sunk.has(*ids)
        assert sorted(reader.sunk.ids) == sorted([*ids, seen])


async def test_random_producers_lose_nothing_while_hubs_sleep_and_wake(database: str, another: Any) -> None:
    """Three hubs that fall asleep at once and never wake by themselves: whatever is missed here is a lost ring."""
    producers = [await another() for _ in range(6)]
    levels = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")

    async def produce(index: int, connection: asyncpg.Connection) -> list[int]:
        committed: list[int] = []
        for turn in range(25):
            await connection.execute(f"BEGIN ISOLATION LEVEL {levels[(index + turn) % 3]}")
            await connection.execute("SELECT count(*) FROM hub.log")
            await asyncio.sleep(0.001 * ((index * 7 + turn * 13) % 90))  # what is tested here is any timing
            if turn % 4 == 1:
                await connection.execute("SAVEPOINT s; SELECT hub.publish('a', '0'); ROLLBACK TO s")
            number = await publish(connection)
            if turn % 5 == 2:
                await connection.execute("ROLLBACK")
            else:
                await connection.execute("COMMIT")
                committed.append(number)
        return committed

    make = partial(reading, database, quiet_after=0.02)
    async with make() as one, make() as two, make() as three:
        produced = await asyncio.gather(*(produce(index, each) for index, each in enumerate(producers)))
        expected = sorted(number for numbers in produced for number in numbers)
        for reader in (one, two, three):
            await reader.sunk.has(*expected)
            assert sorted(reader.sunk.ids) == expected


async def test_a_million_uncommitted_rows_cost_a_poll_nothing_and_plans_hold_without_statistics(
    database: str,
) -> None:
    async with opened(Target(database)) as writer, AsyncExitStack() as stack:
        await writer.execute("ALTER TABLE hub.events SET (autovacuum_enabled = off)")
        await writer.execute("BEGIN")
        await writer.execute(
            "INSERT INTO hub.events (channel, payload) SELECT 'c' || n % 10, '1' FROM generate_series(1, 1000000) AS n",
            timeout=100,
        )
        reader = await stack.enter_async_context(tailing(database))
        raw = await reader.fetchval("SELECT pg_current_snapshot()::text")
        assert await touched(reader, unseen.READ, raw) < 200
        await writer.execute("COMMIT")
        raw = await reader.fetchval("SELECT pg_current_snapshot()::text")
        await publish(writer)
        assert await touched(reader, unseen.READ, raw) < 200


@asynccontextmanager
async def tailing(dsn: str) -> AsyncIterator[Connection]:
    connection = await connect(Target(dsn), purpose="test", settings=SESSION)
    try:
        yield connection
    finally:
        connection.terminate()


async def touched(connection: Connection, statement: str, *arguments: Any) -> int:
    """How many pages the statement looks at."""
    (plan,) = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {statement}", *arguments)
    pages = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    assert isinstance(pages, int)
    return pages
