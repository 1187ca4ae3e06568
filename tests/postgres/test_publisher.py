"""NOTIFYs of websocket publishers: gathered, in order, none folded away, one bad one harms no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from hub.errors import Code, CommandError, UncertainError
from hub.postgres import publisher as module
from hub.postgres.connect import Target, pool
from hub.postgres.publisher import Publisher

DYING = """
CREATE FUNCTION hub.die() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
CREATE TRIGGER dying {} EXECUTE FUNCTION hub.die()
"""


class Somewhere:
    """A place that nobody comes to write."""

    wkb = b""


@asynccontextmanager
async def publishing(database: str) -> AsyncIterator[tuple[Publisher, list[str]]]:
    """A publisher that runs, and what a plain listener on channel `a` has heard of it."""
    heard: list[str] = []
    listener = await asyncpg.connect(database)
    await listener.add_listener("a", lambda *message: heard.append(message[3]))
    async with pool(Target(database), min_size=1, max_size=2) as opened:
        publisher = Publisher(opened)
        running = asyncio.create_task(publisher.run())
        yield publisher, heard
        await listener.execute("SELECT 1")  # what was sent comes before its answer
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await listener.close()


async def test_what_comes_in_together_shares_a_transaction_and_keeps_its_order(database: str) -> None:
    async with publishing(database) as (publisher, heard):
        before = await transactions(database)
        await asyncio.gather(*(publisher.notify("a", str(number)) for number in range(500)))
        assert await transactions(database) - before < 10
    assert heard == [str(number) for number in range(500)]


async def transactions(database: str) -> int:
    connection = await asyncpg.connect(database)
    await connection.execute("SELECT pg_stat_force_next_flush()")
    count: int = await connection.fetchval(
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    )
    await connection.close()
    return count


async def test_equal_ones_are_all_heard(database: str) -> None:
    async with publishing(database) as (publisher, heard):
        await asyncio.gather(*(publisher.notify("a", "same") for _ in range(20)))
    assert heard == ["same"] * 20


async def test_one_that_postgres_refuses_harms_no_other(database: str) -> None:
    async with publishing(database) as (publisher, heard):
        done = [publisher.notify("a", text) for text in ("1", "a\0b", "3")]
        results = await asyncio.gather(*done, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), CommandError, type(None)]
    assert heard == ["1", "3"]


async def test_a_place_where_there_are_none_harms_no_other(database: str) -> None:
    async with publishing(database) as (publisher, _):
        done = [publisher.publish("a", "1", place=place) for place in (None, Somewhere(), None)]
        results = await asyncio.gather(*done, return_exceptions=True)
    assert [getattr(result, "code", None) for result in results] == [None, Code.UNSUPPORTED, None]


async def test_who_was_published_or_not_is_told_that_nobody_knows(database: str) -> None:
    """Of a connection that never was, one knows."""
    owner = await asyncpg.connect(database)
    await owner.execute(DYING.format("BEFORE INSERT ON hub.events"))
    async with publishing(database) as (publisher, _):
        with pytest.raises(UncertainError, match="may have been published or not"):
            await publisher.publish("a", "1")
    await owner.close()


async def test_a_publish_waits_for_a_connection_as_long_as_it_is_told_to(database: str) -> None:
    async with pool(Target(database), min_size=0, max_size=1) as opened, opened.acquire():
        publisher = Publisher(opened, patience=0.05)
        running = asyncio.create_task(publisher.run())
        with pytest.raises(CommandError, match="All 1 connections") as caught:
            await publisher.publish("a", "1")
        assert not isinstance(caught.value, UncertainError)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_full_queue_is_refused_and_who_asks_first_waits(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUEUE", 20)
    async with pool(Target(database), min_size=0, max_size=1) as opened:
        publisher = Publisher(opened)
        waiting = [publisher.notify("a", str(number)) for number in range(20)]
        room = asyncio.create_task(publisher.room())
        with pytest.raises(CommandError, match="Too many"):
            publisher.notify("a", "one more")
        assert not room.done()
        running = asyncio.create_task(publisher.run())
        await asyncio.gather(room, *waiting)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_waits_when_the_hub_ends_is_told(database: str) -> None:
    async with pool(Target(database), min_size=0, max_size=1) as opened:
        publisher = Publisher(opened)
        running = asyncio.create_task(publisher.run())
        await asyncio.sleep(0)
        running.cancel()
        left = publisher.notify("a", "1")
        await asyncio.gather(running, return_exceptions=True)
        assert left.cancelled()
