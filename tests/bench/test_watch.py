"""What a watch costs whoever writes: beside the bare table, and beside the usual trigger that NOTIFYs each row."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import asyncpg
import pytest

from hub import assets
from hub.postgres import binaries
from hub.postgres.connect import Target, connect
from hub.postgres.embedded import Embedded
from hub.postgres.migrate import migrate
from tests.bench.table import show, spread
from tests.bench.test_publish import rate
from tests.conftest import temporary_folder

ROUNDS, ROWS, WRITERS = 5, 10_000, (1, 16)
TABLES = ("bare", "watched", "notified")
COLUMNS = """
    customer text NOT NULL DEFAULT 'somebody with a name', item text NOT NULL DEFAULT 'cinnamon bun',
    total numeric(10,2) NOT NULL DEFAULT 17.25, status text NOT NULL DEFAULT 'new',
    note text NOT NULL DEFAULT 'as usual, please', updated_at timestamptz NOT NULL DEFAULT now()
"""
ROW_TRIGGER = """
    CREATE FUNCTION bench.notify() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('bench', jsonb_build_object('op', lower(TG_OP), 'new', to_jsonb(NEW))::text);
        RETURN NULL;
    END $$;
    CREATE TRIGGER notify AFTER INSERT OR UPDATE ON bench.notified FOR EACH ROW EXECUTE FUNCTION bench.notify();
"""
SINGLE = {
    "INSERT": "INSERT INTO bench.{} (customer) VALUES ('somebody else');",
    "UPDATE": "\\set id random(1, 10000)\nUPDATE bench.{} SET total = total + 1 WHERE id = :id;",
}
BULK = {
    "INSERT": "INSERT INTO bench.{} (customer) SELECT 'customer ' || n FROM generate_series(1, 10000) AS n",
    "UPDATE": "UPDATE bench.{} SET total = total + 1 WHERE id <= 10000",
}


async def prepare(dsn: str) -> None:
    connection = await connect(Target(dsn), purpose="bench")
    await migrate(connection, assets.folder("sql"))
    await connection.execute("CREATE SCHEMA bench")
    for table in TABLES:
        await connection.execute(
            f"CREATE TABLE bench.{table} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {COLUMNS})"
        )
        await connection.execute(BULK["INSERT"].format(table))
    await connection.execute(ROW_TRIGGER)
    await connection.execute("SELECT hub.watch('bench.watched')")
    await connection.close()


async def empty(dsn: str) -> None:
    """Every round begins with tables of the same size, and an empty log."""
    connection = await asyncpg.connect(dsn)
    for table in TABLES:
        await connection.execute(f"SET session_replication_role = replica; DELETE FROM bench.{table} WHERE id > 10000")
    await connection.execute("TRUNCATE hub.events")
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def bulk(dsn: str, statement: str) -> float:
    """Rows a second, with the commit."""
    connection = await asyncpg.connect(dsn)
    started = time.perf_counter()
    await connection.execute(statement, timeout=300)
    seconds = time.perf_counter() - started
    await connection.close()
    return ROWS / seconds


def line(title: str, rates: dict[str, list[float]]) -> Sequence[str]:
    ratios = [
        spread([a / b for a, b in zip(rates[over], rates[under], strict=True)])
        for over, under in (("watched", "bare"), ("watched", "notified"))
    ]
    return [title, *(f"{median(rates[table]):,.0f}" for table in TABLES), *ratios]


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_the_cost_of_a_watch() -> None:
    rows: list[Sequence[str]] = []
    with temporary_folder() as folder:
        scripts = {}
        for kind, statement in SINGLE.items():
            for table in TABLES:
                scripts[kind, table] = script = Path(folder) / f"{kind}-{table}.sql"
                script.write_text(statement.format(table))
        embedded = Embedded(folder / "data")
        asyncio.run(embedded.start())
        try:
            asyncio.run(prepare(embedded.dsn))
            for kind in SINGLE:
                for writers in WRITERS:
                    rates: dict[str, list[float]] = {table: [] for table in TABLES}
                    for _ in range(ROUNDS):
                        asyncio.run(empty(embedded.dsn))
                        for table in TABLES:
                            program = binaries.find().bin / "pgbench"
                            rates[table].append(rate(program, embedded.dsn, scripts[kind, table], writers))
                    rows.append(line(f"{kind} of a row, {writers} writers", rates))
            for kind, statement in BULK.items():
                rates = {table: [] for table in TABLES}
                for _ in range(ROUNDS):
                    asyncio.run(empty(embedded.dsn))
                    for table in TABLES:
                        rates[table].append(asyncio.run(bulk(embedded.dsn, statement.format(table))))
                rows.append(line(f"{kind} of 10,000 rows", rates))
        finally:
            asyncio.run(embedded.stop())
    show(
        f"Rows a second, medians of {ROUNDS} interleaved rounds",
        ["", "bare", "watched", "NOTIFY a row", "watched / bare", "watched / NOTIFY a row"],
        rows,
    )
