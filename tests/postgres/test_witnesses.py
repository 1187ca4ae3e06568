"""Whether the log still has what cursors have seen, asked for many of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hub import snapshot
from hub.cursor import Cursor, Place, Witness
from hub.postgres import moment
from hub.postgres.connect import Connection
from hub.postgres.moment import STANDS
from hub.postgres.witnesses import Witnesses
from hub.snapshot import NOTHING, Snapshot

ERA = 1  # of whoever asks


class Counted:
    """The way to the database, which counts statements, and breaks when it is told to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.statements = 0
        self.broken = False

    async def __call__(self, statement: str, *arguments: object) -> list[Any]:
        self.statements += 1
        await asyncio.sleep(0)
        if self.broken:
            raise ConnectionResetError("gone")
        return await self._connection.fetch(statement, *arguments)


@pytest.fixture
def fetch(connection: Connection) -> Counted:
    return Counted(connection)


@pytest.fixture
def publish(connection: Connection) -> Callable[[], Awaitable[Cursor]]:
    async def publish() -> Cursor:
        await connection.execute("SELECT hub.publish('a', '1')")
        return moment.position(await connection.fetchrow(STANDS))

    return publish


def lost(seen: Cursor) -> Cursor:
    """The same cursor, but for an event that is not there."""
    assert seen.witness is not None
    return Cursor(seen.generation, seen.snapshot, Witness(seen.witness.xid, seen.witness.id, 1), era=seen.era)


async def set_floor(connection: Connection, seen: Cursor) -> None:
    assert seen.witness is not None
    witness = [seen.witness.xid, seen.witness.id, seen.witness.at]
    await connection.execute("SELECT hub.set_floor($1::text::pg_snapshot, $2)", str(seen.snapshot), witness)


async def test_what_is_there_is_gone_on_from(fetch: Counted, publish: Any) -> None:
    seen = await publish()
    page = await Witnesses(fetch).verify(seen, ERA)
    assert (page.position, page.gap) == (seen.of(ERA), None)


async def test_who_has_seen_nothing_has_lost_nothing(fetch: Counted) -> None:
    page = await Witnesses(fetch).verify(Cursor(5, NOTHING), ERA)
    assert (page.position, fetch.statements) == (Cursor(5, NOTHING, era=ERA), 0)


async def test_where_it_is_lost_its_era_s_floor_is_where_to_go_on(
    fetch: Counted, publish: Any, connection: Connection
) -> None:
    await moment.arrive(connection, None)
    floor = await publish()
    await set_floor(connection, floor)
    seen = lost(await publish())
    assert (await Witnesses(fetch).verify(seen, ERA)).position == floor.of(ERA)
    await moment.arrive(connection, None)
    await set_floor(connection, await publish())
    page = await Witnesses(fetch).verify(seen, ERA)
    assert (page.position, page.gap) == (floor.of(ERA), "failover")


async def test_an_era_that_nobody_knows_begins_at_the_start(fetch: Counted, publish: Any) -> None:
    seen = lost((await publish()).of(4))
    page = await Witnesses(fetch).verify(seen, ERA)
    assert (page.position, page.gap) == (Cursor(seen.generation, NOTHING, era=ERA), "reset")


async def test_who_is_inside_a_replay_from_below_the_floor_begins_it_again(
    fetch: Counted, publish: Any, connection: Connection
) -> None:
    await moment.arrive(connection, None)
    began, floor = await publish(), await publish()
    await set_floor(connection, floor)
    seen = lost(await publish())
    inside = Cursor(seen.generation, began.snapshot, seen.witness, Place(seen.snapshot, 2), seen.era)
    assert (await Witnesses(fetch).verify(inside, ERA)).position == Cursor(
        seen.generation, began.snapshot, floor.witness, era=ERA
    )


@pytest.mark.parametrize("noted", [True, False])
async def test_what_retention_has_taken_was_not_lost_before_if_the_floor_has_seen_it(
    fetch: Counted, publish: Any, connection: Connection, noted: bool
) -> None:
    await moment.arrive(connection, None)
    seen = await publish()
    if noted:
        await set_floor(connection, seen)
    await connection.execute("UPDATE hub.log SET horizon = $1::text::xid8", str(seen.snapshot.xmax))
    assert (await Witnesses(fetch).verify(lost(seen), ERA)).gap == (None if noted else "failover")


async def test_a_cursor_without_a_witness_is_good_if_retention_has_taken_all_that_it_has_seen(
    fetch: Counted, connection: Connection
) -> None:
    seen = (await connection.fetchval("SELECT era FROM hub.log"), Snapshot(9, 9))
    bare = Cursor(5, seen[1], era=seen[0])
    assert (await Witnesses(fetch).verify(bare, ERA)).gap == "failover"
    await connection.execute("UPDATE hub.log SET horizon = '9'")
    assert (await Witnesses(fetch).verify(bare, ERA)).position == bare.of(ERA)


async def test_thousands_that_ask_at_once_are_a_few_statements_and_later_ones_none(
    fetch: Counted, publish: Any
) -> None:
    seen = await publish()
    cursors = [lost(seen.of(number)) for number in range(2_500)] + [seen.of(number) for number in range(2_500)]
    witnesses = Witnesses(fetch)
    pages = await asyncio.gather(*(witnesses.verify(each, ERA) for each in cursors))
    assert fetch.statements == 5
    assert [page.gap is None for page in pages] == [False] * 2_500 + [True] * 2_500
    await asyncio.gather(*(witnesses.verify(each, ERA) for each in cursors))
    assert fetch.statements == 5


async def test_while_the_log_cannot_be_read_all_are_told_and_may_ask_again(fetch: Counted, publish: Any) -> None:
    seen = await publish()
    witnesses = Witnesses(fetch)
    fetch.broken = True
    answers = await asyncio.gather(*(witnesses.verify(seen.of(n), ERA) for n in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionResetError] * 3
    fetch.broken = False
    assert (await witnesses.verify(seen, ERA)).gap is None


async def test_who_is_cancelled_disturbs_no_other(fetch: Counted, publish: Any) -> None:
    seen = await publish()
    witnesses = Witnesses(fetch)
    one, two = (asyncio.create_task(witnesses.verify(seen, ERA)) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    assert (await two).gap is None


def test_a_floor_is_fallen_back_to_unless_less_had_been_seen() -> None:
    floor, seen_last = snapshot.parse("5:9:5,7"), Witness(8, 1, 1)
    for seen, start in (("3:3:", "3:3:"), ("5:9:5,7", "5:9:5,7"), ("9:9:", "5:9:5,7"), ("6:6:", "5:9:5,7")):
        assert Cursor(1, snapshot.parse(seen)).fallen_back(floor, seen_last, ERA) == Cursor(
            1, snapshot.parse(start), seen_last, era=ERA
        )
    assert Cursor(1, Snapshot(4, 4)).fallen_back(NOTHING, None, ERA).snapshot == NOTHING
