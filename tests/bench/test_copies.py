"""Copies of tables, kept by /watched and the events behind it: whatever happens, at the end they are what the table is.

Each run has its own tables, writers and copies; in each the hub is killed once, and every copy is cut off again and
again.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import aclosing, suppress
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
import uvloop

from hub import client
from hub.client import RefusedError
from hub.postgres.embedded import Embedded
from tests.bench.server import Hub
from tests.bench.table import show
from tests.conftest import temporary_folder

RUNS = int(os.environ.get("HUB_BENCH_RUNS", "100"))
SECONDS, WRITERS, COPIES = 2.0, 4, 3
END = -1
TABLES = {
    "plain": "CREATE TABLE {0} (id int PRIMARY KEY, part int NOT NULL, v numeric, note text)",
    "parted": "CREATE TABLE {0} (id int, part int, v numeric, note text, PRIMARY KEY (id, part)) "
    "PARTITION BY LIST (part);"
    "CREATE TABLE {0}_0 PARTITION OF {0} FOR VALUES IN (0);"
    "CREATE TABLE {0}_1 PARTITION OF {0} FOR VALUES IN (1);"
    "CREATE TABLE {0}_2 PARTITION OF {0} DEFAULT",
}
WRITES = (
    "INSERT INTO {0} SELECT n, n % 3, random() FROM generate_series($1::int, $1 + 4) AS n ON CONFLICT DO NOTHING",
    "INSERT INTO {0} VALUES ($1::int, $1 % 3, 1.50, NULL) ON CONFLICT {1} DO UPDATE SET v = {0}.v + 1",
    "UPDATE {0} SET v = v + 1, note = 'changed' WHERE id % 7 = $1::int % 7",
    "UPDATE {0} SET v = v WHERE id = $1::int",
    "UPDATE {0} SET part = (part + 1) % 3 WHERE id BETWEEN $1::int AND $1 + 10",
    "UPDATE {0} SET id = id + 1000 WHERE id = $1::int AND NOT EXISTS (SELECT FROM {0} WHERE id = $1 + 1000)",
    "DELETE FROM {0} WHERE id BETWEEN $1::int AND $1 + 3 AND id > 0",
    "DELETE FROM {0} WHERE id % 11 = $1::int % 11 AND id > 0",
)


class Copy:
    """Keeps a copy as README says: read the table, then apply what follows its cursor; begin again when told to."""

    def __init__(self, http: aiohttp.ClientSession, ws: str, table: str, chance: random.Random) -> None:
        self.http, self.ws, self.table, self.chance = http, ws, table, chance
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.key: list[str] = []
        self.cursor: str | None = None
        self.calm = False
        self.ended = asyncio.Event()
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            with suppress(TimeoutError, aiohttp.ClientError, RefusedError):
                async with asyncio.timeout(None if self.calm else self.chance.choice((0.1, 0.3, 0.8))):
                    await self._follow()
            self.counts["cut off"] += 1
            await asyncio.sleep(self.chance.uniform(0, 0.1))

    async def _follow(self) -> None:
        if self.cursor is None:
            await self._read()
        async with aclosing(client.follow(self.ws, [self.channel], since=self.cursor, ephemeral=False)) as messages:
            async for message in messages:
                if message["type"] == "gap":
                    self.counts[message["reason"]] += 1
                    self.cursor = None
                    return
                for event in message.get("events", ()):
                    if not self._apply(orjson.loads(event)["payload"]):
                        self.counts["reload"] += 1
                        self.cursor = None
                        return
                self.cursor = message.get("cursor", self.cursor)

    async def _read(self) -> None:
        base = self.ws.replace("ws://", "http://").removesuffix("/ws")
        async with self.http.get(f"{base}/watched/{self.table}") as response:
            response.raise_for_status()
            whole = orjson.loads(await response.read())
        self.key, self.channel = whole["key"], whole["channel"]
        self.rows = {self._key(row): row for row in whole["rows"]}
        self.cursor = whole["cursor"]
        self.counts["read"] += 1
        self._look()

    def _key(self, row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.key)

    def _apply(self, change: dict[str, Any]) -> bool:
        """Whether the copy is still good."""
        match change["op"]:
            case "insert" | "update":
                self.rows[self._key(change["new"])] = change["new"]
            case "delete":
                del self.rows[self._key(change["old"])]
            case "truncate":
                self.rows.clear()
            case _:
                return False
        self.counts["applied"] += 1
        self._look()
        return True

    def _look(self) -> None:
        if any(row["id"] == END for row in self.rows.values()):
            self.ended.set()


async def write(dsn: str, table: str, chance: random.Random, until: float) -> None:
    connection = await asyncpg.connect(dsn)
    conflict = "(id)" if table.startswith("plain") else "(id, part)"
    while time.monotonic() < until:
        level = chance.choice(("READ COMMITTED", "READ COMMITTED", "REPEATABLE READ"))
        with suppress(asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError):
            transaction = connection.transaction(isolation=level.lower().replace(" ", "_"))  # type: ignore[arg-type]
            await transaction.start()
            try:
                for _ in range(chance.randint(1, 3)):
                    if chance.random() < 0.01:
                        await connection.execute(f"TRUNCATE {table}")
                    statement = chance.choice(WRITES).format(table, conflict)
                    await connection.execute(statement, chance.randint(1, 200))
                if chance.random() < 0.1:
                    raise asyncpg.SerializationError("changed their mind")
                await transaction.commit()
            except asyncpg.PostgresError:
                await transaction.rollback()
                raise
        await asyncio.sleep(chance.uniform(0, 0.02))
    await connection.close()


async def one_run(number: int, dsn: str, hub: Hub, totals: Counter[str]) -> int:
    """How many copies were not what the table is."""
    chance = random.Random(number)
    connection = await asyncpg.connect(dsn)
    names = {kind: f"{kind}{number}" for kind in TABLES}
    for kind, name in names.items():
        await connection.execute(TABLES[kind].format(name))
        await connection.execute(f"SELECT hub.watch('{name}')")
    async with aiohttp.ClientSession() as http:
        copies = [
            Copy(http, hub.url, name, random.Random(chance.random())) for name in names.values() for _ in range(COPIES)
        ]
        tasks = [asyncio.create_task(copy.run()) for copy in copies]
        until = time.monotonic() + SECONDS
        writers = [
            asyncio.create_task(write(dsn, name, random.Random(chance.random()), until))
            for name in names.values()
            for _ in range(WRITERS // 2)
        ]
        await asyncio.sleep(chance.uniform(0.2, SECONDS - 0.5))
        await hub.kill()
        await asyncio.gather(*writers)
        for copy in copies:
            copy.calm = True
        for name in names.values():
            await connection.execute(f"INSERT INTO {name} VALUES ({END}, 0, NULL, 'end')")
        async with asyncio.timeout(60):
            await asyncio.gather(*(copy.ended.wait() for copy in copies))
        for task in tasks:
            assert not task.done(), task
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    wrong = 0
    for copy in copies:
        rows = await connection.fetch(f"SELECT to_jsonb(t.*)::text FROM {copy.table} AS t")
        table = {copy._key(row): row for row in (orjson.loads(each[0]) for each in rows)}
        wrong += copy.rows != table
        totals.update(copy.counts)
        totals["rows at the end"] += len(table)
    for name in names.values():
        await connection.execute(f"DROP TABLE {name}")
    await connection.close()
    return wrong


@pytest.mark.bench
@pytest.mark.timeout(3600)
def test_every_copy_is_what_the_table_is() -> None:
    totals: Counter[str] = Counter()
    good: list[bool] = []
    with temporary_folder() as folder:
        embedded = Embedded(folder / "data", options={"fsync": "off"})
        asyncio.run(embedded.start())
        hub = Hub(embedded.dsn)

        async def course() -> None:
            await hub.start()
            good.extend([not await one_run(number, embedded.dsn, hub, totals) for number in range(RUNS)])

        try:
            uvloop.run(course())
        finally:
            hub.close()
            asyncio.run(embedded.stop())
    rows = [["runs", str(RUNS)], ["with all copies equal to their tables", str(sum(good))]]
    rows += [[name, f"{count:,}"] for name, count in sorted(totals.items())]
    show(f"{RUNS} runs of {SECONDS:g} s: {len(TABLES)} tables, {WRITERS} writers, {2 * COPIES} copies", ["", ""], rows)
    assert all(good), [number for number, each in enumerate(good) if not each]
