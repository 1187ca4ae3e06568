"""Retention takes the oldest, tells the horizon, and never what somebody could not have seen."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from hub.postgres import retention
from hub.postgres.connect import Connection, Target
from hub.postgres.retention import Keep
from tests.postgres.conftest import opened

YEAR = timedelta(days=365)


async def publish(connection: Connection, count: int = 1) -> list[int]:
    return [await connection.fetchval("SELECT hub.publish('a', '1')") for _ in range(count)]


async def make_old(connection: Connection, ids: list[int]) -> None:
    await connection.execute(
        "ALTER TABLE hub.events DROP CONSTRAINT own_xid"
    )  # an update is no other transaction's row
    await connection.execute("UPDATE hub.events SET published_at = now() - interval '8 days' WHERE id = ANY($1)", ids)


async def left(connection: Connection) -> list[int]:
    return [row["id"] for row in await connection.fetch("SELECT id FROM hub.events ORDER BY id")]


async def horizon(connection: Connection) -> int:
    value = await connection.fetchval("SELECT horizon::text::bigint FROM hub.log")
    assert isinstance(value, int)
    return value


async def apply(connection: Connection, **keep: Any) -> int:
    return sum([gone async for gone in retention.apply(connection, Keep(**keep))])


async def test_what_is_older_goes_and_the_horizon_rises_with_it(connection: Connection) -> None:
    old = await publish(connection, 5)
    young = await publish(connection, 3)
    greatest = await connection.fetchval("SELECT max(xid::text::bigint) FROM hub.events WHERE id = ANY($1)", old)
    await make_old(connection, old)
    assert await apply(connection, age=timedelta(days=7)) == 5
    assert await left(connection) == young
    assert await horizon(connection) == greatest + 1


async def test_of_more_than_the_count_the_newest_stay(connection: Connection) -> None:
    ids = await publish(connection, 10)
    assert await apply(connection, count=4) == 6
    assert await left(connection) == ids[-4:]
    assert await apply(connection, count=4) == 0


@pytest.mark.parametrize(("count", "text"), [(2_000, 100), (1_000, 1_500), (300, 10_000)])
async def test_a_size_is_kept_to_by_what_the_rows_take(connection: Connection, count: int, text: int) -> None:
    """Within a fifth, whether they are small, fill a page or are cut to pieces; no file becomes smaller by it."""
    publish = (
        "INSERT INTO hub.events (channel, payload) SELECT 'a', to_jsonb(repeat('x', $1)) FROM generate_series(1, $2)"
    )
    for _ in range(count // 10):
        await connection.execute(publish, text, 10)
    size = await connection.fetchval("SELECT pg_total_relation_size('hub.events')")
    assert await apply(connection, size=size) == 0
    await apply(connection, size=size // 2)
    assert 0.4 * count <= len(await left(connection)) <= 0.6 * count
    assert await apply(connection, size=size // 2) == 0


async def test_of_count_and_size_the_stricter_counts(connection: Connection) -> None:
    ids = await publish(connection, 10)
    assert await apply(connection, size=1 << 30, count=4) == 6
    assert await apply(connection, size=1, count=3) == 3
    assert await left(connection) == ids[-1:]


async def test_a_transaction_goes_as_a_whole_or_not_at_all(connection: Connection) -> None:
    async with connection.transaction():
        first = await publish(connection, 5)
    last = await publish(connection, 3)
    assert await apply(connection, count=4) == 0
    assert await left(connection) == first + last
    assert await apply(connection, count=3) == 5


async def test_the_newest_stays_however_old_it_is(connection: Connection) -> None:
    ids = await publish(connection, 3)
    await make_old(connection, ids)
    assert await apply(connection, age=timedelta(seconds=1)) == 2
    assert await left(connection) == ids[-1:]


async def test_where_there_is_nothing_to_do_it_is_one_statement(connection: Connection) -> None:
    """It is asked every minute, and most hubs sleep then."""

    async def statements() -> int:
        sent: list[object] = []
        with connection.query_logger(sent.append):
            assert await apply(connection, age=timedelta(seconds=1), count=2, size=1 << 20) == 0
        await asyncio.sleep(0)  # asyncpg calls its loggers in the next turn
        return len(sent)

    assert await statements() == 1, "an empty log"
    await make_old(connection, await publish(connection))
    assert await statements() == 1, "only the newest event is left, which stays"
    await connection.execute("CREATE TABLE items (id int); SELECT hub.watch('items')")
    assert await statements() == 1, "a watched table is as it was"


async def test_it_goes_batch_by_batch(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH", 3)
    ids = await publish(connection, 11)
    assert [gone async for gone in retention.apply(connection, Keep(count=1))] == [3, 3, 3, 1]
    assert await left(connection) == ids[-1:]


async def test_nothing_goes_that_a_writer_still_open_could_stand_before(connection: Connection, database: str) -> None:
    async with opened(Target(database)) as writer:
        await writer.execute("BEGIN")
        early = await publish(writer)
        later = await publish(connection, 5)
        assert await apply(connection, count=1) == 0
        await writer.execute("COMMIT")
        assert await left(connection) == sorted(early + later)
    assert await apply(connection, count=1) == 5


async def test_while_another_hub_is_at_it_this_one_lets_it_be(connection: Connection, database: str) -> None:
    await publish(connection, 3)
    async with opened(Target(database)) as other:
        await other.execute("BEGIN; SELECT horizon FROM hub.log FOR UPDATE")
        assert await apply(connection, count=1) == 0
    assert await apply(connection, count=1) == 2


async def test_without_limits_everything_stays(connection: Connection) -> None:
    ids = await publish(connection, 3)
    assert await apply(connection) == 0
    assert await left(connection) == ids


async def test_keys_are_forgotten_after_a_day(connection: Connection) -> None:
    for key, age in (("old", "25 hours"), ("young", "23 hours")):
        await connection.execute("SELECT hub.publish_once('a', '1', $1)", key)
        await connection.execute(f"UPDATE hub.keys SET used_at = now() - interval '{age}' WHERE key = $1", key)
    await apply(connection)
    assert [row["key"] for row in await connection.fetch("SELECT key FROM hub.keys")] == ["young"]


async def test_watched_tables_that_have_changed_are_followed(connection: Connection) -> None:
    await connection.execute("CREATE TABLE items (id int) PARTITION BY LIST (id); SELECT hub.watch('items')")
    assert await apply(connection) == 0
    assert await left(connection) == []
    await connection.execute("CREATE TABLE part PARTITION OF items DEFAULT")
    await apply(connection)
    assert await connection.fetchval("SELECT array_agg(payload ->> 'op') FROM hub.events") == ["reload"]
    await connection.execute("INSERT INTO part VALUES (1)")
    assert len(await left(connection)) == 2
