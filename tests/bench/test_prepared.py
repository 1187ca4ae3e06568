"""What prepared statements are worth: asyncpg's cache of them as it is, and switched off, as PgBouncer wants it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any, Final

import asyncpg
import pytest

from hub import assets
from hub.postgres import past
from hub.postgres.connect import Target, connect
from hub.postgres.embedded import Embedded
from hub.postgres.migrate import migrate
from hub.postgres.moment import STANDS, beginning, position
from hub.postgres.tail import PLAN
from hub.query import Query
from hub.selection import select
from tests.bench.table import show, spread
from tests.conftest import temporary_folder

ROUNDS, COUNT, EVENTS = 5, 1_000, 2_000
PAYLOAD: Final = '{"order": 12345, "status": "paid", "customer": "somebody with a name", "total": 17.25}'
FILL = f"SELECT count(hub.publish('a', '{PAYLOAD}')) FROM generate_series(1, {EVENTS})"
# No flush: it would be most of a publish, and is the same for both. Planned as the hub has its reads planned.
SESSION = PLAN | {"synchronous_commit": "off"}
DEFAULT: Final = 100  # statements that asyncpg keeps


async def pages(connection: Any, limit: int) -> None:
    stands = await connection.fetchrow(STANDS)
    query = Query(select(["a"]), limit=limit)
    for number in range(COUNT):
        text, arguments = past.page_of(query, beginning(stands), position(stands), number)
        assert len(await connection.fetch(text, *arguments)) == limit


async def publishes(connection: Any) -> None:
    for _ in range(COUNT):
        await connection.fetchval("SELECT hub.publish($1, $2::text::jsonb)", "b", PAYLOAD)


WAYS: Final[dict[str, Callable[[Any], Awaitable[None]]]] = {
    "hub.publish": publishes,
    "a page of 10 events": lambda connection: pages(connection, 10),
    "a page of 100 events": lambda connection: pages(connection, 100),
}


async def rate(dsn: str, way: str, cache: int) -> float:
    """Statements a second."""
    connection = await asyncpg.connect(dsn, statement_cache_size=cache, server_settings=SESSION)
    started = time.perf_counter()
    await WAYS[way](connection)
    seconds = time.perf_counter() - started
    await connection.close()
    return COUNT / seconds


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_prepared_statements() -> None:
    async def course(dsn: str) -> list[list[str]]:
        owner = await connect(Target(dsn), purpose="bench")
        await migrate(owner, assets.folder("sql"))
        await owner.execute(FILL)
        await owner.close()
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way, each in found.items():
                each.append((await rate(dsn, way, DEFAULT), await rate(dsn, way, 0)))
        return [
            [way, *(f"{median(rates):,.0f}" for rates in zip(*each, strict=True)), spread([a / b for a, b in each])]
            for way, each in found.items()
        ]

    with temporary_folder() as folder:
        embedded = Embedded(folder / "data")
        asyncio.run(embedded.start())
        try:
            rows = asyncio.run(course(embedded.dsn))
        finally:
            asyncio.run(embedded.stop())
    show(
        f"Statements a second on one connection, Unix socket, no flush: medians of {ROUNDS} interleaved rounds",
        ["", "prepared once", "each time", "ratio"],
        rows,
    )
