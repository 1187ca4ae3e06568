"""hub.watch on partitioned tables, and hub.rewatch, which follows tables that change."""

from __future__ import annotations

import asyncio

import pytest

from hub.postgres import binaries
from hub.postgres.connect import Connection, Target
from tests.conftest import renamed
from tests.postgres.conftest import opened
from tests.postgres.test_watch import event, reasons, told

SHAPE = "Its columns, its key or its partitions have changed."
MISSING = "Triggers are missing on {}, or disabled: what is changed there may not be told"


async def partitioned(connection: Connection, arguments: str = "'items'") -> None:
    """`items` of `low` (ids below 100) and `high`, of which `top` (from 200) is a part."""
    await connection.execute(
        """
        CREATE TABLE items (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
        CREATE TABLE low (name text, id int NOT NULL);
        ALTER TABLE items ATTACH PARTITION low FOR VALUES FROM (0) TO (100);
        CREATE TABLE high PARTITION OF items FOR VALUES FROM (100) TO (300) PARTITION BY RANGE (id);
        CREATE TABLE middle PARTITION OF high FOR VALUES FROM (100) TO (200);
        CREATE TABLE top PARTITION OF high FOR VALUES FROM (200) TO (300);
        """
    )
    await connection.execute(f"SELECT hub.watch({arguments})")


async def rewatch(connection: Connection) -> int:
    """As a hub does it each minute."""
    if await connection.fetchval("SELECT hub.watches_due()"):
        assert await connection.fetchval("SELECT hub.rewatch()") > 0
        assert not await connection.fetchval("SELECT hub.watches_due()")
        return 1
    return 0


async def amiss(connection: Connection, table: str = "items") -> str | None:
    text = await connection.fetchval("SELECT amiss FROM hub.watched WHERE relation = $1::text::regclass", table)
    assert text is None or isinstance(text, str)
    return text


async def test_rows_are_told_whichever_way_they_come(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute("INSERT INTO items VALUES (1, 'a'), (150, 'b')")
    await connection.execute("INSERT INTO low (id, name) VALUES (2, 'c'); INSERT INTO top VALUES (250, 'd')")
    await connection.execute("UPDATE high SET name = 'e'; DELETE FROM low WHERE id = 1")
    assert await told(connection) == [
        event("insert", {"id": 1, "name": "a"}),
        event("insert", {"id": 150, "name": "b"}),
        event("insert", {"id": 2, "name": "c"}),
        event("insert", {"id": 250, "name": "d"}),
        event("update", {"id": 150, "name": "e"}, changed=["name"]),
        event("update", {"id": 250, "name": "e"}, changed=["name"]),
        event("delete", old={"id": 1}),
    ]


async def test_a_row_that_moves_to_another_partition_is_one_that_changes_its_key(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute("INSERT INTO items VALUES (1, 'a'), (2, 'b')")
    await told(connection)
    await connection.execute("UPDATE items SET id = CASE id WHEN 1 THEN 150 ELSE 2 END, name = 'c'")
    assert await told(connection) == [
        event("delete", old={"id": 1}),
        event("insert", {"id": 150, "name": "c"}),
        event("update", {"id": 2, "name": "c"}, changed=["name"]),
    ]


async def test_without_its_id_in_the_bounds_a_row_that_moves_is_an_update(connection: Connection) -> None:
    await connection.execute("CREATE TABLE items (id int, part int) PARTITION BY LIST (part)")
    await connection.execute("CREATE TABLE one PARTITION OF items FOR VALUES IN (1)")
    await connection.execute("CREATE TABLE two PARTITION OF items FOR VALUES IN (2); SELECT hub.watch('items')")
    await connection.execute("INSERT INTO items VALUES (1, 1), (2, 1), (3, 2)")
    await told(connection)
    await connection.execute("UPDATE items SET part = 3 - part WHERE id <> 2")
    assert await told(connection) == [
        event("update", {"id": 1, "part": 2}, changed=["part"]),
        event("update", {"id": 3, "part": 1}, changed=["part"]),
    ]


async def test_a_row_swallowed_on_its_way_into_another_partition_is_gone(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER swallow BEFORE INSERT ON middle FOR EACH ROW WHEN (new.id = 150) EXECUTE FUNCTION swallow()"
    )
    await connection.execute("INSERT INTO items VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    await told(connection)
    await connection.execute("UPDATE items SET id = CASE id WHEN 2 THEN 150 ELSE id END, name = 'd'")
    assert await told(connection) == [
        event("delete", old={"id": 1}),
        event("delete", old={"id": 2}),
        event("delete", old={"id": 3}),
        event("insert", {"id": 1, "name": "d"}),
        event("insert", {"id": 3, "name": "d"}),
    ]


async def test_a_truncate_of_all_is_told_once(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute("TRUNCATE items")
    assert await told(connection) == [event("truncate")]
    await connection.execute("DO $$ BEGIN TRUNCATE items; TRUNCATE middle; END $$")
    assert [each["op"] for each in await told(connection)] == ["truncate", "reload"]
    await connection.execute("DO $$ BEGIN TRUNCATE items; TRUNCATE items; END $$")
    assert await told(connection) == [event("truncate")] * 2


async def test_a_truncate_of_a_partition_is_a_reload_of_the_table(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute("TRUNCATE low")
    assert reasons(await told(connection)) == ["The partition public.low was truncated."]
    await connection.execute("TRUNCATE high")
    assert reasons(await told(connection)) == ["The partition public.high was truncated."]


async def test_a_partition_named_beside_its_table_hides_nothing(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute("TRUNCATE low, items")
    assert [each["op"] for each in await told(connection)] == ["reload", "truncate"]
    await connection.execute("DO $$ BEGIN TRUNCATE low, items; TRUNCATE low; TRUNCATE middle; END $$")
    assert [each["op"] for each in await told(connection)] == ["reload", "truncate", "reload", "reload"]
    async with connection.transaction():
        await connection.execute("SAVEPOINT s; TRUNCATE items; ROLLBACK TO s; TRUNCATE low")
        await connection.execute("SET LOCAL hub.truncating = 'nonsense {'; TRUNCATE middle")
    assert len(reasons(await told(connection))) == 2


async def test_a_new_partition_gets_its_triggers_and_readers_a_reload(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute(
        "CREATE TABLE more PARTITION OF items FOR VALUES FROM (300) TO (400) PARTITION BY RANGE (id);"
        "CREATE TABLE deep PARTITION OF more FOR VALUES FROM (300) TO (350)"
    )
    text = await amiss(connection)
    assert text is not None
    assert text.startswith("Triggers are missing on ")
    assert await rewatch(connection)
    assert reasons(await told(connection)) == [SHAPE]
    assert await amiss(connection) is None
    await connection.execute("INSERT INTO deep VALUES (301, 'a')")
    assert await told(connection) == [event("insert", {"id": 301, "name": "a"})]
    assert not await rewatch(connection)


async def test_a_detached_partition_is_let_go(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute("ALTER TABLE items DETACH PARTITION high; INSERT INTO top VALUES (250)")
    assert await told(connection) == []
    assert await rewatch(connection)
    assert reasons(await told(connection)) == [SHAPE]
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'hub\\_%' AND tgrelid = ANY($1::text[]::regclass[])"
    assert await connection.fetchval(triggers, ["high", "middle", "top"]) == 0
    assert await connection.fetchval(triggers, ["items", "low"]) == 8


async def test_a_table_that_becomes_a_partition_says_so_and_its_parent_speaks_for_it(connection: Connection) -> None:
    await connection.execute("CREATE TABLE low (id int PRIMARY KEY, name text); SELECT hub.watch('low')")
    await connection.execute("CREATE TABLE items (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)")
    await connection.execute("ALTER TABLE items ATTACH PARTITION low FOR VALUES FROM (0) TO (100)")
    assert await amiss(connection, "low") == (
        "It is a partition: watch public.items instead, since rows that come through a parent fire no trigger here."
    )
    assert not await rewatch(connection)
    await connection.execute("SELECT hub.watch('items'); INSERT INTO low VALUES (1)")
    assert await told(connection) == [event("insert", {"id": 1, "name": None})]
    await connection.execute("SELECT hub.unwatch('low'); INSERT INTO low VALUES (2)")
    assert await told(connection) == [event("insert", {"id": 2, "name": None})]
    assert reasons(await told(connection, "low")) == ["It is watched no longer."]
    await connection.execute("SELECT hub.unwatch('items'); INSERT INTO low VALUES (3)")
    assert await connection.fetchval("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'hub\\_%'") == 0


async def test_a_watched_table_that_is_a_partition_no_longer_speaks_for_itself_at_once(connection: Connection) -> None:
    await connection.execute("CREATE TABLE low (id int PRIMARY KEY); SELECT hub.watch('low')")
    await connection.execute("CREATE TABLE items (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    await connection.execute("ALTER TABLE items ATTACH PARTITION low FOR VALUES FROM (0) TO (100)")
    await connection.execute("SELECT hub.watch('items'); ALTER TABLE items DETACH PARTITION low")
    await connection.execute("INSERT INTO low VALUES (1)")
    assert await told(connection, "low") == [event("insert", {"id": 1}, table="public.low")]
    assert await told(connection) == []


async def test_a_dropped_table_is_forgotten(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute("DROP TABLE items")
    assert await connection.fetch("SELECT * FROM hub.watched") == []
    assert await connection.fetchval("SELECT hub.watches_due()")
    await connection.execute("SELECT hub.rewatch()")
    assert await connection.fetchval("SELECT count(*) FROM hub.watches") == 0
    assert not await connection.fetchval("SELECT hub.watches_due()")


@pytest.mark.parametrize(
    ("change", "reload"),
    [
        ("RENAME name TO title", True),
        ("ADD COLUMN size int", True),
        ("ALTER COLUMN name TYPE varchar", True),
        ("DROP COLUMN name", True),
        ("DROP CONSTRAINT items_pkey", True),
        ("ALTER COLUMN name SET DEFAULT 'x'", False),
        ("ADD CONSTRAINT few CHECK (id < 1000)", False),
    ],
)
async def test_other_columns_are_a_reload(connection: Connection, change: str, reload: bool) -> None:
    await partitioned(connection)
    await connection.execute(f"ALTER TABLE items {change}")
    assert bool(await rewatch(connection)) is reload
    assert reasons(await told(connection)) == [SHAPE] * reload


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE items DROP note, ADD note text DEFAULT 'x'",
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
        "ALTER TYPE pair RENAME ATTRIBUTE a TO b CASCADE",
        "ALTER TABLE items DROP twice; ALTER TABLE items ADD twice int GENERATED ALWAYS AS (id * 3) STORED",
    ],
)
async def test_other_values_by_the_same_names_are_a_reload(connection: Connection, change: str) -> None:
    await connection.execute(
        "CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE pair AS (a int, moods mood[]);"
        "CREATE TABLE items (id int, pairs pair[], twice int GENERATED ALWAYS AS (id * 2) STORED, note text);"
        "SELECT hub.watch('items')"
    )
    await connection.execute(change)
    assert await rewatch(connection)
    assert reasons(await told(connection)) == [SHAPE]
    assert not await rewatch(connection)


async def test_what_happened_to_a_partition_while_it_was_detached_is_a_reload(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute("INSERT INTO items VALUES (1, 'a')")
    await told(connection)
    attach = "ALTER TABLE items ATTACH PARTITION low FOR VALUES FROM (0) TO (100)"
    await connection.execute(f"ALTER TABLE items DETACH PARTITION low; UPDATE low SET name = 'b'; {attach}")
    assert await rewatch(connection)
    assert reasons(await told(connection)) == [SHAPE]
    await connection.execute("UPDATE low SET name = 'c'")
    assert await told(connection) == [event("update", {"id": 1, "name": "c"}, changed=["name"])]


async def test_chosen_columns_are_followed_when_they_are_renamed(connection: Connection) -> None:
    await partitioned(connection, "'items', columns => '{name}'")
    await connection.execute("ALTER TABLE items ADD COLUMN other int")
    assert not await rewatch(connection), "nobody reads that one"
    await connection.execute("ALTER TABLE items RENAME name TO title; ALTER TABLE items RENAME other TO name")
    await connection.execute("INSERT INTO items VALUES (1, 'a', 2)")
    assert await told(connection) == [event("insert", {"id": 1, "title": "a"})]
    assert await rewatch(connection)
    assert await connection.fetchval("SELECT columns FROM hub.watches") == ["title"]
    assert await connection.fetchval("SELECT columns FROM hub.watched") == ["id", "title"]
    await connection.execute("ALTER TABLE items DROP COLUMN title; INSERT INTO items VALUES (2, 3)")
    assert (await told(connection))[-1] == event("insert", {"id": 2})


async def test_readers_learn_once_that_a_table_can_be_told_no_longer_and_that_it_can_again(
    connection: Connection,
) -> None:
    await connection.execute("CREATE TABLE items (id int PRIMARY KEY); SELECT hub.watch('items')")
    await connection.execute("CREATE TABLE heirs () INHERITS (items)")
    assert await rewatch(connection)
    objection = "public.heirs inherits from it, and one statement changes both."
    assert reasons(await told(connection)) == [objection]
    assert await amiss(connection) == objection
    assert not await rewatch(connection)
    await connection.execute("ALTER TABLE heirs NO INHERIT items")
    assert await rewatch(connection)
    assert reasons(await told(connection)) == ["Its changes are told again: some may have passed unseen."]
    assert await amiss(connection) is None
    await connection.execute("ALTER TABLE items SET UNLOGGED")
    assert await rewatch(connection)
    assert reasons(await told(connection)) == ["It is unlogged: a crash empties it without a word."]


async def test_triggers_that_were_disabled_are_put_back_with_a_reload(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute("ALTER TABLE low DISABLE TRIGGER ALL; INSERT INTO low (id) VALUES (1)")
    assert await told(connection) == []
    assert (
        await amiss(connection)
        == "Triggers are missing on public.low, or disabled: what is changed there may not be told."
    )
    assert await rewatch(connection)
    assert reasons(await told(connection)) == ["Triggers were missing: changes may have passed unseen."]
    await connection.execute("INSERT INTO low (id) VALUES (2)")
    assert len(await told(connection)) == 1


async def test_watching_again_puts_right_what_rewatch_would(connection: Connection) -> None:
    await partitioned(connection)
    await connection.execute("CREATE TABLE more PARTITION OF items FOR VALUES FROM (300) TO (400)")
    await connection.execute("DROP TRIGGER hub_insert ON low; SELECT hub.watch('items')")
    assert reasons(await told(connection)) == [SHAPE]
    assert await amiss(connection) is None
    await connection.execute("SELECT hub.watch('items')")
    assert await told(connection) == []


async def test_what_rewatch_cannot_do_is_told_and_holds_up_nothing_else(connection: Connection, database: str) -> None:
    await partitioned(connection)
    await connection.execute("CREATE TABLE other (id int); SELECT hub.watch('other')")
    await connection.execute("CREATE TABLE more PARTITION OF items FOR VALUES FROM (300) TO (400)")
    await connection.execute("ALTER TABLE other ADD COLUMN name text")
    async with opened(Target(database)) as busy:
        await busy.execute("BEGIN; INSERT INTO more VALUES (300)")
        assert await connection.fetchval("SELECT hub.rewatch()") == 1
        assert await amiss(connection) == (
            f"{MISSING.format('public.more')}. They cannot be put back: canceling statement due to lock timeout."
        )
        assert reasons(await told(connection, "other")) == [SHAPE]
        assert await told(connection) == []
        await busy.execute("COMMIT")
    assert await rewatch(connection)
    assert reasons(await told(connection)) == [SHAPE]
    assert await amiss(connection) is None


async def test_two_hubs_that_rewatch_at_once_publish_one_reload(connection: Connection, database: str) -> None:
    await partitioned(connection)
    await connection.execute("ALTER TABLE items ADD COLUMN size int")
    async with opened(Target(database)) as other:
        await connection.execute("BEGIN; SELECT hub.rewatch()")
        assert await other.fetchval("SELECT hub.rewatch()") == 0
        await connection.execute("COMMIT")
        assert await other.fetchval("SELECT hub.rewatch()") == 0
    assert reasons(await told(connection)) == [SHAPE]


async def test_a_dump_brings_its_watches_along(connection: Connection, database: str, server: str) -> None:
    """The oids are others then, so the names of the chosen columns count until the next look."""
    await partitioned(connection, "'items', 'things', '{name}', true")
    await connection.execute("ALTER TABLE items ADD COLUMN secret text; INSERT INTO items VALUES (1, 'a', 'x')")
    major = connection.get_server_version().major
    bin_dir = next(found.bin for found in binaries.installed() if found.major == major)
    await connection.execute("CREATE DATABASE restored")
    restored = renamed(server, "restored")
    try:
        await run(f"{bin_dir}/pg_dump '{database}' | {bin_dir}/psql -q -v ON_ERROR_STOP=1 '{restored}'")
        async with opened(Target(restored)) as there:
            await told(there, "things")
            await there.execute("INSERT INTO items VALUES (2, 'b', 'y'); INSERT INTO low (id, name) VALUES (3, 'c')")
            assert await told(there, "things") == [
                event("insert", {"id": 2, "name": "b"}),
                event("insert", {"id": 3, "name": "c"}),
            ]
            assert await rewatch(there)
            assert reasons(await told(there, "things")) == [SHAPE]
            await there.execute("ALTER TABLE items RENAME name TO title; UPDATE items SET title = 'd' WHERE id = 2")
            (update,) = await told(there, "things")
            assert (update["new"], update["old"]) == ({"id": 2, "title": "d"}, {"id": 2, "title": "b"})
    finally:
        await connection.execute("DROP DATABASE restored WITH (FORCE)")


async def run(command: str) -> None:
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
