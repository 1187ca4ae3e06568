"""Numbered SQL files, each applied once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from hub import assets
from hub.errors import SetupError
from hub.postgres.connect import Connection, Target
from hub.postgres.migrate import migrate, pending
from tests.postgres.conftest import as_role, opened

Write = Callable[..., Path]

ONE = "CREATE TABLE hub.one (n int);"
TWO = "CREATE TABLE hub.two (n int);"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Makes a folder hold just these files: `write(**{"0001_make_one": ONE})`."""

    def files(**texts: str) -> Path:
        for path in tmp_path.iterdir():
            path.unlink()
        for name, text in texts.items():
            (tmp_path / f"{name}.sql").write_text(text, "utf-8")
        return tmp_path

    return files


@pytest.fixture
async def empty(blank: str) -> AsyncIterator[Connection]:
    """A connection to a database that has had no migration."""
    async with opened(Target(blank)) as connection:
        yield connection


async def exists(connection: Connection, name: str) -> bool:
    return bool(await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", name))


async def test_migrations_are_applied_in_order_and_only_once(empty: Connection, write: Write) -> None:
    folder = write(**{"0002_fill_one": "INSERT INTO hub.one VALUES (7);", "0001_make_one": ONE})
    assert await pending(empty, folder) == ["0001_make_one.sql", "0002_fill_one.sql"]
    assert await migrate(empty, folder) == ["0001_make_one.sql", "0002_fill_one.sql"]
    assert await pending(empty, folder) == await migrate(empty, folder) == []
    assert await empty.fetchval("SELECT array_agg(n) FROM hub.one") == [7]
    rows = await empty.fetch("SELECT number, name, length(sha256) FROM hub.migrations ORDER BY number")
    assert [tuple(row) for row in rows] == [(1, "0001_make_one.sql", 64), (2, "0002_fill_one.sql", 64)]


async def test_what_came_later_is_all_that_is_applied(empty: Connection, write: Write) -> None:
    await migrate(empty, write(**{"0001_make_one": ONE}))
    folder = write(**{"0001_make_one": ONE, "0002_make_two": TWO})
    assert await pending(empty, folder) == ["0002_make_two.sql"]
    assert await migrate(empty, folder) == ["0002_make_two.sql"]


async def test_other_sql_in_the_folder_is_none_of_its_business(empty: Connection, write: Write) -> None:
    assert await migrate(empty, write(**{"0001_make_one": ONE, "demo": "nonsense"})) == ["0001_make_one.sql"]


async def test_a_file_that_fails_leaves_nothing_and_those_before_it_stay(empty: Connection, write: Write) -> None:
    folder = write(**{"0001_make_one": ONE, "0002_make_two": f"{TWO} SELECT 1 / 0;"})
    with pytest.raises(SetupError, match=r"0002_make_two\.sql failed, and nothing of it stays: division by zero"):
        await migrate(empty, folder)
    assert [await exists(empty, name) for name in ("hub.one", "hub.two")] == [True, False]
    assert await pending(empty, folder) == ["0002_make_two.sql"]


async def test_a_migration_that_cannot_be_recorded_leaves_nothing(empty: Connection, write: Write) -> None:
    folder = write(**{"0001_make_one": f"{ONE} INSERT INTO hub.migrations VALUES (1, '', '');"})
    with pytest.raises(SetupError, match="duplicate key"):
        await migrate(empty, folder)
    assert not await exists(empty, "hub.one")


async def test_after_a_failure_another_connection_may_migrate(blank: str, empty: Connection, write: Write) -> None:
    """The lock is the session's, so it has to be given back and not only forgotten."""
    with pytest.raises(SetupError):
        await migrate(empty, write(**{"0001_make_one": "nonsense"}))
    async with opened(Target(blank)) as other:
        assert await migrate(other, write(**{"0001_make_one": ONE})) == ["0001_make_one.sql"]


async def test_hubs_that_migrate_at_once_apply_each_file_once(blank: str, write: Write) -> None:
    folder = write(**{"0001_make_one": f"{ONE} SELECT pg_sleep(0.05);", "0002_make_two": TWO})
    async with AsyncExitStack() as stack:
        hubs = [await stack.enter_async_context(opened(Target(blank))) for _ in range(5)]
        applied = await asyncio.gather(*(migrate(each, folder) for each in hubs))
    assert sorted(applied) == [[], [], [], [], ["0001_make_one.sql", "0002_make_two.sql"]]


async def test_a_migration_elsewhere_that_does_not_end_is_told(
    blank: str, empty: Connection, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.postgres.migrate._WAIT", 0.05)
    async with opened(Target(blank)) as other:
        await other.execute("SELECT pg_advisory_lock($1)", int.from_bytes(b"pghub"))
        with pytest.raises(SetupError, match="Another pghub has been migrating"):
            await migrate(empty, write(**{"0001_make_one": ONE}))
    assert not await exists(empty, "hub.migrations")


# Files and database that do not fit together


async def test_a_file_that_was_changed_is_refused_by_name(empty: Connection, write: Write) -> None:
    await migrate(empty, write(**{"0001_make_one": ONE}))
    changed = write(**{"0001_make_one": ONE + " -- changed", "0002_make_two": TWO})
    for attempt in (migrate, pending):
        with pytest.raises(SetupError, match=r"0001_make_one\.sql was changed after it had been applied"):
            await attempt(empty, changed)
    assert not await exists(empty, "hub.two")


async def test_a_database_that_is_ahead_is_refused_with_advice(empty: Connection, write: Write) -> None:
    await migrate(empty, write(**{"0001_make_one": ONE, "0002_make_two": TWO}))
    with pytest.raises(SetupError, match=r"0002_make_two.sql, which this version .* does not know. Upgrade pghub."):
        await migrate(empty, write(**{"0001_make_one": ONE}))


@pytest.mark.parametrize(
    ("names", "culprit"),
    [
        (["0001_a", "0003_c"], "0003_c.sql"),
        (["0002_b"], "0002_b.sql"),
        (["0001_a", "0001_b"], "0001_b.sql"),
        (["0001_a", "2_b"], "2_b.sql"),
        (["0001_a", "0002-b"], "0002-b.sql"),
    ],
)
async def test_numbers_that_are_missing_or_twice_or_misspelt_are_refused_by_name(
    empty: Connection, write: Write, names: list[str], culprit: str
) -> None:
    with pytest.raises(SetupError, match=culprit):
        await migrate(empty, write(**dict.fromkeys(names, "SELECT 1;")))
    assert not await exists(empty, "hub.migrations")


# Rights


async def test_an_ordinary_role_that_may_create_schemas_may_migrate(
    blank: str, empty: Connection, visitor: str
) -> None:
    await empty.execute(f"GRANT CREATE ON DATABASE {await empty.fetchval('SELECT current_database()')} TO {visitor}")
    async with opened(Target(as_role(blank, visitor))) as connection:
        assert await migrate(connection, assets.folder("sql"))
    await empty.execute(f"DROP OWNED BY {visitor} CASCADE")


async def test_a_role_that_may_not_is_told_what_to_grant(blank: str, empty: Connection, visitor: str) -> None:
    name = await empty.fetchval("SELECT current_database()")
    async with opened(Target(as_role(blank, visitor))) as connection:
        with pytest.raises(SetupError, match=f"GRANT CREATE ON DATABASE {name} TO {visitor}"):
            await migrate(connection, assets.folder("sql"))
    assert not await exists(empty, "hub.migrations")


async def test_a_role_that_may_only_read_succeeds_when_nothing_is_to_do(
    blank: str, empty: Connection, visitor: str
) -> None:
    await migrate(empty, assets.folder("sql"))
    await empty.execute(f"GRANT USAGE ON SCHEMA hub TO {visitor}; GRANT SELECT ON hub.migrations TO {visitor}")
    async with opened(Target(as_role(blank, visitor))) as connection:
        await connection.execute("SET default_transaction_read_only = on")
        assert await migrate(connection, assets.folder("sql")) == []
    await empty.execute(f"DROP OWNED BY {visitor}")


@pytest.mark.parametrize("grant", ["REVOKE ALL ON SCHEMA hub FROM {}", "GRANT USAGE ON SCHEMA hub TO {}"])
async def test_a_role_that_may_not_even_read_is_told(blank: str, empty: Connection, visitor: str, grant: str) -> None:
    await migrate(empty, assets.folder("sql"))
    await empty.execute(grant.format(visitor))
    async with opened(Target(as_role(blank, visitor))) as connection:
        for attempt in (migrate, pending):
            with pytest.raises(SetupError, match=f"The role {visitor} may not migrate: permission denied"):
                await attempt(connection, assets.folder("sql"))
    await empty.execute(f"DROP OWNED BY {visitor}")


async def test_a_database_that_takes_no_writes_is_told(empty: Connection, write: Write) -> None:
    """As a standby does."""
    await empty.execute("SET default_transaction_read_only = on")
    with pytest.raises(SetupError, match="cannot be migrated: cannot execute CREATE SCHEMA in a read-only transaction"):
        await migrate(empty, write(**{"0001_make_one": ONE}))


# The hub's own files

UNCOMMENTED = """
SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'hub' AND obj_description(oid, 'pg_namespace') IS NULL
UNION ALL
SELECT 'relation ' || oid::regclass FROM pg_class
 WHERE relnamespace = 'hub'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
   AND obj_description(oid, 'pg_class') IS NULL
UNION ALL
SELECT format('column %s.%s', attrelid::regclass, attname) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
 WHERE relnamespace = 'hub'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') AND attnum > 0
   AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL
UNION ALL
SELECT 'function ' || oid::regprocedure FROM pg_proc
 WHERE pronamespace = 'hub'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL
"""


async def test_everything_in_the_schema_has_a_comment(connection: Connection) -> None:
    assert [row[0] for row in await connection.fetch(UNCOMMENTED)] == []


async def test_the_hubs_migrations_are_all_applied_in_a_test_database(connection: Connection) -> None:
    assert await pending(connection, assets.folder("sql")) == []


async def test_a_connection_that_dies_in_the_middle_leaves_the_database_as_it_was(
    blank: str, empty: Connection, write: Write
) -> None:
    folder = write(**{"0001_make_one": f"{ONE} SELECT pg_terminate_backend(pg_backend_pid());"})
    async with opened(Target(blank)) as victim:
        with pytest.raises((SetupError, asyncpg.InterfaceError)):
            await migrate(victim, folder)
    assert not await exists(empty, "hub.one")
    assert await migrate(empty, write(**{"0001_make_one": ONE})) == ["0001_make_one.sql"]
