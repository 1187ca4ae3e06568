"""What telemetry costs: statements a second on a connection that is watched, and on one that is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any, Final

import asyncpg
import pytest

from hub import assets
from hub.postgres.codecs import set_codecs
from hub.postgres.connect import Target, connect, connected
from hub.postgres.embedded import Embedded
from hub.postgres.migrate import migrate
from hub.postgres.record import Record
from hub.postgres.telemetry import Telemetry
from tests.bench.table import show, spread
from tests.conftest import temporary_folder

ROUNDS, COUNT = 5, 3_000
PAYLOAD: Final = '{"order": 12345, "status": "paid", "customer": "somebody with a name", "total": 17.25}'
SESSION: Final = {"synchronous_commit": "off"}  # a flush would be most of a publish, and is the same for both

WAYS: Final[dict[str, Callable[[Any], Awaitable[Any]]]] = {
    "SELECT 1, prepared": lambda connection: connection.fetchval("SELECT $1::int", 1),
    "hub.publish": lambda connection: connection.fetchval("SELECT hub.publish($1, $2::text::jsonb)", "a", PAYLOAD),
}


async def run(connection: Any, work: Callable[[Any], Awaitable[Any]]) -> tuple[float, float]:
    """Statements a second, and the microseconds of this process's time that each took."""
    started, used = time.perf_counter(), time.process_time()
    for _ in range(COUNT):
        await work(connection)
    return COUNT / (time.perf_counter() - started), 1e6 * (time.process_time() - used) / COUNT


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_telemetry() -> None:
    async def course(dsn: str) -> list[list[str]]:
        async with connected(Target(dsn), purpose="bench") as owner:
            await migrate(owner, assets.folder("sql"))
        watched = await connect(Target(dsn, telemetry=Telemetry(slow=0.5)), purpose="bench", settings=SESSION)
        bare = await asyncpg.connect(dsn, server_settings=SESSION, record_class=Record)
        await set_codecs(bare)
        rows = []
        for way, work in WAYS.items():
            await run(watched, work)  # both warm
            await run(bare, work)
            found = [(await run(watched, work), await run(bare, work)) for _ in range(ROUNDS)]
            rates = [(a[0], b[0]) for a, b in found]
            rows.append(
                [
                    way,
                    *(f"{median(each):,.0f}" for each in zip(*rates, strict=True)),
                    spread([a / b for a, b in rates]),
                    f"{median(a[1] for a, _ in found):.1f}",
                    f"{median(b[1] for _, b in found):.1f}",
                ]
            )
        await watched.close()
        await bare.close()
        return rows

    with temporary_folder() as folder:
        embedded = Embedded(folder / "data")
        asyncio.run(embedded.start())
        try:
            rows = asyncio.run(course(embedded.dsn))
        finally:
            asyncio.run(embedded.stop())
    show(
        f"Statements a second on one connection, Unix socket, no flush: medians of {ROUNDS} interleaved rounds",
        ["", "watched", "bare", "ratio", "µs of CPU, watched", "bare"],
        rows,
    )
