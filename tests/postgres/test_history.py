"""The past by SQL: which plans, which order, what room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from hub.cursor import Cursor
from hub.errors import Code, CommandError
from hub.postgres import history, past
from hub.postgres.connect import Connection, Pool, Target, pool
from hub.postgres.history import History
from hub.query import Query, parse
from hub.selection import select
from hub.snapshot import NOTHING
from tests.postgres.conftest import opened

FILL = """
    ALTER TABLE hub.events SET (autovacuum_enabled = off);
    INSERT INTO hub.events (channel, payload, tags)
    SELECT CASE WHEN n % 50000 = 0 THEN 'rare' ELSE 'busy.' || n % 3 END, to_jsonb(n), ARRAY['t' || n % 7]
      FROM generate_series(1, 200000) AS n
"""
QUERIES = {
    "all": Query(),
    "a name": Query(select(["rare"])),
    "names": Query(select(["rare", "busy.1", "nobody"])),
    "a pattern": Query(select(["busy.*"])),
    "a tag": Query(tags=("t1", "t2")),
    "a time": Query(select(["busy.1"]), begin=datetime(2020, 1, 1, tzinfo=UTC), end=datetime(2040, 1, 1, tzinfo=UTC)),
}
HERE = Cursor(1, NOTHING)
STATISTICS = pytest.mark.parametrize("analysed", [False, True], ids=["never analysed", "analysed"])


@pytest.fixture
async def connections(database: str) -> AsyncIterator[Pool]:
    async with pool(Target(database), min_size=0, max_size=4) as opened_pool:
        yield opened_pool


@pytest.fixture
def log(connections: Pool) -> History:
    return History(connections, connections)


@STATISTICS
async def test_the_plans_use_the_indexes(connection: Connection, analysed: bool) -> None:
    await connection.execute(FILL)
    if analysed:
        await connection.execute("ANALYZE hub.events")
    end = Cursor(1, NOTHING.lifted(1 << 31))
    for what, query in QUERIES.items():
        whole = Query(query.selection, query.tags, begin=query.begin, end=query.end, limit=100, last=100)
        for text, arguments in (
            past.page_of(whole, HERE, end, 0),
            past.start_of(whole, HERE, end),
            past.rows_of(query, HERE, end, 0),
            past.rows_of(query, HERE, end, 0, csv=True),
        ):
            async with connection.transaction():
                await connection.execute(history._LOCAL)
                plan = "\n".join([row[0] for row in await connection.fetch(f"EXPLAIN {text}", *arguments)])
            assert "Index" in plan, what
            assert "Seq Scan on events" not in plan, (what, plan)


@STATISTICS
async def test_a_page_of_a_rare_channel_and_its_newest_read_little(connection: Connection, analysed: bool) -> None:
    """Not all that lies between its events, which statistics tempt to: they do not know that it is rare."""
    await connection.execute(FILL)
    if analysed:
        await connection.execute("ANALYZE hub.events")
    end = Cursor(1, NOTHING.lifted(1 << 31))
    for name in ("a name", "names"):
        query = Query(QUERIES[name].selection, limit=3, last=3)
        for text, arguments in (past.page_of(query, HERE, end, 0), past.start_of(query, HERE, end)):
            async with connection.transaction():
                await connection.execute(history._LOCAL)
                (plan,) = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {text}", *arguments)
            assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 100, name


async def test_what_commits_late_is_on_a_later_page_and_only_there(
    log: History, connection: Connection, database: str
) -> None:
    """A page's cursor is inside one snapshot; behind its end comes what was not visible, whatever its id."""
    async with opened(Target(database)) as late:
        await late.execute("BEGIN")
        early = await late.fetchval("SELECT hub.publish('a', '0')")
        ids = [await connection.fetchval("SELECT hub.publish('a', '1')") for _ in range(4)]
        first = await log.page(Query(select(["a"]), limit=2))
        await late.execute("COMMIT")
        ids.append(await connection.fetchval("SELECT hub.publish('a', '2')"))
        second = await log.page(Query(select(["a"]), since=first.position, limit=3))
        third = await log.page(Query(select(["a"]), since=second.position, limit=3))
        fourth = await log.page(Query(select(["a"]), since=third.position, limit=3))
        async with log.open(Query(since=first.position)) as export:
            streamed = [line async for batch in export.batches() for line in batch]
    assert [event.id for event in first.events] == ids[:2]
    assert [event.id for event in second.events] == ids[2:4]
    assert [event.id for event in third.events] == [early, ids[4]]
    assert not fourth.events
    assert len(streamed) == 4


async def test_large_events_come_few_to_a_page(log: History, connection: Connection) -> None:
    for _ in range(4):
        await connection.execute("SELECT hub.publish('a', to_jsonb(repeat('x', 700000)))")
    position, counts = None, []
    while not counts or counts[-1]:
        page = await log.page(Query(since=position, limit=1_000))
        counts.append(len(page.events))
        position = page.position
    assert counts == [1, 1, 1, 1, 0]


async def test_the_newest_of_a_tag_or_a_pattern(log: History, connection: Connection) -> None:
    await connection.execute(FILL.replace("200000", "300"))
    for parameters in (
        [("tag", "t1")],
        [("channel", "busy.*")],
        [("channel", "busy.1"), ("tag", "t2"), ("tag", "t3")],
        [],
    ):
        async with log.open(parse(parameters, limit=1_000)) as export:
            whole = [line async for batch in export.batches() for line in batch]
        page = await log.page(parse([*parameters, ("last", "5")], limit=1_000))
        assert [event.json for event in page.events] == whole[-5:]
        assert not (await log.page(parse([*parameters, ("since", str(page.position))], limit=1_000))).events


async def test_a_cursor_of_another_log_cannot_be_the_end(log: History) -> None:
    with pytest.raises(CommandError) as caught:
        await log.page(Query(until=HERE))
    assert (caught.value.code, caught.value.field) == (Code.BAD_REQUEST, "until")


async def pages(log: History, query: Query) -> tuple[list[Any], Cursor]:
    """The payloads of all pages of `query`, and where the last one ends."""
    found: list[Any] = []
    while (page := await log.page(query)).events:
        found += [orjson.loads(event.json)["payload"] for event in page.events]
        query = replace(query, since=page.position)
    return found, page.position


async def publish(connection: Connection, *payloads: int) -> None:
    for payload in payloads:
        await connection.execute("SELECT hub.publish('a', to_jsonb($1::int))", payload)


async def test_an_end_may_be_set_in_the_middle_of_pages(log: History, connection: Connection) -> None:
    """What came after their snapshot, and before that end, comes too."""
    await publish(connection, 1, 2, 3)
    first = await log.page(Query(limit=2))
    await publish(connection, 4, 5)
    until = (await log.page(Query())).position
    await publish(connection, 6)
    for limit in (1, 2, 100):
        found = await pages(log, Query(since=first.position, until=until, limit=limit))
        assert found == ([3, 4, 5], until)
        assert (await pages(log, Query(since=until, limit=limit)))[0] == [6]


async def test_pages_up_to_an_end_have_read_nothing_beyond_it(
    log: History, connection: Connection, database: str
) -> None:
    """Whatever ids what is beyond it has, which began before and was committed late."""
    async with opened(Target(database)) as late:
        await late.execute("BEGIN")
        await publish(late, 1)
        await publish(connection, 2, 3)
        until = (await log.page(Query())).position
        await late.execute("COMMIT")
    first = await log.page(Query(until=until, limit=1))
    assert [orjson.loads(event.json)["payload"] for event in first.events] == [2]
    assert (await pages(log, Query(since=first.position, limit=1)))[0] == [3, 1]
    assert await pages(log, Query(since=first.position, until=until, limit=1)) == ([3], until)


async def test_an_end_before_the_beginning_is_refused(log: History, connection: Connection) -> None:
    """Pages would repeat events, or leave some out; and a stream's cursor would lead back."""
    await publish(connection, 1, 2)
    old = (await log.page(Query())).position
    await publish(connection, 3, 4)
    place, new = (await log.page(Query(limit=1))).position, (await log.page(Query())).position
    later = (await log.page(Query(since=place, limit=1))).position
    elsewhere = (await log.page(Query(since=old, limit=1))).position
    for since, until in ((new, old), (place, old), (later, place), (None, elsewhere), (place, elsewhere), (old, later)):
        for asked in (log.page(Query(since=since, until=until)), whole(log, Query(since=since, until=until))):
            with pytest.raises(CommandError) as caught:
                await asked
            assert (caught.value.code, caught.value.field) == (Code.BAD_REQUEST, "until")
    for since, until, expected in (
        (place, later, [2]),
        (None, later, [1, 2]),
        (old, elsewhere, [3]),
        (later, later, []),
        (old, new, [3, 4]),
    ):
        assert await pages(log, Query(since=since, until=until, limit=1)) == (expected, until)


async def whole(log: History, query: Query) -> None:
    async with log.open(query):
        pass


async def test_who_reads_pages_needs_no_second_connection(database: str, connection: Connection) -> None:
    """Not for a cursor of another era either, which has to be looked up: all might wait for one another."""
    await publish(connection, 1)
    async with pool(Target(database), min_size=0, max_size=1) as single:
        log = History(single, single)
        position = (await log.page(Query(limit=1))).position
        await connection.execute("SELECT hub.arrive()")
        assert not (await log.page(Query(since=position))).events


async def test_a_cursor_that_postgres_cannot_read_is_a_bad_request(log: History, connection: Connection) -> None:
    """Its low 32 bits are those of no transaction."""
    await connection.execute("SELECT hub.publish('a', '1')")
    generation = await connection.fetchval("SELECT generation FROM hub.log")
    with pytest.raises(CommandError) as caught:
        await log.page(Query(until=Cursor(generation, NOTHING.lifted(1 << 40))))
    assert caught.value.code is Code.BAD_REQUEST


async def test_who_asks_for_what_takes_too_long_to_find_is_told_what_to_narrow(
    log: History, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_TIMEOUT", 0.1)
    async with connection.transaction():
        await connection.execute("LOCK TABLE hub.events IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(CommandError, match="name their channels") as caught:
            await log.page(Query(tags=("rare",)))
    assert caught.value.code is Code.UNAVAILABLE
    assert not (await log.page(Query(tags=("rare",)))).events


@pytest.mark.parametrize("failure", [ConnectionResetError("the client has left"), asyncio.CancelledError()], ids=repr)
async def test_who_leaves_at_the_last_piece_of_a_csv_leaves_no_connection_behind(
    log: History, failure: BaseException
) -> None:
    async def write(_data: bytes) -> None:
        raise failure

    async with asyncio.timeout(20):
        for _ in range(3):  # of one connection
            with pytest.raises(type(failure)):
                async with log.open(Query()) as export:
                    await export.copy(write)


async def test_a_log_that_cannot_be_read_is_unavailable(log: History, connection: Connection) -> None:
    await connection.execute("DROP TABLE hub.events CASCADE")
    with pytest.raises(CommandError, match="does not exist") as caught:
        await log.page(Query())
    assert caught.value.code is Code.UNAVAILABLE
    with pytest.raises(CommandError, match="does not exist"):
        async with log.open(Query()):
            pass
