"""Pages of the log: what was missed, in order, by the indexes, and each question asked once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub import snapshot
from hub.cursor import Cursor, Witness
from hub.page import Page
from hub.postgres import log as logs
from hub.postgres.connect import Connection, Pool, Target, pool
from hub.postgres.log import Log
from hub.postgres.tail import PLAN
from hub.selection import Selection, select
from hub.snapshot import NOTHING
from tests.postgres.conftest import opened

BEGINNING = Cursor(1, NOTHING)


@pytest.fixture
async def readers(database: str) -> AsyncIterator[Pool]:
    async with pool(Target(database), min_size=0, max_size=4, settings=PLAN) as opened_pool:
        yield opened_pool


@pytest.fixture
def log(readers: Pool) -> Log:
    async def fresh() -> None:
        return

    return Log(readers, fresh=fresh)


async def now(connection: Connection) -> Cursor:
    """The position of a tail that has just read."""
    row = await connection.fetchrow(
        "SELECT pg_current_snapshot()::text AS seen, (SELECT max(xid::text::bigint) FROM hub.events) AS last"
    )
    assert row is not None
    last = row["last"] or 0
    return Cursor(1, snapshot.parse(row["seen"]).tightened(last), Witness(last, 1, 1) if last else None)


async def publish(connection: Connection, channel: str, count: int = 1) -> list[int]:
    return [await connection.fetchval("SELECT hub.publish($1, '1')", channel) for _ in range(count)]


async def all_pages(log: Log, selection: Selection, position: Cursor, upper: Cursor) -> list[Page]:
    pages = []
    while position != upper:
        pages.append(await log.page(selection, position, upper))
        position = pages[-1].position
    return pages


def ids(pages: list[Page]) -> list[int]:
    return [event.id for page in pages for event in page.events]


async def test_a_page_has_what_became_visible_between_two_moments(
    log: Log, database: str, connection: Connection
) -> None:
    async with opened(Target(database)) as late:
        await late.execute("BEGIN")
        (early,) = await publish(late, "a")
        await publish(connection, "a")
        before = await now(connection)
        await late.execute("COMMIT")
        new = await publish(connection, "a")
        await publish(connection, "b")
        upper = await now(connection)
        await publish(connection, "a")
        page = await log.page(select(["a"]), before, upper)
    assert [event.id for event in page.events] == [early, *new]
    assert page.position == upper


@pytest.mark.parametrize("names", [["a", "b.c"], ["b.*", "a"], ["**"]])
async def test_long_replays_are_cut_into_pages_that_fit(
    log: Log, connection: Connection, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant in ("_PAGE_NAMED", "_PAGE_MATCHING"):
        monkeypatch.setattr(logs, constant, getattr(logs, constant).replace("1000", "7"))
    monkeypatch.setattr(logs, "_WINDOW", 10)
    expected = []
    for _ in range(20):
        expected += await publish(connection, "a") + await publish(connection, "b.c")
        if names != ["**"]:
            await publish(connection, "other", 3)
    upper = await now(connection)
    pages = await all_pages(log, select(names), BEGINNING, upper)
    assert ids(pages) == expected
    assert all(len(page.events) <= 7 for page in pages)
    assert len(pages) > 5


async def test_large_events_come_few_to_a_page(log: Log, connection: Connection) -> None:
    for _ in range(5):
        await connection.execute("SELECT hub.publish('a', to_jsonb(repeat('x', 25000)))")
    await connection.execute("SELECT hub.publish('a', to_jsonb(repeat('x', 700000)))")
    await publish(connection, "a", 2)
    pages = await all_pages(log, select(["a"]), BEGINNING, await now(connection))
    assert [len(page.events) for page in pages] == [2, 2, 1, 1, 2]


async def test_a_place_is_finished_before_anything_else(log: Log, connection: Connection) -> None:
    first = await publish(connection, "a", 4)
    upper = await now(connection)
    await publish(connection, "a", 2)
    page = await log.page(select(["a"]), BEGINNING.inside(upper, first[1]), await now(connection))
    assert [event.id for event in page.events] == first[2:]
    assert page.position == upper


async def test_more_patterns_than_postgres_keeps_compiled_mean_what_each_means(
    log: Log, connection: Connection
) -> None:
    """And are compiled once: anew for each row, these would take minutes."""
    await connection.execute(
        "INSERT INTO hub.events (channel, payload) SELECT 'x.' || n, '1' FROM generate_series(1, 5000) AS n"
    )
    wanted = await publish(connection, "a199.+.c")
    await publish(connection, "a199.b.d")
    selection = select([f"a{number}.*.c" for number in range(200)])
    upper = await now(connection)
    pages = await all_pages(log, selection, Cursor(upper.generation, NOTHING, era=upper.era), upper)
    assert ids(pages) == wanted
    assert await log.newest(selection, 1, upper) == wanted[0] - 1


@pytest.mark.parametrize("names", [["a", "b.c"], ["a", "b.*"], ["**"]])
async def test_the_newest_events_begin_behind_an_id(log: Log, connection: Connection, names: list[str]) -> None:
    wanted = []
    for _ in range(5):
        wanted += await publish(connection, "a") + await publish(connection, "b.c")
    upper = await now(connection)
    await publish(connection, "a")
    for count in (1, 3, 10):
        behind = await log.newest(select(names), count, upper)
        page = await log.page(select(names), BEGINNING.inside(upper, behind), upper)
        assert [event.id for event in page.events] == wanted[-count:]
    assert await log.newest(select(names), 11, upper) == 0
    assert await log.newest(select(["nobody"]), 1, upper) == 0


async def test_equal_questions_are_asked_once(log: Log, connection: Connection) -> None:
    await publish(connection, "a", 3)
    upper = await now(connection)
    pages = await asyncio.gather(*(log.page(select(["a"]), BEGINNING, upper) for _ in range(1_000)))
    assert all(page is pages[0] for page in pages)
    assert log.queries <= 3


async def test_who_is_cancelled_disturbs_no_other(log: Log, connection: Connection) -> None:
    await publish(connection, "a")
    upper = await now(connection)
    one = asyncio.create_task(log.page(select(["a"]), BEGINNING, upper))
    two = asyncio.create_task(log.page(select(["a"]), BEGINNING, upper))
    await asyncio.sleep(0)
    one.cancel()
    assert len((await two).events) == 1


async def test_a_page_tells_the_horizon_of_the_moment_it_was_read(log: Log, connection: Connection) -> None:
    await publish(connection, "a", 2)
    await connection.execute("UPDATE hub.log SET horizon = '17'")
    assert (await log.page(select(["a"]), BEGINNING, await now(connection))).horizon == 17
    assert (await log.page(select(["nobody"]), BEGINNING, await now(connection))).horizon == 17


async def test_a_log_that_cannot_be_read_is_an_os_error(database: str) -> None:
    async def fresh() -> None:
        return

    async with pool(Target(database), min_size=0, max_size=1) as readers:
        async with opened(Target(database)) as connection:
            await connection.execute("DROP TABLE hub.events CASCADE")
        with pytest.raises(OSError, match="does not exist"):
            await Log(readers, fresh=fresh).page(select(["a"]), BEGINNING, BEGINNING)


@pytest.mark.parametrize("statement", ["_PAGE_NAMED", "_PAGE_MATCHING", "FIRST", "_NEWEST", "_LAST"])
async def test_the_plans_use_the_indexes_even_without_statistics(database: str, statement: str) -> None:
    lower = "1:1:"
    arguments: dict[str, list[Any]] = {
        "_PAGE_NAMED": [["a", "b"], 0, 1000, lower, lower],
        "_PAGE_MATCHING": [["a"], 0, 1000, lower, lower, "^b"],
        "FIRST": [lower, lower],
        "_NEWEST": [["a"], lower, 5],
        "_LAST": [],
    }
    async with pool(Target(database), min_size=0, max_size=1, settings=PLAN) as readers:
        plan = await readers.fetch("EXPLAIN " + getattr(logs, statement), *arguments[statement])
    text = "\n".join(row[0] for row in plan)
    assert "Index" in text
    assert "Seq Scan on events" not in text


@pytest.mark.parametrize("analysed", [False, True], ids=["never analysed", "analysed"])
async def test_a_replay_of_a_rare_channel_reads_little(connection: Connection, database: str, analysed: bool) -> None:
    """Not all that lies between its events, which statistics tempt to: they do not know that it is rare."""
    await connection.execute(
        "ALTER TABLE hub.events SET (autovacuum_enabled = off);"
        "INSERT INTO hub.events (channel, payload) SELECT CASE n % 25000 WHEN 0 THEN 'rare' ELSE 'busy' END, '1'"
        "  FROM generate_series(1, 50000) AS n"
    )
    if analysed:
        await connection.execute("ANALYZE hub.events")
    here = await connection.fetchval("SELECT pg_current_snapshot()::text")
    arguments = {"_PAGE_NAMED": [["rare"], 0, 1 << 40, "1:1:", here], "_NEWEST": [["rare"], here, 5]}
    async with pool(Target(database), min_size=0, max_size=1, settings=PLAN) as readers:
        for statement, given in arguments.items():
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {getattr(logs, statement)}"
            (plan,) = await readers.fetchval(explain, *given)
            assert plan["Plan"]["Actual Rows"] >= 1
            assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 50, statement
