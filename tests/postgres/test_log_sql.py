"""The log's SQL, as producers of any language meet it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest


@pytest.fixture
async def producer(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def another(database: str) -> AsyncIterator[Callable[..., Any]]:
    """Opens further connections."""
    opened: list[asyncpg.Connection] = []

    async def connect(**options: Any) -> asyncpg.Connection:
        opened.append(await asyncpg.connect(database, **options))
        return opened[-1]

    yield connect
    for each in opened:
        await each.close()


async def events(connection: asyncpg.Connection) -> list[tuple[Any, ...]]:
    rows = await connection.fetch("SELECT channel, payload::text, tags FROM hub.events ORDER BY id")
    return [tuple(row) for row in rows]


async def test_publish_returns_the_id_of_what_it_wrote(producer: asyncpg.Connection) -> None:
    first = await producer.fetchval("""SELECT hub.publish('orders', '{"id": 1}'::jsonb)""")
    second = await producer.fetchval("SELECT hub.publish('orders', '2', ARRAY['a', 'b'])")
    assert second > first
    assert await events(producer) == [("orders", '{"id": 1}', []), ("orders", "2", ["a", "b"])]


async def test_a_rollback_publishes_nothing_and_a_savepoint_only_what_it_keeps(producer: asyncpg.Connection) -> None:
    transaction = producer.transaction()
    await transaction.start()
    await producer.execute("SELECT hub.publish('a', '1')")
    await transaction.rollback()
    async with producer.transaction():
        await producer.execute("SELECT hub.publish('a', '2'); SAVEPOINT s; SELECT hub.publish('a', '3')")
        await producer.execute("ROLLBACK TO s; SELECT hub.publish('a', '4')")
    assert [payload for _, payload, _ in await events(producer)] == ["2", "4"]


@pytest.mark.parametrize("channel", ["", "x" * 64, "ü" * 32, "a.*", "a\nb", "a\x7fb", "a\x85b", "$hub", "hub_bell"])
async def test_a_channel_that_no_subscriber_could_have_is_refused(producer: asyncpg.Connection, channel: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="legal_channel"):
        await producer.execute("SELECT hub.publish($1, '1')", channel)


@pytest.mark.parametrize("channel", ["orders", "Größe 1", 'a"b', "x" * 63, "hubs", "a$"])
async def test_any_other_channel_is_accepted(producer: asyncpg.Connection, channel: str) -> None:
    assert await producer.fetchval("SELECT hub.publish($1, '1')", channel)


async def test_payloads_and_tags_are_bounded(producer: asyncpg.Connection) -> None:
    await producer.execute("SELECT hub.publish('a', to_jsonb(repeat('x', 786430)))")
    with pytest.raises(asyncpg.CheckViolationError, match="payload_fits"):
        await producer.execute("SELECT hub.publish('a', to_jsonb(repeat('x', 786431)))")
    with pytest.raises(asyncpg.CheckViolationError, match="tags_fit"):
        await producer.execute("SELECT hub.publish('a', '1', array_fill('t'::text, ARRAY[33]))")


async def test_a_key_makes_a_second_publish_safe(producer: asyncpg.Connection) -> None:
    publish = "SELECT hub.publish_once('a', $1::jsonb, $2)"
    first = await producer.fetchval(publish, "1", "k")
    assert await producer.fetchval(publish, "1", "k") == first
    assert await producer.fetchval(publish, "2", "other") != first
    await producer.execute("UPDATE hub.keys SET used_at = now() - interval '25 hours' WHERE key = 'k'")
    assert await producer.fetchval(publish, "3", "k") > first
    assert [payload for _, payload, _ in await events(producer)] == ["1", "2", "3"]
    with pytest.raises(asyncpg.CheckViolationError, match="key_fits"):
        await producer.execute(publish, "1", "x" * 256)


async def test_of_two_publishes_with_one_key_at_once_the_second_waits_and_publishes_nothing(
    producer: asyncpg.Connection, another: Callable[..., Any]
) -> None:
    other = await another()
    await producer.execute("BEGIN")
    first = await producer.fetchval("SELECT hub.publish_once('a', '1', 'k')")
    second = asyncio.create_task(other.fetchval("SELECT hub.publish_once('a', '1', 'k')"))
    while not await producer.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0.01)
    await producer.execute("COMMIT")
    assert await second == first
    assert len(await events(producer)) == 1


async def test_insert_and_copy_do_the_same(producer: asyncpg.Connection) -> None:
    await producer.execute("INSERT INTO hub.events (channel, payload) VALUES ('a', '1')")
    rows = [("b", "2", ["t"]), ("c", "3", [])]
    await producer.copy_records_to_table(
        "events", schema_name="hub", columns=["channel", "payload", "tags"], records=rows
    )
    assert await events(producer) == [("a", "1", []), ("b", "2", ["t"]), ("c", "3", [])]


async def test_a_forged_xid_is_refused_by_insert_and_by_copy(producer: asyncpg.Connection) -> None:
    """2^63-1 would hide all that comes after it from every cursor."""
    forged = "INSERT INTO hub.events (xid, channel, payload) VALUES ('9223372036854775807', 'a', '1')"
    with pytest.raises(asyncpg.CheckViolationError, match="own_xid"):
        await producer.execute(forged)
    with pytest.raises(asyncpg.CheckViolationError, match="own_xid"):
        await producer.copy_to_table(
            "events",
            schema_name="hub",
            columns=["xid", "channel", "payload"],
            source=lines("9223372036854775807\ta\t1\n"),
        )


async def lines(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


async def test_a_role_needs_one_grant_and_no_more(producer: asyncpg.Connection, another: Callable[..., Any]) -> None:
    await producer.execute("CREATE ROLE seller LOGIN")
    try:
        seller = await another(user="seller")
        for attempt in ("SELECT hub.publish('a', '1')", "INSERT INTO hub.events (channel, payload) VALUES ('a', '1')"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await seller.execute(attempt)
        await producer.execute("GRANT USAGE ON SCHEMA hub TO seller; GRANT EXECUTE ON FUNCTION hub.publish TO seller")
        assert await seller.fetchval("SELECT hub.publish('a', '1')")
        await producer.execute("REVOKE EXECUTE ON FUNCTION hub.publish FROM seller")
        await producer.execute("GRANT INSERT (channel, payload, tags) ON hub.events TO seller")
        await seller.execute("INSERT INTO hub.events (channel, payload) VALUES ('a', '2')")
        for attempt in ("SELECT 1 FROM hub.events", "SELECT hub.doze()", "DO 'BEGIN LOCK TABLE hub.bell; END'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await seller.execute(attempt)
        await seller.close()
    finally:
        await producer.execute("DROP OWNED BY seller; DROP ROLE seller")


async def test_a_hostile_search_path_changes_nothing(producer: asyncpg.Connection, another: Callable[..., Any]) -> None:
    """What a producer puts before pg_catalog must not run with the owner's rights."""
    await producer.execute(
        """
        CREATE SCHEMA evil;
        CREATE TABLE evil.loot (what text);
        CREATE FUNCTION evil.pg_notify(text, text) RETURNS void LANGUAGE sql
            AS $$ INSERT INTO evil.loot VALUES ('n') $$;
        CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text LANGUAGE sql
            AS $$ INSERT INTO evil.loot VALUES ('s') RETURNING 'off' $$;
        CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE sql
            AS $$ INSERT INTO evil.loot VALUES ('=') RETURNING true $$;
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same);
        CREATE TABLE evil.events (channel text, payload jsonb, tags text[], id bigint);
        """
    )
    sleeper = await another()
    await sleeper.execute("BEGIN; SELECT hub.doze()")
    await producer.execute("SET search_path = evil, pg_catalog; SET hub.ring = 'on'")
    await producer.execute("SELECT hub.publish('a', '1')")
    assert await producer.fetchval("SELECT count(*) FROM evil.loot") == 0
    assert await producer.fetchval("SELECT count(*) FROM evil.events") == 0
    await sleeper.execute("ROLLBACK")


async def heard(listener: asyncpg.Connection) -> Callable[[], Any]:
    """Counts what rang on the bell so far."""
    rung: list[str] = []
    await listener.add_listener("hub_bell", lambda *message: rung.append(message[3]))

    async def count() -> int:
        await listener.execute("SELECT 1")  # notifications come before its answer
        return len(rung)

    return count


async def test_producers_ring_only_while_a_hub_sleeps(
    producer: asyncpg.Connection, another: Callable[..., Any]
) -> None:
    sleeper, count = await another(), await heard(await another())
    await producer.execute("SELECT hub.publish('a', '1')")
    assert await count() == 0
    await sleeper.execute("BEGIN; SELECT hub.doze()")
    await producer.execute("SELECT hub.publish('a', '2')")
    assert await count() == 1
    await sleeper.execute("ROLLBACK")
    await producer.execute("SELECT hub.publish('a', '3')")
    assert await count() == 1


async def test_a_producer_with_an_old_snapshot_rings_too(
    producer: asyncpg.Connection, another: Callable[..., Any]
) -> None:
    sleeper, count = await another(), await heard(await another())
    await producer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM hub.events")
    await sleeper.execute("BEGIN; SELECT hub.doze()")
    await producer.execute("SELECT hub.publish('a', '1'); COMMIT")
    assert await count() == 1
    await sleeper.execute("ROLLBACK")


async def test_no_hub_falls_asleep_while_a_producer_is_in_flight(
    producer: asyncpg.Connection, another: Callable[..., Any]
) -> None:
    sleeper = await another()
    await producer.execute("BEGIN; SELECT hub.publish('a', '1')")
    assert await sleeper.fetchval("SELECT hub.doze()") is False
    await producer.execute("COMMIT")
    assert await sleeper.fetchval("SELECT hub.doze()") is True


async def test_several_hubs_sleep_at_once(another: Callable[..., Any]) -> None:
    one, two = await another(), await another()
    for sleeper in (one, two):
        await sleeper.execute("BEGIN")
        assert await sleeper.fetchval("SELECT hub.doze()") is True
    for sleeper in (one, two):
        await sleeper.execute("ROLLBACK")


async def test_a_transaction_that_is_to_be_prepared_need_not_ring(
    producer: asyncpg.Connection, another: Callable[..., Any]
) -> None:
    sleeper, count = await another(), await heard(await another())
    await sleeper.execute("BEGIN; SELECT hub.doze()")
    await producer.execute("BEGIN; SET LOCAL hub.ring = 'off'; SELECT hub.publish('a', '1'); COMMIT")
    assert await count() == 0
    await sleeper.execute("ROLLBACK")


async def test_a_truncate_starts_another_generation(producer: asyncpg.Connection) -> None:
    before = await producer.fetchval("SELECT generation FROM hub.log")
    await producer.execute("TRUNCATE hub.events")
    assert await producer.fetchval("SELECT generation FROM hub.log") != before


async def test_everything_has_a_comment(producer: asyncpg.Connection) -> None:
    """SQL is source code: who meets it in psql learns there what it is."""
    silent = await producer.fetch(
        """
        SELECT c.relname || coalesce('.' || a.attname, '') AS name
          FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace = 'hub'::regnamespace AND c.relkind = 'r'
           AND (obj_description(c.oid) IS NULL OR a.attnum IS NOT NULL AND col_description(c.oid, a.attnum) IS NULL)
        UNION ALL
        SELECT proname FROM pg_proc
         WHERE pronamespace = 'hub'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL
        """
    )
    assert [row["name"] for row in silent] == []
