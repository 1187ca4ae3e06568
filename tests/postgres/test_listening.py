"""A connection that listens, against a real Postgres."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import asyncpg
import pytest

from hub.postgres.connect import Connection, Target, connect_listening
from hub.postgres.listening import ListeningConnection, Notification, quoted


@pytest.fixture
async def listening(database: str) -> AsyncIterator[ListeningConnection]:
    opened = await connect_listening(Target(database))
    yield opened
    await opened.close()


async def channels(connection: ListeningConnection) -> set[str]:
    return {row[0] for row in await connection.fetch("SELECT pg_listening_channels()")}


async def test_notifications_come_in_order_from_the_moment_listen_took_effect(
    listening: ListeningConnection, connection: Connection
) -> None:
    heard: asyncio.Queue[Notification] = asyncio.Queue()
    listening.on_notification = heard.put_nowait
    await listening.listen(["a", "b"])
    await connection.execute("NOTIFY a, '1'; NOTIFY b, '2'; NOTIFY c, 'never'; NOTIFY a, '3'")
    assert [await heard.get() for _ in range(3)] == [("a", "1"), ("b", "2"), ("a", "3")]


async def test_without_a_taker_notifications_are_dropped(
    listening: ListeningConnection, connection: Connection
) -> None:
    await listening.listen(["a"])
    await connection.execute("NOTIFY a, 'dropped'")
    await listening.fetchval("SELECT 1")
    heard: asyncio.Queue[Notification] = asyncio.Queue()
    listening.on_notification = heard.put_nowait
    await connection.execute("NOTIFY a, 'heard'")
    assert await heard.get() == ("a", "heard")


async def test_thousands_of_channels_come_and_go_in_a_few_statements(listening: ListeningConnection) -> None:
    statements: list[str] = []
    listening.add_query_logger(lambda record: statements.append(record.query))
    names = [f"channel {number}" for number in range(2_500)]
    await listening.listen(names)
    assert await channels(listening) == set(names)
    assert [statement.count("LISTEN") for statement in statements[:3]] == [1_000, 1_000, 500]
    await listening.unlisten(names[1:])
    assert await channels(listening) == {names[0]}


@pytest.mark.parametrize(
    "name", ["UPPER", "a b", 'quo"te', '""', "a'; DROP TABLE x; --", "ünï ✓", "x" * 63, "a;b", "$1"]
)
async def test_any_name_is_quoted_so_that_it_stays_itself(
    listening: ListeningConnection, connection: Connection, name: str
) -> None:
    await listening.listen([name])
    assert await channels(listening) == {name}
    assert quoted(name) == await connection.fetchval("SELECT '\"' || replace($1, '\"', '\"\"') || '\"'", name)


def test_asyncpg_still_hands_notifications_to_the_method_that_is_overridden() -> None:
    """Not public, so an upgrade may change it: then look at protocol.pyx and at ListeningConnection together."""
    method = vars(asyncpg.Connection)["_process_notification"]
    theirs = inspect.signature(method)
    assert list(theirs.parameters) == ["self", "pid", "channel", "payload"]
    ours = inspect.signature(ListeningConnection._process_notification)
    assert len(ours.parameters) == len(theirs.parameters)
    assert not inspect.iscoroutinefunction(method)
