"""One connection that listens for all, against a real Postgres that kills it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from hub.errors import Code, CommandError, SetupError
from hub.postgres.connect import Connection, Target, connect_listening, pool
from hub.postgres.listener import Listener
from hub.postgres.listening import ListeningConnection, Notification
from tests.postgres.conftest import opened
from tests.proxy import proxy

PATIENCE = 30.0
KILL = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'pghub listener'"
)


class Told:
    """What a listener told, in order: notifications, and a list of channels for each gap."""

    def __init__(self) -> None:
        self.fails = False
        self.story: list[Notification | list[str]] = []
        self._news = asyncio.Event()

    def batch(self, batch: Sequence[Notification]) -> None:
        if self.fails:
            raise RuntimeError("a mistake in the hub")
        self.story += batch
        self._news.set()

    def gap(self, channels: Sequence[str]) -> None:
        self.story.append(list(channels))
        self._news.set()

    @property
    def payloads(self) -> list[str]:
        return [entry.payload for entry in self.story if isinstance(entry, Notification)]

    @property
    def gaps(self) -> list[list[str]]:
        return [entry for entry in self.story if isinstance(entry, list)]

    async def until(self, condition: Callable[[], object]) -> None:
        """Return once `condition` holds; it is looked at whenever something is told."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def hears(self, payload: str) -> None:
        """Return once `payload` came, maybe long ago: the sender's statement may end after many others'."""
        await self.until(lambda: payload in self.payloads)

    async def hears_more(self, number: int) -> None:
        known = len(self.payloads)
        await self.until(lambda: len(self.payloads) >= known + number)

    async def tells_gaps(self, number: int) -> None:
        await self.until(lambda: len(self.gaps) == number)


class Connections:
    """Makes the listener's connections, and knows them all."""

    def __init__(self, dsn: str) -> None:
        self.target = Target(dsn)
        self.made: list[ListeningConnection] = []

    async def __call__(self) -> ListeningConnection:
        self.made.append(await connect_listening(self.target))
        return self.made[-1]


@asynccontextmanager
async def running(
    connect: Callable[[], Awaitable[ListeningConnection]], **options: Any
) -> AsyncIterator[tuple[Listener, Told]]:
    """A listener at work. That it ended by itself fails the test."""
    told = Told()
    listener = Listener(connect, on_batch=told.batch, on_gap=told.gap, **{"timeout": PATIENCE} | options)
    task = asyncio.create_task(listener.run())
    try:
        yield listener, told
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def hold(listener: Listener, *channels: str) -> None:
    for channel in channels:
        listener.hold(channel)
    await listener.listening(channels)


async def notify(connection: Connection, channel: str, payload: object) -> None:
    await connection.execute("SELECT pg_notify($1, $2)", channel, str(payload))


# What arrives


async def test_what_is_committed_after_listening_returned_arrives_in_order(
    database: str, connection: Connection
) -> None:
    async with running(Connections(database)) as (listener, told):
        await hold(listener, "a", "b")
        await connection.execute("NOTIFY a, '1'; NOTIFY b, '2'; NOTIFY a, '3'")
        for number in range(4, 501):
            await notify(connection, "ab"[number % 2], number)
        await told.until(lambda: len(told.story) == 500)
    assert told.payloads == [str(number) for number in range(1, 501)]
    assert told.story[:3] == [("a", "1"), ("b", "2"), ("a", "3")]


async def test_a_rollback_never_arrives(database: str, connection: Connection) -> None:
    """Neither a transaction's nor, inside one that is committed, a savepoint's."""

    async def fail() -> None:
        async with connection.transaction():
            await notify(connection, "a", "never")
            await connection.execute("SELECT 1 / 0")

    async with running(Connections(database)) as (listener, told):
        await hold(listener, "a")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await fail()
        async with connection.transaction():
            await notify(connection, "a", "kept")
            with pytest.raises(asyncpg.DivisionByZeroError):
                await fail()
        await told.until(lambda: told.story)
    assert told.story == [("a", "kept")]


@pytest.mark.parametrize("name", ["UPPER", 'quo"te', "ünï ✓", "x" * 63])
async def test_any_legal_name_is_heard_as_it_is(database: str, connection: Connection, name: str) -> None:
    async with running(Connections(database)) as (listener, told):
        await hold(listener, name)
        await notify(connection, name, 1)
        await told.until(lambda: told.story)
    assert told.story == [(name, "1")]


async def test_a_name_that_cannot_be_sent_is_refused_and_the_connection_lives_on(
    database: str, connection: Connection
) -> None:
    async with running(Connections(database)) as (listener, told):
        await hold(listener, "a")
        for name in ("", "a\0b", "a\ud800"):
            with pytest.raises(CommandError):
                listener.hold(name)
        await notify(connection, "a", 1)
        await told.until(lambda: told.story)
    assert told.story == [("a", "1")]


# Holding and releasing


async def test_without_holders_a_channel_is_unlistened_after_a_while(database: str) -> None:
    connections = Connections(database)
    async with running(connections, linger=0.0) as (listener, _):
        await hold(listener, "a", "b")
        listener.release("a")
        for number in count():  # each of these is one more round of LISTEN
            await hold(listener, f"later {number}")
            if "a" not in listener.channels:
                break
        found = await connections.made[0].fetch("SELECT pg_listening_channels()")
        names = {row[0] for row in found}
        assert names == listener.channels >= {"b"}
        assert "a" not in names


async def test_while_it_lingers_a_channel_is_listened_to_at_once(database: str) -> None:
    async with running(Connections(database), linger=60.0) as (listener, _):
        await hold(listener, "a")
        listener.release("a")
        assert listener.channels == {"a"}
        listener.hold("a")
        async with asyncio.timeout(0):
            await listener.listening(["a"])


async def test_a_channel_held_again_while_its_unlisten_is_in_flight_is_heard(
    database: str, connection: Connection
) -> None:
    """After `listening` returned nothing may be missed, however holds and releases cross the statements."""
    numbers = count()
    async with running(Connections(database), linger=0.0) as (listener, told):

        async def come_and_go(other: Connection, channel: str) -> None:
            for _ in range(100):
                await hold(listener, channel)
                number = f"{channel} {next(numbers)}"
                await notify(other, channel, number)
                await told.hears(number)
                listener.release(channel)
                await asyncio.sleep(0)

        async with pool(Target(database), min_size=4, max_size=4) as made, asyncio.TaskGroup() as group:
            for name in ("a", "a", "b", "b"):
                group.create_task(come_and_go(made, name))  # type: ignore[arg-type] # a pool executes, too
    assert told.gaps == []


async def test_many_who_wait_share_a_round(database: str) -> None:
    async with running(Connections(database)) as (listener, _):
        await asyncio.gather(*(hold(listener, f"channel {number}") for number in range(2_000)))
        assert len(listener.channels) == 2_000


async def test_one_who_stops_waiting_harms_no_other(database: str) -> None:
    async with running(Connections(database)) as (listener, _):
        for name in "ab":
            listener.hold(name)
        one, two = [asyncio.create_task(listener.listening([name])) for name in "ab"]
        await asyncio.sleep(0)
        one.cancel()
        await two
        with pytest.raises(asyncio.CancelledError):
            await one
        await listener.listening(["a"])


async def test_more_channels_than_allowed_are_refused(database: str) -> None:
    async with running(Connections(database), max_channels=2) as (listener, _):
        await hold(listener, "a", "b")
        with pytest.raises(CommandError) as refused:
            listener.hold("c")
    assert refused.value.code is Code.TOO_MANY


# Losing the connection


async def test_a_killed_connection_is_made_again_and_the_gap_is_told_before_what_comes_next(
    database: str, connection: Connection
) -> None:
    async with running(Connections(database)) as (listener, told):
        await hold(listener, "a", "b")
        await notify(connection, "a", 1)
        await told.until(lambda: told.story)
        with capture_logs() as logs:
            await connection.execute(KILL)
            await told.until(lambda: told.gaps)
        assert listener.connected
        await notify(connection, "a", 2)
        await told.until(lambda: len(told.story) == 3)
    assert told.story == [("a", "1"), ["a", "b"], ("a", "2")]
    events = [(entry["event"], entry.get("channels")) for entry in logs]
    assert events == [("listener_lost", None), ("listener_connected", 2), ("listener_gap", 2)]
    assert logs[0]["reason"]
    assert logs[2]["seconds"] >= 0


async def test_only_channels_that_were_listened_to_get_a_gap(database: str, connection: Connection) -> None:
    """Whoever came while the connection was lost was promised nothing before it came back; whoever left is gone."""
    connections = Connections(database)
    async with running(connections, linger=0.0) as (listener, told):
        await hold(listener, "old", "left before", "left meanwhile")
        listener.release("left before")
        for number in count():
            await hold(listener, f"later {number}")
            listener.release(f"later {number}")
            if "left before" not in listener.channels:
                break
        connections.target = Target("postgresql://127.0.0.1:1/nowhere")
        await connection.execute(KILL)
        while listener.connected:
            await asyncio.sleep(0)
        listener.release("left meanwhile")
        listener.hold("left before")
        listener.hold("new")
        connections.target = Target(database)
        await listener.listening(["old", "left before", "new"])
    assert told.gaps == [["old"]]


async def test_what_comes_while_channels_are_listened_to_again_waits_for_the_gap(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = ListeningConnection.listen

    async def listen_and_hear(self: ListeningConnection, channels: Sequence[str]) -> None:
        await listen(self, channels)
        if channels:
            await self.execute("NOTIFY a, 'between'")  # one's own arrive before the statement ends

    async with running(Connections(database)) as (listener, told):
        await hold(listener, "a")
        monkeypatch.setattr(ListeningConnection, "listen", listen_and_hear)
        await connection.execute(KILL)
        await told.until(lambda: len(told.story) == 2)
    assert told.story == [["a"], ("a", "between")]


async def test_nobody_is_told_to_be_live_before_all_is_listened_to_again(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If they were, and the connection were lost once more, they would get no gap."""
    listen = ListeningConnection.listen
    waiting: list[asyncio.Task[None]] = []
    early: list[bool] = []

    async def listen_and_look(self: ListeningConnection, channels: Sequence[str]) -> None:
        await listen(self, channels)
        if "a" in channels:
            listener.hold("b")  # so there is a second round
        elif "b" in channels:
            waiting.append(asyncio.create_task(listener.listening(["a"])))
            await self.execute("SELECT 1")
            early.append(waiting[0].done())

    async with running(Connections(database)) as (listener, _):
        await hold(listener, "z")
        monkeypatch.setattr(ListeningConnection, "listen", listen_and_look)
        await connection.execute(KILL)
        while listener.connected:
            await asyncio.sleep(0)
        listener.hold("a")
        await listener.listening(["a", "b"])
        await waiting[0]
    assert early == [False]


async def test_a_storm_through_ten_kills_has_no_hole_without_a_gap(database: str, connection: Connection) -> None:
    batch = "SELECT pg_notify('storm', n::text) FROM generate_series($1::int, $2::int) AS n"
    killed = asyncio.Event()

    async def storm(producer: Connection) -> int:
        """Send numbers, at least 20,000, until all kills are done; returns the last."""
        last = 0
        while last < 20_000 or not killed.is_set():
            await producer.execute(batch, last + 1, last + 20)
            last += 20
        return last

    async with running(Connections(database)) as (listener, told), opened(Target(database)) as producer:
        await hold(listener, "storm")
        storming = asyncio.create_task(storm(producer))
        for number in range(1, 11):
            await told.hears_more(200)
            assert await connection.fetchval(KILL) == 1
            await told.tells_gaps(number)
        killed.set()
        last = await storming + 1
        await notify(connection, "storm", last)  # those before it may have been lost with the tenth
        await told.until(lambda: told.payloads[-1] == str(last))
    previous, gap, holes = 0, False, 0
    for entry in told.story:
        if isinstance(entry, list):
            assert entry == ["storm"]
            gap = True
        else:
            number = int(entry.payload)
            assert number == previous + 1 or (gap and number > previous), f"silent hole from {previous} to {number}"
            holes += number > previous + 1
            previous, gap = number, False
    assert holes


async def test_a_connection_that_goes_silent_is_noticed_by_the_heartbeat(database: str, connection: Connection) -> None:
    """As when a firewall forgets it: no error, no end, only nothing."""
    async with (
        proxy(database) as between,
        running(Connections(between.dsn), heartbeat=0.05, timeout=1.0) as (listener, told),
    ):
        await hold(listener, "a")
        between.silence()
        with capture_logs() as logs:
            while listener.connected:
                await asyncio.sleep(0.01)  # nothing is told while it is silent
        await notify(connection, "a", "lost or late")
        between.speak()
        await told.until(lambda: told.gaps)
        await notify(connection, "a", "heard")
        await told.until(lambda: told.payloads[-1:] == ["heard"])
    assert told.story == [["a"], ("a", "heard")]
    assert logs[0]["reason"] == "no answer within 1 s"


async def test_it_keeps_trying_while_postgres_is_away(database: str, connection: Connection) -> None:
    connections = Connections(database)
    failures = iter([OSError("away"), SetupError("away"), ValueError("a mistake in the hub")])

    async def connect() -> ListeningConnection:
        for error in failures:
            raise error
        return await connections()

    with capture_logs() as logs:
        async with running(connect) as (listener, told):
            await hold(listener, "a")
            await notify(connection, "a", 1)
            await told.until(lambda: told.story)
            await connection.execute(KILL)
            await told.until(lambda: told.gaps)
    lost = [(entry["reason"], entry["attempt"]) for entry in logs if entry["event"] == "listener_lost"]
    assert lost[:3] == [("away", 0), ("away", 1), ("a mistake in the hub", 2)]
    assert [attempt for _, attempt in lost[3:]] == [0]


async def test_while_postgres_is_away_who_waits_is_told_after_a_while() -> None:
    async with running(Connections("postgresql://127.0.0.1:1/nowhere"), timeout=0.05) as (listener, _):
        with pytest.raises(CommandError) as refused:
            await hold(listener, "a")
        assert refused.value.code is Code.UNAVAILABLE
        assert listener.blind_since is not None
        assert repr(listener) == "<Listener lost channels=0 wanted=1>"


async def test_an_error_in_the_hub_costs_a_batch_and_not_the_listener(database: str, connection: Connection) -> None:
    connections = Connections(database)
    async with running(connections) as (listener, told):
        await hold(listener, "a")
        told.fails = True
        await notify(connection, "a", 1)
        await told.until(lambda: told.gaps)
        told.fails = False
        await notify(connection, "a", 2)
        await told.until(lambda: told.payloads)
    assert told.story == [["a"], ("a", "2")]
    assert len(connections.made) == 1


async def test_cancelled_it_leaves_no_connection_behind(database: str) -> None:
    connections = Connections(database)
    async with running(connections) as (listener, _):
        await hold(listener, "a")
        assert repr(listener) == "<Listener connected channels=1 wanted=1>"
        assert listener.blind_since is None
    assert [each.is_closed() for each in connections.made] == [True]
    assert not listener.connected


def test_in_debug_mode_asyncio_has_nothing_to_complain_of(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """No task destroyed while pending, no exception never retrieved: through kills, a silence and the end."""

    async def play() -> None:
        async with (
            opened(Target(database)) as admin,
            proxy(database) as between,
            running(Connections(between.dsn), heartbeat=0.05, timeout=1.0) as (listener, told),
        ):
            await hold(listener, "a")
            for number in range(1, 4):
                await admin.execute(KILL)
                await told.tells_gaps(number)
            between.silence()
            while listener.connected:
                await asyncio.sleep(0.01)  # nothing is told while it is silent
            between.speak()
            await told.tells_gaps(4)

    asyncio.run(play(), debug=True)
    complaints = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert complaints == []


# The proof at the start


async def test_a_proof_by_another_connection_succeeds_and_is_nobodys_event(
    database: str, connection: Connection
) -> None:
    async with running(Connections(database)) as (listener, told):
        await listener.prove(lambda channel: notify(connection, channel, ""))
        await hold(listener, "a")
        await notify(connection, "a", 1)
        await told.until(lambda: told.story)
    assert told.story == [("a", "1")]


async def test_a_notify_in_another_database_proves_nothing(database: str, blank: str) -> None:
    async with opened(Target(blank)) as stranger, running(Connections(database), timeout=0.5) as (listener, _):
        with pytest.raises(SetupError, match="HUB_DIRECT_URL"):
            await listener.prove(lambda channel: notify(stranger, channel, ""))


async def test_a_notify_that_fails_is_told_in_the_words_of_postgres(database: str, connection: Connection) -> None:
    async with running(Connections(database)) as (listener, _):
        with pytest.raises(SetupError, match='NOTIFY by the database URL fails: relation "nowhere" does not exist'):
            await listener.prove(lambda _: connection.execute("SELECT FROM nowhere"))


async def test_a_hub_that_cannot_listen_says_why(connection: Connection) -> None:
    """As a standby refuses LISTEN: each try is in vain, but the reason is known."""

    async def connect() -> ListeningConnection:
        raise SetupError("cannot execute LISTEN during recovery.")

    async with running(connect, timeout=0.05) as (listener, _):
        with pytest.raises(SetupError, match=r"cannot listen: cannot execute LISTEN during recovery\. Check"):
            await listener.prove(lambda channel: notify(connection, channel, ""))
