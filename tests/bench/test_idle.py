"""What a hub costs when nothing happens: statements and CPU, with a thousand quiet subscribers."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import asyncpg
import pytest
import uvloop

from hub.postgres.embedded import Embedded
from tests.bench.clients import connected, cpu
from tests.bench.server import serving
from tests.bench.table import show

CLIENTS, SECONDS = 1_000, 60
ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pghub tail' AND state = 'idle in transaction'"


def statements(log: Path) -> Counter[str]:
    """Statements that the server has logged, by the connection that sent them."""
    lines = log.read_text(errors="replace").splitlines()
    return Counter(line.partition("|")[0] for line in lines if line.startswith("pghub ") and "|LOG:" in line)


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_idle(data_dir: Path) -> None:
    embedded = Embedded(data_dir, options={"log_statement": "all", "log_line_prefix": "%a|"})
    asyncio.run(embedded.start())
    log = data_dir / "postgres.log"

    async def course(url: str, process: int) -> tuple[Counter[str], float]:
        async with connected(url, [f"channel=c{number % 10}" for number in range(CLIENTS)], lambda *_: None):
            watcher = await asyncpg.connect(embedded.dsn)
            while not await watcher.fetchval(ASLEEP):
                await asyncio.sleep(0.5)
            await asyncio.sleep(10)  # LISTENs that linger from the start
            before, used = statements(log), cpu(process)
            await asyncio.sleep(SECONDS)
            after, later = statements(log), cpu(process)
            await watcher.close()
        return after - before, 100 * (later - used) / SECONDS

    try:
        with serving(embedded.dsn) as (url, process):
            counted, percent = uvloop.run(course(url, process))
    finally:
        asyncio.run(embedded.stop())
    rows = [[name, str(count)] for name, count in sorted(counted.items())]
    rows += [["all", str(counted.total())], ["CPU of a core", f"{percent:.2f} %"]]
    show(f"A sleeping hub with {CLIENTS} quiet subscribers, statements in {SECONDS} s", ["", ""], rows)
