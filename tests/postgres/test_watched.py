"""Watched tables, read at one moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import orjson
import pytest

from hub import cursor
from hub.errors import Code, CommandError
from hub.postgres.acquired import PATIENCE
from hub.postgres.codecs import set_stream_codecs
from hub.postgres.connect import Connection, Target, pool
from hub.postgres.watched import Watched, session
from tests.postgres.conftest import as_role

STREAMS = 2


@pytest.fixture
async def watched(database: str) -> AsyncIterator[Watched]:
    async with opened(database) as watched:
        yield watched


class opened:  # noqa: N801 - it is used as a function
    """Reads watched tables as the hub does, as whatever role the URL names."""

    def __init__(self, dsn: str, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._streams = pool(
            Target(dsn),
            min_size=0,
            max_size=STREAMS,
            purpose="stream",
            settings=session(10) | {"lock_timeout": "200ms"},
            codecs=set_stream_codecs,
        )
        self._pool = pool(Target(dsn), min_size=0, max_size=1)

    async def __aenter__(self) -> Watched:
        return Watched(await self._streams.__aenter__(), await self._pool.__aenter__(), patience=self._patience)

    async def __aexit__(self, *error: object) -> None:
        await self._pool.__aexit__(*error)
        await self._streams.__aexit__(*error)


async def read(watched: Watched, name: str) -> tuple[dict[str, Any], list[Any]]:
    async with watched.open(name) as reading:
        return dict(reading.head), [orjson.loads(row) async for batch in reading.batches() for row in batch]


async def refused(watched: Watched, name: str) -> CommandError:
    with pytest.raises(CommandError) as caught:
        await read(watched, name)
    return caught.value


async def busy(connection: Connection) -> list[str]:
    """What those connections for streams do that are in a transaction."""
    found = await connection.fetch(
        "SELECT state FROM pg_stat_activity WHERE application_name = 'pghub stream' AND datname = current_database() "
        "AND state <> 'idle'"
    )
    return [row["state"] for row in found]


@pytest.fixture
async def orders(connection: Connection) -> Connection:
    await connection.execute(
        """
        CREATE TABLE orders (id int, note text, secret text, PRIMARY KEY (id));
        INSERT INTO orders SELECT n, 'note ' || n, 'x' FROM generate_series(1, 3) AS n;
        SELECT hub.watch('orders', columns => '{id,note}')
        """
    )
    return connection


async def test_a_table_is_read_with_its_head(watched: Watched, orders: Connection) -> None:
    head, rows = await read(watched, "orders")
    assert (head["table"], head["channel"], head["key"]) == ("public.orders", "orders", ["id"])
    assert rows == [{"id": number, "note": f"note {number}"} for number in (1, 2, 3)]


async def test_the_cursor_has_seen_what_the_rows_show_and_nothing_else(watched: Watched, orders: Connection) -> None:
    await orders.execute("INSERT INTO orders VALUES (4)")
    async with watched.open("orders") as reading:
        await orders.execute("INSERT INTO orders VALUES (5)")
        position = cursor.parse(str(reading.head["cursor"]))
        rows = [orjson.loads(row)["id"] async for batch in reading.batches() for row in batch]
    xids = await orders.fetch("SELECT xid::text::bigint AS xid, payload -> 'new' -> 'id' AS id FROM hub.events")
    assert rows == [1, 2, 3, 4]
    assert {row["id"]: position.snapshot.sees(row["xid"]) for row in xids} == {4: True, 5: False}


async def test_names_are_those_of_sql(watched: Watched, orders: Connection) -> None:
    await orders.execute(
        """
        CREATE TABLE "Big ""Orders" (id int); CREATE SCHEMA "my.sales"; CREATE TABLE "my.sales"."a/b" (id int);
        SELECT hub.watch('"Big ""Orders"'), hub.watch('"my.sales"."a/b"')
        """
    )
    for name, found in (
        ("orders", "public.orders"),
        ("ORDERS", "public.orders"),
        ("public.orders", "public.orders"),
        ('"Big ""Orders"', 'public."Big ""Orders"'),
        ('"my.sales"."a/b"', '"my.sales"."a/b"'),
    ):
        head, _ = await read(watched, name)
        assert (head["table"], await watched.channel(name)) == (found, head["channel"])


async def test_what_is_not_watched_is_not_found(watched: Watched, orders: Connection) -> None:
    for name in ("", "nowhere", '"ORDERS"', "pg_class", "hub.events", "a.b.c", "a b", '"', "\0", "\udc00", "orders;"):
        error = await refused(watched, name)
        assert error.code is Code.NOT_FOUND
        assert "hub.watch" in error.message
        assert await watched.channel(name) is None


async def test_the_list(watched: Watched, orders: Connection) -> None:
    await orders.execute("CREATE TABLE plain (a int); SELECT hub.watch('plain', 'p')")
    assert await watched.tables() == [
        {"table": "public.orders", "channel": "orders", "key": ["id"], "columns": ["id", "note"]},
        {"table": "public.plain", "channel": "p", "key": [], "columns": ["a"]},
    ]


async def test_a_row_is_what_its_event_tells(
    watched: Watched, connection: Connection, database: str, visitor: str
) -> None:
    """Written by a session with other settings, and with types of all kinds: also one of somebody else's."""
    await connection.execute(
        f"""
        CREATE TYPE theirs AS (a int, b text); ALTER TYPE theirs OWNER TO {visitor};
        CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a numeric, b mood[]);
        CREATE TABLE kinds (
            id int PRIMARY KEY, "a ""b" text, f4 float4, f8 float8, n numeric, d date, t timetz, ts timestamp,
            tz timestamptz, i interval, b bytea, j json, p pair, r tstzrange, m money, theirs theirs, many theirs[],
            made int GENERATED ALWAYS AS (id * 2) STORED
        );
        SELECT hub.watch('kinds');
        SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard';
        SET bytea_output = 'escape'; SET extra_float_digits = -3;
        INSERT INTO kinds VALUES (
            1, 'x', 0.1, 1e23, 1.50, '0044-03-15 BC', '12:00+5:30', 'infinity', '2020-01-01', '1 month -1 day',
            '\\x00ff', '{{"b": 1, "a":  [1.0]}}', '(1.0,"{{sad,NULL}}")', '["2020-01-01",)', 5, '(1,"x y")',
            '{{"(2,)",NULL}}'
        );
        INSERT INTO kinds VALUES (2)
        """
    )
    events = await connection.fetch("SELECT (payload -> 'new')::text AS row FROM hub.events ORDER BY id")
    async with watched.open("kinds") as reading:
        rows = [row async for batch in reading.batches() for row in batch]
    await connection.execute("DROP TYPE theirs CASCADE")
    assert [json.loads(row, parse_float=Decimal) for row in rows] == [
        json.loads(event["row"], parse_float=Decimal) for event in events
    ]
    assert len(rows) == 2


async def test_all_partitions_are_read(watched: Watched, connection: Connection) -> None:
    await connection.execute(
        """
        CREATE TABLE parts (id int) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10);
        CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id);
        CREATE TABLE rest PARTITION OF high DEFAULT;
        INSERT INTO parts VALUES (1), (11);
        SELECT hub.watch('parts')
        """
    )
    assert (await read(watched, "parts"))[1] == [{"id": 1}, {"id": 11}]


async def test_an_empty_table_and_one_without_columns(watched: Watched, connection: Connection) -> None:
    await connection.execute("CREATE TABLE bare (); CREATE TABLE nothing (a int); INSERT INTO bare DEFAULT VALUES")
    await connection.execute("SELECT hub.watch('bare'), hub.watch('nothing')")
    assert [(await read(watched, name))[1] for name in ("bare", "nothing")] == [[{}], []]


async def test_many_rows_come_in_batches_of_a_hundred_or_64_kb(watched: Watched, orders: Connection) -> None:
    await orders.execute("INSERT INTO orders SELECT n, repeat('x', n % 200) FROM generate_series(4, 20000) AS n")
    async with watched.open("orders") as reading:
        batches = [batch async for batch in reading.batches()]
    assert sum(map(len, batches)) == 20_000
    assert max(sum(map(len, batch)) for batch in batches) < 2 * 64 * 1024
    assert max(map(len, batches)) == 100
    assert len(batches) < 210


async def test_large_rows_come_one_by_one(watched: Watched, orders: Connection) -> None:
    await orders.execute("UPDATE orders SET note = repeat('x', 1000000)")
    await orders.execute("INSERT INTO orders SELECT n, repeat('x', 1000000) FROM generate_series(4, 60) AS n")
    async with watched.open("orders") as reading:
        assert [len(batch) async for batch in reading.batches()] == [10] + [1] * 50


async def test_nobody_can_empty_the_table_meanwhile(watched: Watched, orders: Connection) -> None:
    """A TRUNCATE shows to older snapshots too, but not its event: rows would be lost without a word."""
    async with watched.open("orders") as reading:
        truncating = asyncio.create_task(orders.execute("TRUNCATE orders"))
        assert [len(batch) async for batch in reading.batches()] == [3]
        assert not truncating.done()
    await truncating


async def test_a_table_that_is_locked_is_unavailable(watched: Watched, orders: Connection) -> None:
    async with orders.transaction():
        await orders.execute("LOCK TABLE orders")
        error = await refused(watched, "orders")
    assert (error.code, "lock timeout" in error.message) == (Code.UNAVAILABLE, True)


async def test_leaving_early_leaves_nothing_behind(watched: Watched, orders: Connection) -> None:
    await orders.execute("INSERT INTO orders SELECT n FROM generate_series(4, 5000) AS n")
    async with watched.open("orders") as reading:
        async for _ in reading.batches():
            break
        assert len(await busy(orders)) == 1
    assert await busy(orders) == []


SLOW = """
    CREATE TYPE told AS ENUM ('quick', 'slow', 'wrong');
    CREATE FUNCTION tell(told) RETURNS json LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(600) WHERE $1 = 'slow';
        RETURN CASE $1 WHEN 'wrong' THEN to_json(1 / (length($1::text) - 5)) ELSE '1' END;
    END $$;
    CREATE CAST (told AS json) WITH FUNCTION tell(told);
    CREATE TABLE tellers (id int, told told);
    SELECT hub.watch('tellers');
"""


async def test_a_query_ends_with_whoever_waits_for_it(watched: Watched, connection: Connection) -> None:
    await connection.execute(SLOW + "INSERT INTO tellers SELECT n, 'quick' FROM generate_series(1, 50) AS n")
    await connection.execute("ALTER TABLE tellers DISABLE TRIGGER ALL; INSERT INTO tellers VALUES (51, 'slow')")

    async def take() -> None:
        async with watched.open("tellers") as reading:
            async for batch in reading.batches():
                taken.extend(batch)

    taken: list[bytes] = []
    task = asyncio.create_task(take())
    while len(taken) < 50 or await busy(connection) != ["active"]:
        await asyncio.sleep(0)  # Postgres tells nobody that a query has begun
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await busy(connection) == []


async def test_an_error_in_the_middle_is_raised(watched: Watched, connection: Connection) -> None:
    await connection.execute(SLOW + "ALTER TABLE tellers DISABLE TRIGGER ALL")
    await connection.execute(
        "INSERT INTO tellers SELECT n, (CASE n WHEN 60 THEN 'wrong' ELSE 'quick' END)::told "
        "FROM generate_series(1, 99) AS n"
    )
    error = await refused(watched, "tellers")
    assert (error.code, "division by zero" in error.message) == (Code.INTERNAL, True)


async def test_a_connection_that_dies_in_the_middle_is_noticed_and_the_next_one_works(
    watched: Watched, orders: Connection
) -> None:
    await orders.execute("INSERT INTO orders SELECT n FROM generate_series(4, 50000) AS n")

    async def read_and_kill() -> None:
        async with watched.open("orders") as reading:
            async for _ in reading.batches():
                await orders.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'pghub stream' AND datname = current_database()"
                )

    with pytest.raises(CommandError) as caught:
        await read_and_kill()
    assert (caught.value.code, "__aexit__" in caught.value.message) == (Code.UNAVAILABLE, False)
    assert len((await read(watched, "orders"))[1]) == 50_000


async def test_all_connections_in_use_is_unavailable(database: str, orders: Connection) -> None:
    async with opened(database, patience=0.2) as watched:
        async with watched.open("orders"), watched.open("orders"):
            error = await refused(watched, "orders")
            assert (error.code, "in use" in error.message) == (Code.UNAVAILABLE, True)
            assert await watched.tables()
        assert len((await read(watched, "orders"))[1]) == 3


async def test_types_and_columns_may_change_between_two_readings(watched: Watched, connection: Connection) -> None:
    await connection.execute(
        """
        CREATE TYPE pair AS (a int, b int); CREATE TABLE pairs (pair pair); INSERT INTO pairs VALUES ('(1,2)');
        SELECT hub.watch('pairs')
        """
    )
    for change, expected in (
        ("SELECT", {"pair": {"a": 1, "b": 2}}),
        ("ALTER TYPE pair DROP ATTRIBUTE a CASCADE", {"pair": {"b": 2}}),
        ("ALTER TYPE pair ADD ATTRIBUTE c text CASCADE", {"pair": {"b": 2, "c": None}}),
        ("ALTER TABLE pairs ADD d int DEFAULT 4", {"pair": {"b": 2, "c": None}, "d": 4}),
        ("ALTER TABLE pairs DROP pair; ALTER TABLE pairs ALTER d TYPE text", {"d": "4"}),
        ("ALTER TABLE pairs RENAME d TO e", {"e": "4"}),
    ):
        await connection.execute(change)
        assert (await read(watched, "pairs"))[1] == [expected]


@pytest.mark.parametrize(
    ("grants", "told"),
    [
        ("GRANT USAGE ON SCHEMA sales TO {role}", "GRANT SELECT ON sales.orders TO {role} is missing"),
        ("GRANT SELECT ON sales.orders TO {role}", "GRANT USAGE ON SCHEMA sales TO {role} is missing"),
        (
            """
            GRANT USAGE ON SCHEMA sales TO {role}; GRANT SELECT ON sales.orders TO {role};
            ALTER TABLE sales.orders ENABLE ROW LEVEL SECURITY
            """,
            "ALTER ROLE {role} BYPASSRLS is missing",
        ),
    ],
)
async def test_who_may_not_read_all_rows_reads_none_and_is_told_why(
    connection: Connection, database: str, visitor: str, grants: str, told: str
) -> None:
    await connection.execute(
        f"""
        CREATE SCHEMA sales; CREATE TABLE sales.orders (id int); SELECT hub.watch('sales.orders');
        GRANT USAGE ON SCHEMA hub TO {visitor}; GRANT SELECT ON ALL TABLES IN SCHEMA hub TO {visitor};
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hub TO {visitor}; ALTER TABLE hub.watches DISABLE ROW LEVEL SECURITY;
        {grants.format(role=visitor)}
        """
    )
    async with opened(as_role(database, visitor)) as watched:
        error = await refused(watched, "sales.orders")
    await connection.execute(f"DROP OWNED BY {visitor}")
    assert (error.code, told.format(role=visitor) in error.message) == (Code.FORBIDDEN, True)
