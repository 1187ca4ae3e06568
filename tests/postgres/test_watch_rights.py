"""What may be watched, by whom, and how much of it is shown."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from hub import assets
from hub.postgres.connect import Connection, Target
from hub.postgres.migrate import migrate
from tests.postgres.conftest import as_role, opened
from tests.postgres.test_watch import ITEMS, event, item, reasons, told, watched

GRANTS = """
GRANT USAGE ON SCHEMA hub TO {role};
GRANT EXECUTE ON FUNCTION hub.watch, hub.unwatch, hub.publish_rows, hub.publish_truncate TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON hub.watches TO {role};
"""


PARTITIONED = "CREATE TABLE p (a int) PARTITION BY LIST (a)"
SERVER = "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w"
SUBSCRIBED = """
CREATE TABLE t (a int);
CREATE SUBSCRIPTION sub CONNECTION 'dbname=none' PUBLICATION p WITH (connect = false);
INSERT INTO pg_subscription_rel SELECT oid, 't'::regclass, 'r' FROM pg_subscription WHERE subname = 'sub'
"""


@pytest.mark.parametrize(
    ("made", "name", "why"),
    [
        ("CREATE VIEW v AS SELECT 1 AS a", "v", "it is a view"),
        ("CREATE MATERIALIZED VIEW m AS SELECT 1 AS a", "m", "it is a materialized view"),
        ("CREATE TEMP TABLE t (a int)", "t", "it is a temporary table"),
        ("CREATE UNLOGGED TABLE u (a int)", "u", "it is unlogged"),
        ("CREATE SEQUENCE s", "s", "it is no table"),
        ("SELECT 1", "pg_catalog.pg_class", "it is a table of Postgres's own"),
        ("SELECT 1", "hub.events", "it is a table of the hub's own"),
        (f"{PARTITIONED}; CREATE TABLE q PARTITION OF p DEFAULT", "q", "watch public.p instead"),
        (f"{PARTITIONED}; CREATE UNLOGGED TABLE q PARTITION OF p DEFAULT", "p", "its partition public.q is unlogged"),
        ("CREATE TABLE a (a int); CREATE TABLE b () INHERITS (a)", "a", "public.b inherits from it"),
        ("CREATE TABLE a (a int); CREATE TABLE b () INHERITS (a)", "b", "it inherits from public.a"),
        (f"{SERVER}; CREATE FOREIGN TABLE f (a int) SERVER s", "f", "it is a foreign table"),
        (
            f"{SERVER}; {PARTITIONED}; CREATE FOREIGN TABLE f PARTITION OF p DEFAULT SERVER s",
            "p",
            "its partition public.f is a foreign table",
        ),
        (SUBSCRIBED, "t", "public.t is the target of a subscription"),
    ],
)
async def test_what_cannot_be_told_is_refused_and_says_why(
    connection: Connection, made: str, name: str, why: str
) -> None:
    async with connection.transaction():
        await connection.execute("SET LOCAL allow_system_table_mods = on; SET LOCAL client_min_messages = error")
        await connection.execute(made)
    try:
        with pytest.raises(asyncpg.WrongObjectTypeError, match=f"cannot be watched: .*{why}"):
            await connection.execute(f"SELECT hub.watch('{name}')")
    finally:
        if "SUBSCRIPTION" in made:
            await connection.execute("ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub")


async def test_the_channel_is_the_table_s_name_or_what_one_says(connection: Connection) -> None:
    await connection.execute(f"{ITEMS}; CREATE SCHEMA shop; CREATE TABLE shop.items (id int)")
    assert await connection.fetchval("SELECT hub.watch('items')") == "items"
    assert await connection.fetchval("SELECT hub.watch('shop.items')") == "shop.items"
    assert await connection.fetchval("SELECT hub.watch('items', 'goods')") == "goods"
    await connection.execute("INSERT INTO items VALUES (1)")
    assert reasons(await told(connection, "items")) == ["It has another name or channel now."]
    assert len(await told(connection, "goods")) == 1
    assert await connection.fetchval("SELECT hub.watch('items')") == "items"


@pytest.mark.parametrize("name", ["hub_items", "$items", "a*", "x" * 63])
async def test_a_name_that_is_no_channel_asks_for_one(connection: Connection, name: str) -> None:
    await connection.execute(f'CREATE SCHEMA s; CREATE TABLE s."{name}" (id int); CREATE TABLE "{name}" (id int)')
    table = f's."{name}"' if len(name) == 63 else f'"{name}"'
    with pytest.raises(asyncpg.CheckViolationError, match="is no legal name of a channel") as caught:
        await connection.fetchval("SELECT hub.watch($1::text::regclass)", table)
    assert "channel =>" in (caught.value.hint or "")
    assert await connection.fetchval("SELECT hub.watch($1::text::regclass, channel => 'fine')", table) == "fine"


async def test_a_watch_ends_without_a_trace(connection: Connection) -> None:
    await watched(connection)
    await connection.execute("SELECT hub.unwatch('items'); INSERT INTO items VALUES (1)")
    assert reasons(await told(connection)) == ["It is watched no longer."]
    assert await connection.fetchval("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'items'::regclass") == 0
    assert await connection.fetch("SELECT * FROM hub.watched") == []
    with pytest.raises(asyncpg.UndefinedObjectError, match=r"public\.items is not watched"):
        await connection.execute("SELECT hub.unwatch('items')")


async def test_only_chosen_columns_appear_and_those_of_the_key(connection: Connection) -> None:
    await watched(connection, arguments="'items', columns => '{name}', old => true")
    await connection.execute("INSERT INTO items VALUES (1, 'a', 1); UPDATE items SET price = 2")
    await connection.execute("UPDATE items SET price = 3, name = 'b'; DELETE FROM items")
    a, b = {"id": 1, "name": "a"}, {"id": 1, "name": "b"}
    assert await told(connection) == [
        event("insert", a),
        event("update", b, a, ["name"]),
        event("delete", old=b),
    ]
    assert await connection.fetchval("SELECT columns FROM hub.watched") == ["id", "name"]
    with pytest.raises(asyncpg.UndefinedColumnError, match=r'public\.items has no column "Name"'):
        await connection.execute("SELECT hub.watch('items', columns => '{id,Name}')")
    await connection.execute("SELECT hub.watch('items')")
    assert [each["op"] for each in await told(connection)] == ["reload"], "readers lack a column now"


async def test_an_owner_with_the_grants_watches_and_nobody_else_may(
    connection: Connection, database: str, visitor: str
) -> None:
    await connection.execute(f"CREATE SCHEMA s AUTHORIZATION {visitor}; {ITEMS}; SELECT hub.watch('items')")
    try:
        async with opened(Target(as_role(database, visitor))) as owner:
            await owner.execute("CREATE TABLE s.own (id int PRIMARY KEY)")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await owner.execute("SELECT hub.watch('s.own')")
            await connection.execute(GRANTS.format(role=visitor))
            assert await owner.fetchval("SELECT hub.watch('s.own')") == "s.own"
            assert await owner.fetchval("SELECT hub.watch('s.own', 'own')") == "own"
            await owner.execute("INSERT INTO s.own VALUES (1); ALTER TABLE s.own ADD COLUMN n int")
            await owner.execute("SELECT hub.watch('s.own', 'own')")
            assert [each["op"] for each in await told(connection, "own")] == ["insert", "reload"]
            for attempt in ("hub.watch('items', 'mine')", "hub.watch('items')"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"must be owner of public\.items"):
                    await owner.execute(f"SELECT {attempt}")
            with pytest.raises(asyncpg.UndefinedObjectError):
                await owner.execute("SELECT hub.unwatch('items')")
            assert await owner.fetchval("SELECT count(*) FROM hub.watches") == 1
            assert await owner.execute("UPDATE hub.watches SET channel = 'mine' WHERE channel = 'items'") == "UPDATE 0"
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await owner.execute("UPDATE hub.watches SET relation = 'public.items'::regclass")
            for hidden in ("hub.events", "hub.watched", "hub.shapes"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await owner.execute(f"SELECT * FROM {hidden}")
            await owner.execute("SELECT hub.unwatch('s.own')")
        await connection.execute("INSERT INTO items VALUES (1)")
        assert len(await told(connection)) == 1
    finally:
        await connection.execute(f"DROP OWNED BY {visitor}")


async def test_who_may_write_a_table_needs_no_right_in_the_hub(
    connection: Connection, database: str, visitor: str
) -> None:
    await watched(connection)
    await connection.execute(f"GRANT ALL ON items TO {visitor}")
    try:
        async with opened(Target(as_role(database, visitor))) as writer:
            await writer.execute("INSERT INTO items VALUES (1); UPDATE items SET price = 2; TRUNCATE items")
        assert [each["op"] for each in await told(connection)] == ["insert", "update", "truncate"]
    finally:
        await connection.execute(f"DROP OWNED BY {visitor}")


async def test_what_a_role_s_own_types_bring_along_does_not_run_with_the_hub_s_rights(
    connection: Connection, database: str, visitor: str
) -> None:
    """to_jsonb calls a cast to json, which whoever owns a type may make."""
    await connection.execute(f"CREATE SCHEMA s AUTHORIZATION {visitor}; {GRANTS.format(role=visitor)}")
    try:
        async with opened(Target(as_role(database, visitor))) as owner:
            await owner.execute(
                """
                CREATE TYPE s.mood AS ENUM ('fine', 'a "b"'); CREATE TYPE s.pair AS (a int, b text);
                CREATE TABLE s.loot (who text);
                CREATE FUNCTION s.cast_mood(s.mood) RETURNS json LANGUAGE sql AS
                    $$ INSERT INTO s.loot VALUES (current_user) RETURNING '1'::json $$;
                CREATE FUNCTION s.cast_pair(s.pair) RETURNS json LANGUAGE sql AS
                    $$ INSERT INTO s.loot VALUES (current_user) RETURNING '1'::json $$;
                CREATE CAST (s.mood AS json) WITH FUNCTION s.cast_mood(s.mood);
                CREATE CAST (s.pair AS json) WITH FUNCTION s.cast_pair(s.pair);
                CREATE TABLE s.own (id int PRIMARY KEY, mood s.mood, moods s.mood[], pair s.pair, plain int);
                SELECT hub.watch('s.own', 'own');
                INSERT INTO s.own VALUES (1, 'a "b"', '{fine,NULL}', '(1,x)', 2);
                INSERT INTO s.own (id) VALUES (2);
                UPDATE s.own SET mood = 'fine', plain = 3 WHERE id = 1;
                """
            )
            assert await owner.fetchval("SELECT count(*) FROM s.loot") == 0
        table = "s.own"
        own = {"id": 1, "mood": 'a "b"', "moods": ["fine", None], "pair": "(1,x)", "plain": 2}
        assert await told(connection, "own") == [
            event("insert", own, table=table),
            event("insert", {"id": 2, "mood": None, "moods": None, "pair": None, "plain": None}, table=table),
            event("update", own | {"mood": "fine", "plain": 3}, changed=["mood", "plain"], table=table),
        ]
    finally:
        await connection.execute(f"DROP OWNED BY {visitor} CASCADE")


LOOT = """
CREATE TABLE s.loot (who text); CREATE TABLE s.own (id int PRIMARY KEY);
CREATE FUNCTION s.steal() RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO s.loot VALUES (current_user); RETURN true; END $$;
CREATE TEMP VIEW hub_new AS SELECT 1 AS id WHERE s.steal();
CREATE TEMP VIEW hub_old AS SELECT 1 AS id WHERE s.steal();
"""


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize(
    "trigger",
    [
        "CREATE TRIGGER x AFTER {} ON s.own EXECUTE FUNCTION hub.publish_rows('c', 'x')",
        "CREATE TRIGGER x AFTER {} ON s.own FOR EACH ROW EXECUTE FUNCTION hub.publish_rows('c', 'x')",
        "CREATE TRIGGER x BEFORE {} ON s.own EXECUTE FUNCTION hub.publish_rows('c', 'x')",
        "CREATE TRIGGER hub_insert AFTER {} ON s.own EXECUTE FUNCTION hub.publish_rows('c', 'x')",
    ],
)
async def test_a_trigger_of_one_s_own_runs_nothing_with_the_hub_s_rights(
    connection: Connection, database: str, visitor: str, trigger: str, isolation: str
) -> None:
    """Without transition tables their names are those of temporary views."""
    await connection.execute(f"CREATE SCHEMA s AUTHORIZATION {visitor}; {GRANTS.format(role=visitor)}")
    try:
        async with opened(Target(as_role(database, visitor))) as owner:
            await owner.execute(LOOT + trigger.format("INSERT OR UPDATE OR DELETE"))
            await owner.execute("INSERT INTO s.own VALUES (1); UPDATE s.own SET id = 2; DELETE FROM s.own")
            if "hub_insert" not in trigger:
                await owner.execute("SELECT hub.watch('s.own', 'c')")
            await owner.execute(
                f"BEGIN ISOLATION LEVEL {isolation}; INSERT INTO s.own VALUES (1); UPDATE s.own SET id = 2; COMMIT"
            )
            assert await owner.fetchval("SELECT count(*) FROM s.loot") == 0
        assert await connection.fetchval("SELECT count(*) FROM hub.events WHERE payload ->> 'op' <> 'reload'") == 0
    finally:
        await connection.execute(f"DROP OWNED BY {visitor} CASCADE")


async def test_a_trigger_renamed_in_the_middle_of_a_statement_is_not_taken_for_another(
    connection: Connection, database: str, visitor: str
) -> None:
    await connection.execute(f"CREATE SCHEMA s AUTHORIZATION {visitor}; {GRANTS.format(role=visitor)}")
    try:
        async with opened(Target(as_role(database, visitor))) as owner:
            await owner.execute(
                LOOT
                + """
                CREATE TRIGGER x AFTER INSERT ON s.own EXECUTE FUNCTION hub.publish_rows('c', 'x');
                SELECT hub.watch('s.own', 'c');
                CREATE FUNCTION s.swap() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
                    ALTER TRIGGER x ON s.own RENAME TO y; ALTER TRIGGER hub_insert ON s.own RENAME TO x;
                    RETURN 1;
                END $$;
                """
            )
            await owner.execute("INSERT INTO s.own SELECT s.swap()")
            assert await owner.fetchval("SELECT count(*) FROM s.loot") == 0
    finally:
        await connection.execute(f"DROP OWNED BY {visitor} CASCADE")


async def test_a_role_s_own_table_is_not_read_with_the_hub_s_rights(
    connection: Connection, database: str, visitor: str
) -> None:
    """Planning is enough to run a function that stands in the condition of an index."""
    await connection.execute(f"CREATE SCHEMA s AUTHORIZATION {visitor}; {GRANTS.format(role=visitor)}")
    try:
        async with opened(Target(as_role(database, visitor))) as owner:
            await owner.execute(
                """
                CREATE TABLE s.own (id int PRIMARY KEY);
                CREATE FUNCTION s.honest(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                    IF current_user <> session_user THEN RAISE WARNING 'runs as %', current_user; END IF;
                    RETURN true;
                END $$;
                CREATE INDEX ON s.own (id) WHERE s.honest(1); SELECT hub.watch('s.own', 'own');
                """
            )
            warnings: list[object] = []
            owner.add_log_listener(lambda _, message: warnings.append(message))
            await owner.execute("INSERT INTO s.own VALUES (1); UPDATE s.own SET id = 2; TRUNCATE s.own")
            assert warnings == []
        assert [each["op"] for each in await told(connection, "own")] == ["insert", "delete", "insert", "reload"]
    finally:
        await connection.execute(f"DROP OWNED BY {visitor} CASCADE")


async def test_types_of_the_hub_s_owner_are_written_as_to_jsonb_does(connection: Connection) -> None:
    await connection.execute("CREATE TYPE mood AS ENUM ('fine'); CREATE TYPE pair AS (a int, b mood)")
    await connection.execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    await watched(connection, "CREATE TABLE items (id int PRIMARY KEY, mood mood, pair pair[], n positive)")
    await connection.execute("INSERT INTO items VALUES (1, 'fine', ARRAY[(2, 'fine')::pair], 3)")
    new: dict[str, Any] = {"id": 1, "mood": "fine", "pair": [{"a": 2, "b": "fine"}], "n": 3}
    assert await told(connection) == [event("insert", new)]


async def test_a_hub_that_is_no_superuser_s_publishes_for_others_too(blank: str, visitor: str) -> None:
    """It reads what others write from transition tables, which takes no right on theirs."""
    async with opened(Target(blank)) as admin:
        name = await admin.fetchval("SELECT current_database()")
        await admin.execute(f"GRANT CREATE ON DATABASE {name} TO {visitor}; CREATE ROLE stranger; {ITEMS}")
        await admin.execute("CREATE TYPE mood AS ENUM ('fine'); ALTER TYPE mood OWNER TO stranger")
        await admin.execute("ALTER TABLE items ADD mood mood; ALTER TABLE items OWNER TO stranger")
        try:
            async with opened(Target(as_role(blank, visitor))) as owner:
                await migrate(owner, assets.folder("sql"))
                await owner.execute(GRANTS.format(role="stranger"))
                await admin.execute("SET ROLE stranger; SELECT hub.watch('items'); INSERT INTO items VALUES (1, 'a')")
                await admin.execute("BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE items SET mood = 'fine'; COMMIT")
                a = item(1, "a")
                assert await told(owner) == [
                    event("insert", a | {"mood": None}),
                    event("update", a | {"mood": "fine"}, changed=["mood"]),
                ]
                await admin.execute("ALTER TABLE items ADD size int; RESET ROLE")
                assert await owner.fetchval("SELECT hub.rewatch()") == 1, "it needs no right on the table for that"
                assert [each["op"] for each in await told(owner)] == ["reload"]
                await admin.execute("ALTER TABLE items DISABLE TRIGGER hub_update")
                assert await owner.fetchval("SELECT hub.rewatch()") == 0
                assert await owner.fetchval("SELECT amiss FROM hub.watched") == (
                    "Triggers are missing on public.items, or disabled: what is changed there may not be told. "
                    "They cannot be put back: permission denied for table items."
                )
        finally:
            await admin.execute(f"DROP OWNED BY stranger, {visitor} CASCADE; DROP ROLE stranger")
