"""A table and then its changes, through a whole hub: together they are the table."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest

from hub.postgres.embedded import Embedded
from tests.conftest import running
from tests.e2e.test_durable import PATIENCE, Follower

TABLE = """
    CREATE TABLE orders (id bigint PRIMARY KEY, status text, amount numeric(9, 2), at timestamptz, tags text[]);
    INSERT INTO orders SELECT n, 'new', n / 7.0, 'epoch'::timestamptz + n * '1 minute'::interval, '{a,NULL}'
      FROM generate_series(1, 20000) AS n;
    SELECT hub.watch('orders')
"""
LONG = "INSERT INTO orders SELECT n, repeat('x', 2000) FROM generate_series(20001, 40000) AS n"
# What writers do, over and over: each statement hits rows that others change at the same time.
UPSERT = """
    INSERT INTO orders SELECT n, 'made', 1.50, now(), '{{}}' FROM generate_series({n} + 50000, {n} + 50009) AS n
    ON CONFLICT (id) DO UPDATE SET status = 'made again'
"""
CHANGE = "UPDATE orders SET amount = amount + 0.01, tags = array_append(tags, 'b') WHERE id BETWEEN {n} AND {n} + 20"
DELETE = "DELETE FROM orders WHERE id BETWEEN {n} + 30 AND {n} + 33"
MOVE = "UPDATE orders SET id = id + 100000 WHERE id BETWEEN {n} + 40 AND {n} + 41 AND id < 100000"
TRANSACTIONS = (UPSERT, CHANGE, f"{DELETE}; {CHANGE}; {UPSERT}", MOVE, DELETE, f"{CHANGE}; {MOVE}")


class Model:
    """A copy of a table by its rows and events, as any client would keep one."""

    def __init__(self, head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        self.key = head["key"]
        self.rows = {self.key_of(row): row for row in rows}
        assert len(self.rows) == len(rows)

    def key_of(self, row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.key)

    def apply(self, change: dict[str, Any]) -> None:
        match change["op"]:
            case "insert":
                assert self.key_of(change["new"]) not in self.rows
                self.rows[self.key_of(change["new"])] = change["new"]
            case "update":
                assert self.key_of(change["new"]) in self.rows
                self.rows[self.key_of(change["new"])] = change["new"]
            case "delete":
                del self.rows[self.key_of(change["old"])]
            case "truncate":
                self.rows.clear()
            case other:
                raise AssertionError(other)


async def stream(http: aiohttp.ClientSession, url: str, name: str = "orders") -> tuple[dict[str, Any], list[Any]]:
    """The head and the rows of a table, line by line."""
    async with http.get(f"{url}/watched/{name}", headers={"Accept": "application/x-ndjson"}) as answer:
        assert answer.status == 200
        head, *rows = [orjson.loads(line) async for line in answer.content]
        return head, rows


async def table(connection: asyncpg.Connection) -> dict[Any, Any]:
    rows = await connection.fetch("SELECT to_jsonb(o.*)::text AS row FROM orders AS o")
    return {(row["id"],): row for row in (orjson.loads(found["row"]) for found in rows)}


@asynccontextmanager
async def connected(dsn: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that ends with the block: one left open by a test that fails would keep uvloop from closing."""
    connection = await asyncpg.connect(dsn, server_settings=settings)
    try:
        yield connection
    finally:
        connection.terminate()


async def write(dsn: str, number: int, done: asyncio.Event) -> int:
    """One transaction after the other, until told to stop; returns how many."""
    count = 0
    async with connected(dsn, timezone="Asia/Kolkata", datestyle="German") as connection:
        while not done.is_set():
            # One that is rolled back, and nobody is to hear of it.
            with suppress(asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
                await connection.execute(
                    TRANSACTIONS[(count + number) % 6].format(n=(count * 97 + number * 1009) % 20_000)
                )
            count += 1
    return count


async def copy(http: aiohttp.ClientSession, hub: Any, stack: AsyncExitStack) -> tuple[Model, Follower]:
    """The rows of now, and who follows from there until the end of `stack`."""
    head, rows = await stream(http, hub.url)
    assert (head["table"], head["channel"], head["key"]) == ("public.orders", "orders", ["id"])
    follower = await Follower([head["channel"]], since=head["cursor"]).connect(hub)
    stack.push_async_callback(follower.socket.close)
    return Model(head, rows), follower


async def catch_up(model: Model, follower: Follower, key: tuple[Any, ...]) -> None:
    """Apply changes until a row is there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for change in follower.payloads:
                model.apply(change)
            follower.events.clear()
            if key in model.rows:
                return
            await follower.take()


async def test_rows_and_then_changes_meet_without_a_seam(hub: Any) -> None:
    """Several times over, while four writers change, move and delete what is being read."""
    done = asyncio.Event()
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(connected(hub.dsn))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        await owner.execute(TABLE)
        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(write(hub.dsn, number, done)) for number in range(4)]
            copies = [await copy(http, hub, stack) for _ in range(3)]
            done.set()
        assert sum(writer.result() for writer in writers) > 20
        await owner.execute("INSERT INTO orders VALUES (-1)")
        expected = await table(owner)
        for model, follower in copies:
            await catch_up(model, follower, (-1,))
            assert not follower.gaps
            assert not [key for key in model.rows | expected if model.rows.get(key) != expected.get(key)]


async def test_a_list_of_tables_and_one_that_is_not_watched(hub: Any) -> None:
    async with aiohttp.ClientSession() as http, http.get(hub.url + "/watched") as listed:
        assert await listed.json() == {"tables": []}
        async with http.get(hub.url + "/watched/orders") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")


async def test_postgres_dying_in_the_middle_is_no_short_table(data_dir: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Embedded(data_dir))
        hub = await stack.enter_async_context(running(server.dsn))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        async with connected(server.dsn) as owner:
            await owner.execute(TABLE + ";" + LONG)
        answer = await http.get(hub.url + "/watched/orders", headers={"Accept": "application/x-ndjson"})
        assert answer.status == 200
        await answer.content.readany()
        os.kill(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
        async with http.get(hub.url + "/watched/orders") as down:
            assert (down.status, down.headers["Retry-After"]) == (503, "1")
            assert (await down.json())["error"]["code"] == "unavailable"
        await server.stop()
        await server.start()
        head, rows = await stream(http, hub.url)
        assert (head["table"], len(rows)) == ("public.orders", 40_000)


async def test_all_streams_in_use_is_a_503_and_a_client_that_leaves_makes_room(database: str) -> None:
    async with running(database, stream_max=1, pool_timeout=1.0) as hub, aiohttp.ClientSession() as http:
        async with connected(hub.dsn) as owner:
            await owner.execute(TABLE + ";" + LONG)
        first = await http.get(hub.url + "/watched/orders")
        async with http.get(hub.url + "/watched/orders") as second:
            assert (second.status, second.headers["Retry-After"]) == (503, "1")
        first.close()
        assert len((await stream(http, hub.url))[1]) == 40_000
