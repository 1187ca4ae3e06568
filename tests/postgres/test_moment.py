"""Arriving at a log: an era each time, a floor to fall back to, and a look whether all that was seen is there."""

from __future__ import annotations

import asyncio

import pytest

from hub.cursor import Cursor, Witness
from hub.postgres import moment
from hub.postgres.connect import Connection, Target
from hub.postgres.moment import STANDS
from tests.postgres.conftest import opened


async def publish(connection: Connection, count: int = 1) -> None:
    for _ in range(count):
        await connection.execute("SELECT hub.publish('a', '1')")


async def here(connection: Connection) -> Cursor:
    return moment.position(await connection.fetchrow(STANDS))


async def test_who_has_seen_nothing_begins_at_the_start(connection: Connection) -> None:
    assert not await moment.arrive(connection, None)


async def test_each_arrival_begins_an_era_and_keeps_the_floor_of_the_one_before(connection: Connection) -> None:
    await moment.arrive(connection, None)
    first = await here(connection)
    await connection.execute("SELECT hub.set_floor('7:7:', NULL)")
    await moment.arrive(connection, None)
    second = await here(connection)
    assert first.era != second.era
    assert await connection.fetchval("SELECT floor::text FROM hub.floors WHERE era = $1", first.era) == "7:7:"
    assert await connection.fetchval("SELECT floor::text FROM hub.log") == "7:7:", "till there is a better one"


async def test_what_is_still_there_is_gone_on_from_and_what_is_lost_is_not(connection: Connection) -> None:
    await publish(connection, 2)
    seen = await here(connection)
    assert await moment.arrive(connection, seen)
    await connection.execute("DELETE FROM hub.events WHERE xid = (SELECT max(xid) FROM hub.events)")  # as a crash does
    assert not await moment.arrive(connection, seen)


async def test_an_event_of_the_same_number_from_another_time_is_another_one(connection: Connection) -> None:
    await publish(connection)
    seen = await here(connection)
    assert seen.witness is not None
    other = Witness(seen.witness.xid, seen.witness.id, seen.witness.at + 1)
    assert not await moment.arrive(connection, Cursor(seen.generation, seen.snapshot, other))


@pytest.mark.parametrize("noted", [True, False])
async def test_what_retention_has_taken_was_not_lost_before_if_the_floor_has_seen_it(
    connection: Connection, noted: bool
) -> None:
    """Else other events by the same numbers may be what it took."""
    await publish(connection)
    seen = await here(connection)
    if noted:
        await connection.execute("SELECT hub.set_floor($1::text::pg_snapshot, NULL)", str(seen.snapshot))
    await connection.execute("DELETE FROM hub.events")
    await connection.execute("UPDATE hub.log SET horizon = $1::text::xid8", str(seen.snapshot.xmax))
    assert await moment.arrive(connection, seen) is noted


async def test_what_retention_has_taken_unread_is_not_gone_on_behind(connection: Connection) -> None:
    await publish(connection)
    seen = await here(connection)
    await publish(connection, 3)
    await connection.execute("DELETE FROM hub.events WHERE id = 2")
    await connection.execute("UPDATE hub.log SET horizon = $1::text::xid8", str(seen.snapshot.xmax + 1))
    assert not await moment.arrive(connection, seen)


async def test_after_a_truncate_nothing_that_was_seen_means_anything(connection: Connection) -> None:
    await publish(connection)
    seen = await here(connection)
    await connection.execute("TRUNCATE hub.events")
    assert not await moment.arrive(connection, seen)


async def test_only_the_last_thousand_eras_are_kept(connection: Connection) -> None:
    await connection.execute(
        "INSERT INTO hub.floors (era, ended_at) "
        "SELECT -n, now() - n * interval '1 s' FROM generate_series(1, 1100) AS n"
    )
    await moment.arrive(connection, None)
    assert await connection.fetchval("SELECT count(*) FROM hub.floors") == 1000
    assert await connection.fetchval("SELECT min(era) FROM hub.floors") == -999


async def test_a_floor_waits_for_nobody(connection: Connection, database: str) -> None:
    async with opened(Target(database)) as retention:
        await retention.execute("BEGIN; SELECT * FROM hub.log FOR UPDATE")
        async with asyncio.timeout(5):
            assert not await connection.fetchval("SELECT hub.set_floor('9:9:', '{8,1,1}')")
        await retention.execute("ROLLBACK")
    assert await connection.fetchval("SELECT floor FROM hub.log") is None
    assert await connection.fetchval("SELECT hub.set_floor('9:9:', '{8,1,1}')")
    assert await connection.fetchrow("SELECT floor::text, witness FROM hub.log") == ("9:9:", [8, 1, 1])


async def elsewhere(connection: Connection, *, restored: bool) -> None:
    """Let the log come from another cluster: by a restore, which writes its rows anew, or as they were."""
    stamp = "'1'" if restored else "DEFAULT"
    await connection.execute(f"UPDATE hub.cluster SET system = 1, stamp = {stamp}")


async def test_an_upgraded_cluster_is_known_by_the_transaction_of_a_row(connection: Connection) -> None:
    await connection.execute("BEGIN; SAVEPOINT s; SELECT hub.publish('a', '1'); COMMIT")  # its xmin is not its xid
    await moment.arrive(connection, None)
    before = await here(connection)
    await elsewhere(connection, restored=False)
    assert await moment.arrive(connection, before)
    assert (await here(connection)).generation == before.generation


@pytest.mark.parametrize("kept", [True, False], ids=["with events", "empty"])
async def test_a_restored_log_becomes_one_of_this_cluster(connection: Connection, kept: bool) -> None:
    await publish(connection, 3)
    await moment.arrive(connection, None)
    before = await here(connection)
    await connection.execute("UPDATE hub.log SET horizon = '5', floor = '5:5:'")
    await connection.execute("CREATE TABLE public.dump AS SELECT * FROM hub.events; DELETE FROM hub.events")
    if kept:
        await connection.execute("ALTER TABLE hub.events DROP CONSTRAINT own_xid")  # which a dump restores last
        await connection.execute("INSERT INTO hub.events OVERRIDING SYSTEM VALUE SELECT * FROM public.dump")
        await connection.execute(
            "ALTER TABLE hub.events ADD CONSTRAINT own_xid CHECK (xid = pg_current_xact_id()) NOT VALID"
        )
    await elsewhere(connection, restored=True)
    assert not await moment.arrive(connection, before)
    after = await here(connection)
    assert after.generation != before.generation
    assert await connection.fetchval("SELECT bool_and(xid::text = xmin::text) FROM hub.events") is (
        True if kept else None
    )
    assert await connection.fetchrow("SELECT horizon::text, floor FROM hub.log") == ("0", None)
    assert await moment.arrive(connection, after), "and the next time nothing has happened"
