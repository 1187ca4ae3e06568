"""hub.watch: what a table's changes look like as events."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from hub.postgres.connect import Connection, Target
from tests.postgres.conftest import opened

ITEMS = "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric)"


async def told(connection: Connection, channel: str = "items") -> list[dict[str, Any]]:
    """The events of a channel so far, which are taken away, so that the next call tells what came since."""
    rows = await connection.fetch("SELECT payload FROM hub.events WHERE channel = $1 ORDER BY id", channel)
    await connection.execute("DELETE FROM hub.events WHERE channel = $1", channel)
    return [row["payload"] for row in rows]


def event(
    op: str, new: Any = None, old: Any = None, changed: Any = None, table: str = "public.items"
) -> dict[str, Any]:
    return {"op": op, "table": table, "new": new, "old": old, "changed": changed}


def item(number: int, name: str | None = None, price: float | None = None) -> dict[str, Any]:
    return {"id": number, "name": name, "price": price}


async def watched(connection: Connection, table: str = ITEMS, arguments: str = "'items'") -> str:
    await connection.execute(table)
    channel = await connection.fetchval(f"SELECT hub.watch({arguments})")
    assert isinstance(channel, str)
    return channel


def reasons(events: list[dict[str, Any]]) -> list[str]:
    """Those of reloads; nothing else may have come."""
    assert [each["op"] for each in events] == ["reload"] * len(events)
    return [each["reason"] for each in events]


async def test_each_row_that_changes_is_an_event(connection: Connection) -> None:
    assert await watched(connection) == "items"
    await connection.execute("INSERT INTO items VALUES (1, 'a', 1), (2, 'b', 2)")
    await connection.execute("UPDATE items SET name = 'c' WHERE id = 2")
    await connection.execute("DELETE FROM items WHERE id = 1")
    await connection.execute("TRUNCATE items")
    assert await told(connection) == [
        event("insert", item(1, "a", 1)),
        event("insert", item(2, "b", 2)),
        event("update", item(2, "c", 2), changed=["name"]),
        event("delete", old={"id": 1}),
        event("truncate"),
    ]


async def test_the_old_row_comes_with_it_if_asked_for(connection: Connection) -> None:
    await watched(connection, arguments="'items', old => true")
    await connection.execute("INSERT INTO items VALUES (1, 'a', 1)")
    await connection.execute("UPDATE items SET price = 2")
    await connection.execute("DELETE FROM items")
    assert (await told(connection))[1:] == [
        event("update", item(1, "a", 2), item(1, "a", 1), ["price"]),
        event("delete", old=item(1, "a", 2)),
    ]


async def test_without_a_primary_key_a_delete_tells_the_whole_row(connection: Connection) -> None:
    await watched(connection, "CREATE TABLE items (id int, name text)")
    await connection.execute("INSERT INTO items VALUES (1, 'a')")
    await connection.execute("DELETE FROM items")
    assert (await told(connection))[1:] == [event("delete", old={"id": 1, "name": "a"})]


async def test_what_changes_nothing_publishes_nothing(connection: Connection) -> None:
    await watched(connection)
    await connection.execute("INSERT INTO items SELECT * FROM items")
    await connection.execute("UPDATE items SET name = 'x'; DELETE FROM items")
    assert await told(connection) == []
    await connection.execute("INSERT INTO items VALUES (1, 'a', 1.0), (2, 'a', 2.0)")
    await told(connection)
    await connection.execute("UPDATE items SET name = 'a', price = CASE id WHEN 1 THEN 1.00 ELSE 2.0 END")
    (only,) = await told(connection)
    assert (only["new"]["id"], only["changed"]) == (1, ["price"]), "1.00 is written differently from 1.0"


async def test_a_rollback_publishes_nothing(connection: Connection) -> None:
    await watched(connection)
    await connection.execute("BEGIN; INSERT INTO items VALUES (1); SAVEPOINT s; INSERT INTO items VALUES (2)")
    await connection.execute("ROLLBACK TO s; INSERT INTO items VALUES (3); COMMIT")
    assert [each["new"]["id"] for each in await told(connection)] == [1, 3]


async def test_a_row_whose_key_changes_goes_and_comes_and_all_go_first(connection: Connection) -> None:
    await watched(connection)
    await connection.execute("INSERT INTO items VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    await told(connection)
    await connection.execute("UPDATE items SET id = CASE id WHEN 3 THEN 3 ELSE id + 10 END, name = upper(name)")
    assert await told(connection) == [
        event("delete", old={"id": 1}),
        event("delete", old={"id": 2}),
        event("insert", item(11, "A")),
        event("insert", item(12, "B")),
        event("update", item(3, "C"), changed=["name"]),
    ]


async def test_rows_without_a_key_are_paired_by_place(connection: Connection) -> None:
    await watched(connection, "CREATE TABLE items (id int, n int)", "'items', old => true")
    await connection.execute("INSERT INTO items SELECT i, i FROM generate_series(1, 2000) AS i")
    await told(connection)
    await connection.execute("UPDATE items SET n = n + 1 WHERE id % 2 = 0")
    events = await told(connection)
    assert len(events) == 1000
    assert {each["op"] for each in events} == {"update"}
    assert all(each["new"]["id"] == each["old"]["id"] and each["new"]["n"] == each["old"]["n"] + 1 for each in events)


async def test_a_deferrable_key_counts_as_none(connection: Connection) -> None:
    """Within a transaction two rows may have it."""
    table = "CREATE TABLE items (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, name text)"
    await watched(connection, table)
    assert await connection.fetchval("SELECT key FROM hub.watched") == []
    async with connection.transaction():
        await connection.execute("INSERT INTO items VALUES (1, 'a'), (1, 'b')")
        await connection.execute("UPDATE items SET id = 2 WHERE name = 'b'")
    assert (await told(connection))[2:] == [event("update", {"id": 2, "name": "b"}, changed=["id"])]


async def test_a_key_may_have_several_columns_in_its_own_order(connection: Connection) -> None:
    await watched(connection, "CREATE TABLE items (a int, x text, b int, PRIMARY KEY (b, a) INCLUDE (x))")
    assert await connection.fetchval("SELECT key FROM hub.watched") == ["b", "a"]
    await connection.execute("INSERT INTO items VALUES (1, 'x', 2); DELETE FROM items")
    assert (await told(connection))[1:] == [event("delete", old={"a": 1, "b": 2})]


async def test_merge_and_on_conflict_and_copy_tell_the_same(connection: Connection) -> None:
    await watched(connection)
    await connection.copy_records_to_table("items", records=[(1, "a", None), (2, "b", None)])
    assert [each["op"] for each in await told(connection)] == ["insert", "insert"]
    await connection.execute(
        "INSERT INTO items VALUES (2, 'B'), (3, 'c') ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name"
    )
    assert await told(connection) == [event("update", item(2, "B"), changed=["name"]), event("insert", item(3, "c"))]
    await connection.execute("INSERT INTO items VALUES (3, 'd'), (4, 'd') ON CONFLICT DO NOTHING")
    assert await told(connection) == [event("insert", item(4, "d"))]
    await connection.execute(
        "MERGE INTO items USING (VALUES (1, 'gone'), (2, 'two'), (5, 'e')) AS v(id, name) ON v.id = items.id "
        "WHEN MATCHED AND v.name = 'gone' THEN DELETE WHEN MATCHED THEN UPDATE SET name = v.name "
        "WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.name)"
    )
    assert await told(connection) == [
        event("delete", old={"id": 1}),
        event("update", item(2, "two"), changed=["name"]),
        event("insert", item(5, "e")),
    ]


async def test_what_cascades_to_a_watched_table_is_told(connection: Connection) -> None:
    await connection.execute("CREATE TABLE shops (id int PRIMARY KEY); INSERT INTO shops VALUES (1), (2)")
    references = "REFERENCES shops ON DELETE CASCADE ON UPDATE CASCADE"
    await watched(connection, f"CREATE TABLE items (id int PRIMARY KEY, shop int {references})")
    await connection.execute("INSERT INTO items VALUES (1, 1), (2, 2)")
    await told(connection)
    await connection.execute(
        "UPDATE shops SET id = 3 WHERE id = 1; DELETE FROM shops WHERE id = 2; TRUNCATE shops CASCADE"
    )
    assert await told(connection) == [
        event("update", {"id": 1, "shop": 3}, changed=["shop"]),
        event("delete", old={"id": 2}),
        event("truncate"),
    ]


async def replayed(connection: Connection, rows: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What a reader makes of the events since, from the rows that it had."""
    for each in await told(connection):
        if each["op"] == "delete":
            del rows[each["old"]["id"]]
        else:
            rows[each["new"]["id"]] = each["new"]
    return rows


async def current(connection: Connection) -> dict[int, dict[str, Any]]:
    rows = await connection.fetch("SELECT to_jsonb(items) AS doc FROM items")
    return {row["doc"]["id"]: row["doc"] for row in rows}


async def test_a_table_that_cascades_to_itself_is_told_right(connection: Connection) -> None:
    """One statement changes rows twice then, all in the same transition tables."""
    await watched(
        connection,
        "CREATE TABLE items (id int PRIMARY KEY, parent int REFERENCES items ON UPDATE CASCADE ON DELETE CASCADE)",
    )
    await connection.execute("INSERT INTO items VALUES (1, NULL), (2, 1), (3, 2), (4, 2)")
    rows = await replayed(connection, {})
    await connection.execute("UPDATE items SET id = id + 10")
    rows = await replayed(connection, rows)
    assert rows == await current(connection)
    await connection.execute("DELETE FROM items WHERE id = 12")
    assert await replayed(connection, rows) == await current(connection)
    assert set(await current(connection)) == {11}


async def test_a_key_that_cascades_change_twice_in_one_statement_makes_a_reload(connection: Connection) -> None:
    """Told as deletes, then inserts, a row would stay that was there only between the two."""
    await connection.execute("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    await connection.execute("INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1), (2)")
    columns = "a int REFERENCES a ON UPDATE CASCADE, b int REFERENCES b ON UPDATE CASCADE"
    await watched(connection, f"CREATE TABLE items ({columns}, PRIMARY KEY (a, b))")
    await connection.execute("INSERT INTO items VALUES (1, 1), (2, 2)")
    await told(connection)
    await connection.execute("UPDATE a SET id = 3 WHERE id = 2")
    assert [each["op"] for each in await told(connection)] == ["delete", "insert"]
    await connection.execute("WITH a AS (UPDATE a SET id = id + 10) UPDATE b SET id = id + 10")
    (reason,) = reasons(await told(connection))
    assert reason == "A change cannot be told: cascades have changed the key of one row more than once."


async def test_a_trigger_that_swallows_a_row_swallows_the_event(connection: Connection) -> None:
    await watched(connection)
    await connection.execute(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER swallow BEFORE INSERT ON items FOR EACH ROW WHEN (new.id = 1) EXECUTE FUNCTION swallow()"
    )
    await connection.execute("INSERT INTO items VALUES (1), (2)")
    assert await told(connection) == [event("insert", item(2))]


async def test_where_a_row_trigger_changes_the_table_in_the_middle_of_a_statement_it_is_a_reload(
    connection: Connection,
) -> None:
    """Its change is told before that of the statement, which was made earlier."""
    await watched(connection)
    await connection.execute(
        """
        CREATE FUNCTION reprice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE items SET price = 7 WHERE id = new.id AND price IS DISTINCT FROM 7;
            RETURN NULL;
        END $$;
        CREATE TRIGGER reprice AFTER INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION reprice();
        """
    )
    await connection.execute("INSERT INTO items VALUES (1, 'a', 1)")
    inner, outer = await told(connection)
    assert inner == event("update", item(1, "a", 7), changed=["price"])
    assert reasons([outer]) == ["A change cannot be told: a trigger on the table has changed it meanwhile."]
    await connection.execute("UPDATE items SET name = 'b'")
    assert await told(connection) == [event("update", item(1, "b", 7), changed=["name"])], "here it had nothing to do"
    await connection.execute("BEGIN; UPDATE items SET price = 2; UPDATE items SET name = 'c'; COMMIT")
    first, second, third = await told(connection)
    assert (first["op"], second["op"]) == ("update", "reload")
    assert third == event("update", item(1, "c", 7), changed=["name"]), "the next statement is told again"


ORDER = """
CREATE TABLE items (id int PRIMARY KEY, name text, price numeric);
CREATE FUNCTION change(id int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    UPDATE items SET price = 7 WHERE items.id = change.id;
    DELETE FROM items WHERE items.id = change.id - 1;
    RETURN change.id;
END $$;
SELECT hub.watch('items');
INSERT INTO items VALUES (1, 'a'), (5, 'b');
"""


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize(
    "statement",
    [
        "WITH d AS (DELETE FROM items WHERE id = 1 RETURNING *) INSERT INTO items SELECT 1, 'z' WHERE EXISTS (TABLE d)",
        "INSERT INTO items SELECT change(number) FROM generate_series(10, 12) AS number",
        "INSERT INTO items VALUES (10) RETURNING change(id)",
    ],
)
async def test_what_one_command_does_to_a_row_in_another_order_than_it_is_told_makes_a_reload(
    connection: Connection, statement: str, isolation: str
) -> None:
    await connection.execute(ORDER)
    await told(connection)
    await connection.execute(f"BEGIN ISOLATION LEVEL {isolation}")
    await connection.execute(statement)
    await connection.execute("COMMIT")
    reload = (await told(connection))[-1]
    assert reload["op"] == "reload"
    assert reload["reason"] in (
        "A change cannot be told: its rows are others by now.",
        "A change cannot be told: a trigger on the table has changed it meanwhile.",
    )
    await connection.execute("INSERT INTO items VALUES (20, 'c')")
    assert await told(connection) == [event("insert", item(20, "c"))]


async def test_cascades_that_delete_and_clear_the_same_row_make_a_reload(connection: Connection) -> None:
    await connection.execute("CREATE TABLE people (id int PRIMARY KEY); INSERT INTO people VALUES (1), (2), (3)")
    owner, creator = "int REFERENCES people ON DELETE CASCADE", "int REFERENCES people ON DELETE SET NULL"
    await watched(connection, f"CREATE TABLE items (id int PRIMARY KEY, owner {owner}, creator {creator})")
    await connection.execute("INSERT INTO items VALUES (10, 2, 1), (20, 3, 2)")
    await told(connection)
    await connection.execute("DELETE FROM people WHERE id IN (1, 2)")
    assert [each["op"] for each in await told(connection)] == ["delete", "reload"]


async def test_a_trigger_that_fills_a_truncated_table_before_that_is_told_makes_a_reload(
    connection: Connection,
) -> None:
    await watched(connection)
    await connection.execute(
        """
        CREATE FUNCTION seed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO items VALUES (0); RETURN NULL;
        END $$;
        CREATE TRIGGER a_seed AFTER TRUNCATE ON items EXECUTE FUNCTION seed();
        """
    )
    await connection.execute("TRUNCATE items")
    insert, reload = await told(connection)
    assert insert == event("insert", item(0))
    assert reasons([reload]) == ["It was truncated, and rows may have come since."]
    await connection.execute("ALTER TRIGGER a_seed ON items RENAME TO seed")
    await connection.execute("TRUNCATE items")
    assert [each["op"] for each in await told(connection)] == ["truncate", "insert"]


async def test_many_statements_of_one_command_are_told_one_by_one(connection: Connection) -> None:
    """Also where a trigger has changed the table before, and whatever the key is made of."""
    await connection.execute("CREATE TYPE mood AS ENUM ('sad', 'fine')")
    await watched(
        connection,
        'CREATE TABLE items (mood mood, "the T" text COLLATE "C", at timestamptz, n numeric(9, 2), raw bytea, '
        'PRIMARY KEY (n, mood, "the T", at, raw))',
    )
    await connection.execute(
        r"""
        CREATE TABLE orders (id int);
        CREATE FUNCTION stock() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO items VALUES ('sad', '%I ''"', '2026-01-02', new.id, '\xff00');
            RETURN NULL;
        END $$;
        CREATE TRIGGER stock AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stock();
        """
    )
    await connection.execute(
        r"""
        DO $$ BEGIN
            INSERT INTO orders VALUES (1), (2);
            FOR number IN 3..5 LOOP INSERT INTO items VALUES ('fine', '?', now(), number, ''); END LOOP;
            UPDATE items SET n = n + 10 WHERE n < 3;
            UPDATE items SET mood = 'fine' WHERE n > 10;
            DELETE FROM items WHERE n = 3;
            TRUNCATE items;
            INSERT INTO items SELECT 'sad', '', now(), number, '' FROM generate_series(1, 2500) AS number;
        END $$
        """
    )
    operations = [each["op"] for each in await told(connection)]
    assert (
        operations
        == ["insert"] * 5 + (["delete"] * 2 + ["insert"] * 2) * 2 + ["delete", "truncate"] + ["insert"] * 2500
    )


async def test_triggers_of_other_tables_may_change_a_watched_one(connection: Connection) -> None:
    await watched(connection)
    await connection.execute(
        """
        CREATE TABLE orders (id int);
        CREATE FUNCTION stock() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO items VALUES (new.id);
            RETURN NULL;
        END $$;
        CREATE TRIGGER stock AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION stock();
        """
    )
    await connection.execute("INSERT INTO orders VALUES (1), (2)")
    await connection.execute("INSERT INTO items VALUES (3)")
    assert await told(connection) == [event("insert", item(number)) for number in (1, 2, 3)]


async def test_readers_are_told_by_the_old_name_that_it_is_another(connection: Connection) -> None:
    await watched(connection)
    await connection.execute("ALTER TABLE items RENAME TO things")
    assert await connection.fetchval("SELECT hub.watches_due()")
    await connection.execute("SELECT hub.rewatch()")
    (gone,) = await told(connection)
    assert (gone["op"], gone["table"], gone["reason"]) == (
        "reload",
        "public.items",
        "It has another name or channel now.",
    )
    assert not await connection.fetchval("SELECT hub.watches_due()")
    await connection.execute("SELECT hub.watch('things', channel => 'new')")
    (gone,) = await told(connection)
    assert (gone["table"], gone["reason"]) == ("public.things", "It has another name or channel now.")


async def test_readers_are_told_of_the_end(connection: Connection) -> None:
    await watched(connection)
    await connection.execute("SELECT hub.unwatch('items')")
    assert reasons(await told(connection)) == ["It is watched no longer."]
    await connection.execute("SELECT hub.watch('items')")
    await connection.execute("DROP TABLE items")
    await connection.execute("SELECT hub.rewatch()")
    assert reasons(await told(connection)) == ["It is watched no longer."]


async def test_quoted_names_and_names_of_every_kind_work(connection: Connection) -> None:
    """Also those of the trigger's own variables, aliases and functions."""
    names = ["n", "o", "t", "s", "doc", "new", "old", "place", "shape", "cut", "payload", "counts", "changes", "pair"]
    names += ["event", "r", "made", "to_jsonb", "hub_new", "hub_old", "TG_OP", "old_docs", 'quo"te', "sel ect", "a.b"]
    columns = ", ".join('"' + name.replace('"', '""') + '" int' for name in names)
    table = '"My Shop"."Or""ders"'
    await connection.execute(f'CREATE SCHEMA "My Shop"; CREATE TABLE {table} ({columns}, PRIMARY KEY (t))')
    channel = await connection.fetchval(f"SELECT hub.watch('{table}', old => true)")
    assert channel == 'My Shop.Or"ders'
    before = {name: number for number, name in enumerate(names)}
    await connection.execute(f"INSERT INTO {table} VALUES ({', '.join(map(str, before.values()))})")
    await connection.execute(f"UPDATE {table} SET place = -1, doc = -2; DELETE FROM {table}")
    after = before | {"place": -1, "doc": -2}
    assert await told(connection, channel) == [
        event("insert", before, table=table),
        event("update", after, before, ["doc", "place"], table),
        event("delete", old=after, table=table),
    ]


async def test_a_cached_plan_follows_columns_that_come_go_and_are_renamed(connection: Connection) -> None:
    await watched(connection)
    for _ in range(7):
        await connection.execute("INSERT INTO items VALUES (1, 'a', 1); UPDATE items SET price = 2; DELETE FROM items")
    await connection.execute("INSERT INTO items VALUES (1, 'a', 1)")
    await connection.execute("ALTER TABLE items DROP COLUMN name; ALTER TABLE items ADD COLUMN size int DEFAULT 5")
    await connection.execute("ALTER TABLE items RENAME price TO cost; ALTER TABLE items RENAME TO goods")
    await told(connection)
    await connection.execute("UPDATE goods SET cost = 3; INSERT INTO goods VALUES (2, 4); DELETE FROM goods")
    assert await told(connection) == [
        event("update", {"id": 1, "cost": 3, "size": 5}, changed=["cost"], table="public.goods"),
        event("insert", {"id": 2, "cost": 4, "size": 5}, table="public.goods"),
        event("delete", old={"id": 1}, table="public.goods"),
        event("delete", old={"id": 2}, table="public.goods"),
    ]
    await connection.execute("ALTER TABLE goods ALTER COLUMN cost TYPE text; INSERT INTO goods VALUES (3, 'free')")
    assert (await told(connection))[-1]["new"] == {"id": 3, "cost": "free", "size": 5}


async def test_values_look_the_same_whatever_the_session_s_settings(connection: Connection) -> None:
    await watched(
        connection,
        "CREATE TABLE items (id int PRIMARY KEY, at timestamptz, range tstzrange, took interval, raw bytea, "
        "ratio float8, paid money, day date[], class regclass)",
    )
    insert = (
        "INSERT INTO public.items SELECT {}, '2026-01-02 03:04:05+00', '[2026-01-02 03:04:05+00,)', '1 day 02:00', "
        "'\\x00ff', 0.1::float8 + 0.2::float8, '12.50', ARRAY['{}'::date], 'pg_class'"
    )
    await connection.execute(insert.format(1, "2026-01-02"))
    for setting in (
        "DateStyle = 'German'", "TimeZone = 'Asia/Tokyo'", "IntervalStyle = 'sql_standard'", "bytea_output = 'escape'",
        "extra_float_digits = -10", "search_path = ''",
    ):  # fmt: skip
        await connection.execute(f"SET {setting}")
    await connection.execute(insert.format(2, "02.01.2026"))
    first, second = [each["new"] for each in await told(connection)]
    assert first | {"id": 2} == second
    assert first["at"] == "2026-01-02T03:04:05+00:00"
    assert (first["took"], first["ratio"], first["raw"]) == ("P1DT2H", 0.30000000000000004, "\\x00ff")
    assert await connection.fetchval("SHOW DateStyle") == "German, DMY", "the session keeps its own"


async def test_a_json_value_that_jsonb_refuses_makes_a_reload_and_no_error(connection: Connection) -> None:
    await watched(connection, "CREATE TABLE items (id int PRIMARY KEY, doc json)")
    await connection.execute("""INSERT INTO items SELECT i, '{"a": 1}' FROM generate_series(1, 2500) AS i""")
    await told(connection)
    await connection.execute(r"""UPDATE items SET doc = CASE id WHEN 2400 THEN '"\u0000"'::json ELSE '2' END""")
    (reason,) = reasons(await told(connection))
    assert reason.startswith("A change cannot be told: ")
    assert await connection.fetchval("SELECT count(*) FROM items WHERE doc::text = '2'") == 2499


async def test_a_row_too_large_goes_out_as_a_stub(connection: Connection) -> None:
    await watched(connection, arguments="'items', old => true")
    await connection.execute("INSERT INTO items VALUES (1, repeat('x', 800000), 1), (2, 'b', 1)")
    await connection.execute("UPDATE items SET price = 2 WHERE id = 1")
    await connection.execute("DELETE FROM items WHERE id = 1")
    stub = {"stub": True}
    assert await told(connection) == [
        event("insert", {"id": 1}) | stub,
        event("insert", item(2, "b", 1)),
        event("update", {"id": 1}, {"id": 1}, ["price"]) | stub,
        event("delete", old={"id": 1}) | stub,
    ]


async def test_a_key_too_large_for_an_event_makes_a_reload_and_no_error(connection: Connection) -> None:
    """In JSON it is six times as long as in its index, which compresses it."""
    await watched(connection, "CREATE TABLE items (id text PRIMARY KEY)")
    await connection.execute("INSERT INTO items SELECT repeat(chr(1), 200000)")
    assert reasons(await told(connection)) == ["A change cannot be told: a key is too large for an event."]


async def test_many_large_rows_are_published_in_parts(connection: Connection) -> None:
    await watched(connection)
    await connection.execute("INSERT INTO items SELECT i, repeat('x', 500000) FROM generate_series(1, 30) AS i")
    assert [each["new"]["id"] for each in await told(connection)] == list(range(1, 31))


async def test_a_hundred_thousand_rows_are_as_many_events_in_the_rows_order(connection: Connection) -> None:
    await watched(connection)
    await connection.execute("INSERT INTO items SELECT i, 'a' FROM generate_series(1, 100000) AS i")
    await connection.execute("TRUNCATE hub.events")
    await connection.execute("UPDATE items SET name = 'b'")
    ((count, updates, disorder),) = await connection.fetch(
        "SELECT count(*), count(*) FILTER (WHERE payload ->> 'op' = 'update'), "
        "count(*) FILTER (WHERE place <> (payload -> 'new' ->> 'id')::int) "
        "FROM (SELECT payload, row_number() OVER (ORDER BY id) AS place FROM hub.events) AS numbered"
    )
    assert (count, updates, disorder) == (100_000, 100_000, 0)


async def test_a_small_statement_takes_no_transaction_id_of_a_subtransaction(connection: Connection) -> None:
    """With more than 64 of them in one transaction everybody's snapshots get slow."""
    await watched(connection)
    before = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
    async with connection.transaction():
        for number in range(100):
            await connection.execute(
                f"INSERT INTO items VALUES ({number}); UPDATE items SET name = 'x' WHERE id = {number}"
            )
    after = await connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
    assert after - before == 2


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_a_snapshot_older_than_the_watch_misses_nothing(
    connection: Connection, database: str, isolation: str
) -> None:
    await connection.execute(ITEMS)
    async with opened(Target(database)) as old:
        await old.execute(f"BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM hub.events")
        await connection.execute("SELECT hub.watch('items')")
        await old.execute("INSERT INTO items VALUES (1); TRUNCATE items; COMMIT")
        reload = event("reload") | {"reason": "A transaction older than the watch changed rows."}
        assert await told(connection) == [reload, reload]
        await old.execute(
            f"BEGIN ISOLATION LEVEL {isolation}; INSERT INTO items VALUES (2); UPDATE items SET price = 1; COMMIT"
        )
    assert [each["op"] for each in await told(connection)] == ["insert", "update"]


@pytest.mark.parametrize(
    "change",
    [
        "SELECT hub.watch('items', 'things')",
        "SELECT hub.watch('items', 'things', '{id}')",
        "SELECT hub.watch('items', 'things', old => true)",
        "ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (name); SELECT hub.rewatch()",
    ],
)
async def test_a_snapshot_older_than_how_it_is_published_makes_reloads_where_it_is_published_now(
    connection: Connection, database: str, change: str
) -> None:
    channel = "things" if "things" in change else "items"
    await watched(connection)
    async with opened(Target(database)) as old:
        await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM hub.events")
        await connection.execute(change)
        await connection.execute("DELETE FROM hub.events")
        await old.execute("INSERT INTO items VALUES (1, 'secret'); TRUNCATE items; COMMIT")
    assert await connection.fetchval("SELECT count(*) FROM hub.events WHERE channel <> $1", channel) == 0
    reason = "A transaction older than a change of the watch changed rows."
    assert reasons(await told(connection, channel)) == [reason] * 2
    await connection.execute("INSERT INTO items VALUES (2, 'b')")
    assert [each["op"] for each in await told(connection, channel)] == ["insert"]


@pytest.mark.parametrize(
    "change",
    [
        "RENAME name TO title",
        "ADD COLUMN secret text DEFAULT 'x'",
        "ALTER COLUMN name TYPE varchar",
        "DROP COLUMN name",
    ],
)
async def test_a_snapshot_older_than_the_columns_shows_none_that_is_hidden(
    connection: Connection, database: str, change: str
) -> None:
    await watched(connection, arguments="'items', columns => '{id,price}'")
    async with opened(Target(database)) as old:
        await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM hub.events")
        await connection.execute(f"ALTER TABLE items {change}")
        await old.execute("INSERT INTO items VALUES (1); UPDATE items SET price = 2; DELETE FROM items; COMMIT")
    assert len(reasons(await told(connection))) == 3


async def test_replicated_changes_are_told_too(connection: Connection) -> None:
    await watched(connection)
    await connection.execute("SET session_replication_role = replica; INSERT INTO items VALUES (1); TRUNCATE items")
    assert [each["op"] for each in await told(connection)] == ["insert", "truncate"]


async def test_a_hostile_search_path_changes_nothing(connection: Connection) -> None:
    await watched(connection)
    await connection.execute(
        """
        CREATE SCHEMA evil; CREATE TABLE evil.loot (what text);
        CREATE FUNCTION evil.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql
            AS $$ INSERT INTO evil.loot VALUES ('j') RETURNING '1'::jsonb $$;
        CREATE FUNCTION evil.differ(jsonb, jsonb) RETURNS boolean LANGUAGE sql
            AS $$ INSERT INTO evil.loot VALUES ('d') RETURNING true $$;
        CREATE OPERATOR evil.<> (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = evil.differ);
        CREATE TABLE evil.events (channel text, payload jsonb);
        CREATE TABLE evil.watches (LIKE hub.watches);
        SET search_path = evil, pg_catalog, public;
        CREATE TEMP TABLE hub_new (id int);
        """
    )
    await connection.execute(
        "INSERT INTO public.items VALUES (1); UPDATE public.items SET price = 1; TRUNCATE public.items"
    )
    assert await connection.fetchval("SELECT count(*) FROM evil.loot") == 0
    assert [each["op"] for each in await told(connection)] == ["insert", "update", "truncate"]


async def test_generated_columns_are_told_with_their_values(connection: Connection) -> None:
    """Postgres leaves virtual ones, which came with 18, null in transition tables."""
    kind = "VIRTUAL" if connection.get_server_version().major >= 18 else "STORED"
    generated = f'twice int GENERATED ALWAYS AS ("a b" * 2) {kind}'
    await watched(connection, f'CREATE TABLE items (id int PRIMARY KEY, "a b" int, {generated}, t int)')
    await connection.execute("INSERT INTO items VALUES (1, 2), (2, 3)")
    await connection.execute('UPDATE items SET "a b" = 5 WHERE id = 1; UPDATE items SET "a b" = 5 WHERE id = 1')
    await connection.execute("DELETE FROM items")
    assert (await told(connection))[:3] == [
        event("insert", {"id": 1, "a b": 2, "twice": 4, "t": None}),
        event("insert", {"id": 2, "a b": 3, "twice": 6, "t": None}),
        event("update", {"id": 1, "a b": 5, "twice": 10, "t": None}, changed=["a b", "twice"]),
    ]
    assert await connection.fetchval("SELECT columns FROM hub.watched") == ["id", "a b", "twice", "t"]


async def test_what_waits_for_a_lock_does_not_change_what_is_told(connection: Connection, database: str) -> None:
    """Two writers after the same row: each tells what it has made of it."""
    await watched(connection, arguments="'items', old => true")
    await connection.execute("INSERT INTO items VALUES (1, 'a', 1)")
    await told(connection)
    async with opened(Target(database)) as other:
        await connection.execute("BEGIN; UPDATE items SET price = price + 1")
        second = asyncio.create_task(other.execute("UPDATE items SET price = price + 1"))
        # A poll: waiting for a lock gives no signal.
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        await connection.execute("COMMIT")
        await second
    assert [(each["old"]["price"], each["new"]["price"]) for each in await told(connection)] == [(1, 2), (2, 3)]


async def test_a_statement_that_is_cancelled_is_cancelled(connection: Connection) -> None:
    """The guard that keeps errors from the user must not keep the user from ending it."""
    await watched(connection)
    with pytest.raises(asyncpg.QueryCanceledError):
        await connection.execute(
            "SET statement_timeout = '200ms'; INSERT INTO items SELECT i FROM generate_series(1, 10000000) AS i"
        )
    assert await told(connection) == []
