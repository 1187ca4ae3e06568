"""What durable publishing costs the producer: hub.publish beside a plain INSERT, and beside INSERT with NOTIFY.

Writers are pgbench's, one transaction an event. No hub runs; while one sleeps it is as if each transaction had a
NOTIFY, which is what the last column shows.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from hub import assets
from hub.postgres import binaries
from hub.postgres.connect import Target, connect
from hub.postgres.embedded import Embedded
from hub.postgres.migrate import migrate
from tests.bench.table import show, spread
from tests.conftest import temporary_folder

SECONDS, ROUNDS, WRITERS = 2, 5, (1, 16, 64)
RATIOS = ("publish / plain", "hub.events / plain", "publish / NOTIFY")
PAYLOAD = (
    """'{"order": 12345, "status": "paid", "customer": "somebody with a name", "total": 17.25, """
    """"items": ["espresso", "croissant"], "note": "as usual, please"}'"""
)
INSERT = f"INSERT INTO bench.plain (channel, payload) VALUES ('bench', {PAYLOAD})"
STATEMENTS = {
    "plain": INSERT,
    "publish": f"SELECT hub.publish('bench', {PAYLOAD})",
    "insert": f"INSERT INTO hub.events (channel, payload) VALUES ('bench', {PAYLOAD})",
    "notify": f"WITH made AS ({INSERT} RETURNING id) SELECT pg_notify('bench', id::text) FROM made",
}


@contextmanager
def programs(folder: Path, *, slow: bool) -> Iterator[Path]:
    """A folder of Postgres programs; in a slow one, `postgres` runs with the slow disk preloaded."""
    found = binaries.find().bin
    if not slow:
        yield found
        return
    shim = folder / "slow_disk.so"
    source = Path(__file__).parent / "slow_disk.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", shim, source, "-ldl"], check=True)
    wrapped = folder / "bin"
    wrapped.mkdir()
    for program in found.iterdir():
        if program.name == "postgres":
            script = wrapped / "postgres"
            script.write_text(f'#!/bin/sh\nLD_PRELOAD="{shim}" exec "{program}" "$@"\n')
            script.chmod(0o755)
        else:
            (wrapped / program.name).symlink_to(program)
    yield wrapped


def rate(pgbench: Path, dsn: str, script: Path, writers: int) -> float:
    """Transactions a second."""
    query = parse_qs(urlsplit(dsn).query)
    where = ["-h", query["host"][0], "-p", query["port"][0], "-U", "postgres", "postgres"]
    command = [pgbench, "-n", "-M", "prepared", "-f", script, "-c", writers, "-j", 1, "-T", SECONDS, *where]
    report = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    return next(float(line.split()[2]) for line in report.splitlines() if line.startswith("tps"))


async def prepare(dsn: str) -> None:
    connection = await connect(Target(dsn), purpose="bench")
    await migrate(connection, assets.folder("sql"))
    await connection.execute("CREATE SCHEMA bench; CREATE TABLE bench.plain (LIKE hub.events INCLUDING ALL)")
    await connection.close()


async def empty(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("TRUNCATE hub.events, bench.plain")
    await connection.close()


def measure(dsn: str, folder: Path, pgbench: Path, writers: int) -> list[str]:
    """One line of the table."""
    rates: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(ROUNDS):
        for name in STATEMENTS:
            rates[name].append(rate(pgbench, dsn, folder / f"{name}.sql", writers))
        asyncio.run(empty(dsn))

    def ratio(over: str, under: str) -> str:
        return spread([a / b for a, b in zip(rates[over], rates[under], strict=True)])

    return [
        str(writers),
        *(f"{median(rates[name]):.0f}" for name in STATEMENTS),
        ratio("publish", "plain"),
        ratio("insert", "plain"),
        ratio("publish", "notify"),
    ]


@pytest.mark.bench
@pytest.mark.timeout(900)
@pytest.mark.parametrize("slow", [False, True], ids=["as the disk is", "1 ms more a flush"])
def test_publish_rate(slow: bool, request: pytest.FixtureRequest) -> None:
    if slow and shutil.which("cc") is None:
        pytest.skip("there is no C compiler here to build the slow disk with")
    with temporary_folder() as folder, programs(folder, slow=slow) as bin_dir:
        for name, statement in STATEMENTS.items():
            (folder / f"{name}.sql").write_text(f"{statement};\n")
        options = {"max_connections": "100", "wal_sync_method": "fdatasync"}
        embedded = Embedded(folder / "data", bin_dir=bin_dir, options=options)
        asyncio.run(embedded.start())
        try:
            asyncio.run(prepare(embedded.dsn))
            rows = [measure(embedded.dsn, folder, bin_dir / "pgbench", writers) for writers in WRITERS]
        finally:
            asyncio.run(embedded.stop())
    show(
        f"Events a second, {request.node.callspec.id}: medians of {ROUNDS} rounds of {SECONDS} s",
        ["writers", "plain INSERT", "hub.publish", "INSERT hub.events", "INSERT + NOTIFY", *RATIOS],
        rows,
    )
