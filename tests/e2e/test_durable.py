"""Durable events through whole hubs: nothing lost, nothing twice, whoever goes away meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hub.cursor import Cursor, Place, Witness
from hub.postgres import unseen
from hub.postgres.embedded import Embedded
from hub.snapshot import Snapshot
from tests.conftest import running
from tests.e2e.test_slow import connect as connect_by_hand

PATIENCE = 30


class Follower:
    """A client that keeps its cursor, as README says."""

    def __init__(self, channels: list[str], since: str | None = None) -> None:
        self.channels = channels
        self.since = since
        self.events: list[dict[str, Any]] = []
        self.gaps: list[dict[str, Any]] = []
        self.socket: ClientConnection
        self.subscribed: dict[str, Any] = {}

    async def connect(self, hub: Any, **options: Any) -> Follower:
        self.socket = await connect(hub.ws, max_size=None)
        command = {"type": "subscribe", "id": 1, "channels": self.channels} | options
        await self.socket.send(orjson.dumps(command | ({"since": self.since} if self.since else {})).decode())
        async with asyncio.timeout(PATIENCE):
            while self.subscribed.get("socket") is not self.socket:
                await self.take()
        return self

    async def take(self) -> dict[str, Any]:
        message: dict[str, Any] = orjson.loads(await self.socket.recv())
        self.events += message.get("events", ())
        self.since = message.get("cursor", self.since)
        if message["type"] == "gap":
            self.gaps.append(message)
        if message["type"] == "subscribed":
            self.subscribed = message | {"socket": self.socket}
        return message

    async def until(self, payload: object) -> list[Any]:
        """Read until `payload` has come; all payloads so far."""
        async with asyncio.timeout(PATIENCE):
            while payload not in self.payloads:
                await self.take()
        return self.payloads

    @property
    def payloads(self) -> list[Any]:
        return [event["payload"] for event in self.events]


@pytest.fixture
async def producer(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def publish(connection: asyncpg.Connection, *payloads: object, channel: str = "orders") -> None:
    for payload in payloads:
        await connection.execute("SELECT hub.publish($1, $2::jsonb)", channel, orjson.dumps(payload).decode())


async def test_an_event_comes_with_its_id_time_tags_and_cursor(hub: Any, producer: asyncpg.Connection) -> None:
    follower = await Follower(["orders"]).connect(hub)
    number = await producer.fetchval("""SELECT hub.publish('orders', '{"a": [1, 1.50]}', ARRAY['x', 'y'])""")
    message = await follower.take()
    (event,) = message["events"]
    assert (event["channel"], event["id"], event["tags"]) == ("orders", number, ["x", "y"])
    assert event["payload"] == {"a": [1, 1.50]}
    assert event["at"].endswith("Z")
    assert message["cursor"]


async def test_who_was_away_gets_what_was_missed_and_then_what_is_new(hub: Any, producer: asyncpg.Connection) -> None:
    follower = await Follower(["orders", "audit.*"]).connect(hub)
    await publish(producer, 1)
    await follower.until(1)
    await follower.socket.close()
    await publish(producer, 2)
    await publish(producer, 3, channel="audit.eu")
    await publish(producer, 4, channel="other")
    await follower.connect(hub)
    assert follower.subscribed["recovered"]
    await publish(producer, 5)
    assert await follower.until(5) == [1, 2, 3, 5]


async def test_the_last_events_then_live(hub: Any, producer: asyncpg.Connection) -> None:
    await publish(producer, *range(10))
    follower = await Follower(["orders"]).connect(hub, last=3)
    assert follower.payloads == [7, 8, 9]
    await publish(producer, 10)
    assert await follower.until(10) == [7, 8, 9, 10]


async def test_a_url_can_ask_for_the_last_events(hub: Any, producer: asyncpg.Connection) -> None:
    await publish(producer, *range(5))
    async with connect(f"{hub.ws}?channel=orders&last=2") as socket:
        await socket.recv()
        assert [event["payload"] for event in orjson.loads(await socket.recv())["events"]] == [3, 4]


async def test_a_url_can_go_on_from_the_longest_cursor(hub: Any) -> None:
    """A thousand transactions in flight make a long one, and it has to fit into a request."""
    xip = tuple(range(1_000_000, 1_006_000, 3))
    far = Cursor(
        1, Snapshot(xip[0], 1_006_000, xip), Witness(1_005_999, 1, 1), Place(Snapshot(1_006_000, 1_006_000), 5)
    )
    assert len(str(far)) > 2_500
    async with connect(f"{hub.ws}?channel=orders&since={far}") as socket:
        await socket.recv()
        assert orjson.loads(await socket.recv())["reason"] == "reset"


async def test_publishing_answers_with_the_id_after_the_commit(hub: Any, producer: asyncpg.Connection) -> None:
    follower = await Follower(["chat"]).connect(hub)
    for number in range(1, 301):
        command = {"type": "publish", "id": number, "channel": "chat", "payload": number, "tags": ["a", 'b"c,{}']}
        await follower.socket.send(orjson.dumps(command).decode())
    answers = []
    async with asyncio.timeout(PATIENCE):
        while len(answers) < 300 or len(follower.events) < 300:
            message = await follower.take()
            if message["type"] == "published":
                answers.append((message["id"], message["event"]))
    assert [number for number, _ in answers] == list(range(1, 301))
    assert follower.payloads == list(range(1, 301)), "publishes of one connection keep their order"
    assert [event for _, event in answers] == [event["id"] for event in follower.events]
    assert follower.events[0]["tags"] == ["a", 'b"c,{}']
    shared = await producer.fetchval("SELECT count(DISTINCT xid) FROM hub.events")
    assert shared < 100, "many share a transaction"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"payload": {"a": "x" * 262_144, "b": ["\n"] * 150_000}}, "too_large"),  # only as Postgres writes it
        ({"payload": "\u0000"}, "bad_request"),
        ({"tags": ["x" * 5_000]}, "too_large"),
    ],
)
async def test_what_postgres_refuses_harms_no_other(hub: Any, fields: dict[str, Any], code: str) -> None:
    follower = await Follower(["chat"]).connect(hub)
    good = {"type": "publish", "channel": "chat", "payload": 1}
    for command in (good | {"id": 1}, good | {"id": 2} | fields, good | {"id": 3}):
        await follower.socket.send(orjson.dumps(command).decode())
    answers = {}
    async with asyncio.timeout(PATIENCE):
        while len(answers) < 3:
            message = await follower.take()
            if message["type"] in ("published", "error"):
                answers[message["id"]] = message.get("code", "ok")
    assert answers == {1: "ok", 2: code, 3: "ok"}


async def test_a_key_makes_a_retried_publish_safe(hub: Any) -> None:
    follower = await Follower(["chat"]).connect(hub)
    command = {"type": "publish", "channel": "chat", "payload": 1, "key": "k"}
    for number in (1, 2):
        await follower.socket.send(orjson.dumps(command | {"id": number}).decode())
    answers = []
    async with asyncio.timeout(PATIENCE):
        while len(answers) < 2:
            message = await follower.take()
            answers += [message["event"]] if message["type"] == "published" else []
    assert answers[0] == answers[1]


async def test_another_hub_on_the_same_database_goes_on_where_one_ended(
    database: str, producer: asyncpg.Connection
) -> None:
    """Back and forth, while events are committed: a hub may be a poll behind the cursor that it is given."""
    follower = Follower(["orders"])
    async with running(database) as one, running(database) as two:
        await follower.connect(one)
        for turn in range(20):
            await publish(producer, turn)
            await follower.until(turn)
            await follower.socket.close()
            await follower.connect((two, one)[turn % 2])
            assert follower.subscribed["recovered"]
    assert follower.payloads == list(range(20))


async def test_postgres_killed_and_restarted_loses_nothing(data_dir: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Embedded(data_dir))
        hub = await stack.enter_async_context(running(server.dsn))
        follower = await Follower(["orders"]).connect(hub)
        for turn in range(3):
            producer = await asyncpg.connect(server.dsn)
            await publish(producer, turn)
            os.kill(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
            await server.stop()
            await server.start()
            producer.terminate()
        producer = await asyncpg.connect(server.dsn)
        await publish(producer, "end")
        assert await follower.until("end") == [0, 1, 2, "end"]
        await producer.close()


async def test_a_jump_over_many_events_reaches_their_subscribers_whole(hub: Any, producer: asyncpg.Connection) -> None:
    both, steady = await Follower(["bulk", "steady"]).connect(hub), await Follower(["steady"]).connect(hub)
    await producer.execute(
        "INSERT INTO hub.events (channel, payload) SELECT 'bulk', to_jsonb(n) FROM generate_series(1, $1::int) AS n",
        3 * unseen.BATCH,
    )
    await publish(producer, "then", channel="steady")
    assert await steady.until("then") == ["then"]
    assert await both.until("then") == [*range(1, 3 * unseen.BATCH + 1), "then"]


async def test_who_does_not_read_for_a_while_gets_every_durable_event_in_order(
    database: str, producer: asyncpg.Connection
) -> None:
    async with running(database, max_buffer=128 * 1024) as hub:
        slow, quick = await connect_by_hand(hub.ws), await Follower(["flood"]).connect(hub)
        while (await slow.message())["type"] != "subscribed":
            pass
        for start in range(0, 4_000, 500):
            await producer.execute(
                "INSERT INTO hub.events (channel, payload) SELECT 'flood', to_jsonb(n || repeat(' ', 4000)) "
                "FROM generate_series($1::int, $2::int) AS n",
                start,
                start + 499,
            )
        await publish(producer, "end", channel="flood")
        expected = await quick.until("end")
        got: list[Any] = []
        async with asyncio.timeout(PATIENCE):
            while not got or got[-1] != "end":
                message = await slow.message()
                assert message["type"] != "gap"
                got += [event["payload"] for event in message.get("events", ())]
        assert got == expected
        slow.writer.close()


async def test_a_cursor_from_before_the_horizon_gets_a_gap_and_what_is_left(
    hub: Any, producer: asyncpg.Connection
) -> None:
    await publish(producer, "start")
    follower = await Follower(["orders"]).connect(hub, last=1)
    await publish(producer, 1)
    await follower.until(1)
    await follower.socket.close()
    await publish(producer, 2, 3, 4)
    gone = await producer.fetchval("SELECT max(xid::text::bigint) FROM hub.events WHERE payload <= '2'")
    await producer.execute("DELETE FROM hub.events WHERE xid::text::bigint <= $1", gone)
    await producer.execute("UPDATE hub.log SET horizon = $1::text::xid8", str(gone + 1))
    async with running(hub.dsn) as other:  # whose ring does not reach back so far
        await follower.connect(other)
        assert follower.payloads == ["start", 1, 3, 4]
        (gap,) = follower.gaps
        assert (gap["reason"], gap["channels"], gap["for"]) == ("expired", ["orders"], 1)
        assert not follower.subscribed["recovered"]
        again = await Follower(["orders"], since=gap["cursor"]).connect(other)
        assert (again.payloads, again.gaps) == ([3, 4], []), "who stores the gap's cursor goes on behind the gap"


async def test_a_truncated_log_is_another_one(hub: Any, producer: asyncpg.Connection) -> None:
    follower = await Follower(["orders"]).connect(hub)
    away = await Follower(["orders"]).connect(hub)
    await publish(producer, 1)
    await follower.until(1)
    await away.until(1)
    await away.socket.close()
    await producer.execute("TRUNCATE hub.events")
    await publish(producer, 2)
    assert await follower.until(2) == [1, 2]
    assert [(gap["reason"], gap["channels"]) for gap in follower.gaps] == [("reset", ["orders"])]
    await away.connect(hub)
    assert away.payloads == [1, 2]
    assert [gap["reason"] for gap in away.gaps] == ["reset"]


async def test_a_forged_cursor_from_the_future_is_told_and_gets_what_there_is(
    hub: Any, producer: asyncpg.Connection
) -> None:
    await publish(producer, 1)
    honest = await Follower(["orders"]).connect(hub, last=1)
    generation = await producer.fetchval("SELECT generation FROM hub.log")
    ahead = Cursor(generation, Snapshot(2**40, 2**40), Witness(2**40 - 1, 5, 5))
    follower = await Follower(["orders"], since=str(ahead)).connect(hub)
    assert [gap["reason"] for gap in follower.gaps] == ["reset"]
    assert follower.payloads == [1]
    await publish(producer, 2)
    assert await follower.until(2) == [1, 2]
    assert await honest.until(2) == [1, 2]


async def test_heartbeats_carry_the_cursor_past_what_was_for_others(
    database: str, producer: asyncpg.Connection
) -> None:
    async with running(database, heartbeat=1.0) as hub:
        follower = await Follower(["quiet"]).connect(hub)
        before = follower.since
        await publish(producer, 1)
        async with asyncio.timeout(PATIENCE):
            while follower.since == before:
                assert (await follower.take())["type"] == "cursor"


async def test_an_unsubscribe_cancels_a_replay_under_way(hub: Any, producer: asyncpg.Connection) -> None:
    await producer.execute(
        "INSERT INTO hub.events (channel, payload) "
        "SELECT 'bulk', to_jsonb(repeat('x', 4000)) FROM generate_series(1, 5000)"
    )
    await (await Follower(["bulk"]).connect(hub, last=1)).socket.close()  # now the hub has seen them
    socket = await connect(hub.ws, max_size=None, max_queue=1)
    generation = await producer.fetchval("SELECT generation FROM hub.log")
    beginning = Cursor(generation, Snapshot(1, 1))
    for command in (
        {"type": "subscribe", "id": 1, "channels": ["bulk", "b"], "since": str(beginning)},
        {"type": "unsubscribe", "id": 2, "channels": ["bulk"]},
    ):
        await socket.send(orjson.dumps(command).decode())
    kinds = []
    async with asyncio.timeout(PATIENCE):
        while not kinds or kinds[-1] != "unsubscribed":
            message = orjson.loads(await socket.recv())
            kinds.append(message["type"])
            if message["type"] == "error":
                assert (message["id"], message["code"], message["channels"]) == (1, "cancelled", ["bulk"])
    assert "error" in kinds
    assert "subscribed" not in kinds
    await socket.close()
    with pytest.raises(ConnectionClosed):
        await socket.recv()
