"""Migrations: numbered SQL files, applied once, in order.

Each runs in a transaction of its own with its line in `hub.migrations`, under a lock that lets one hub at a time
migrate. A file that was applied must not change afterwards: its checksum says whether it did.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from hub.errors import SetupError
from hub.postgres.connect import Connection

_LOCK: Final = 0x7067687562  # "pghub" in ASCII
_WAIT: Final = 60.0  # seconds for another hub to finish its migration
_LONGEST: Final = 3600.0  # seconds for one migration: an index on a large log takes its time
_NAME: Final = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
_CREATE: Final = """
/* migrate */
CREATE SCHEMA IF NOT EXISTS hub;
CREATE TABLE IF NOT EXISTS hub.migrations (
    number     int         PRIMARY KEY,
    name       text        NOT NULL,
    sha256     text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE hub.migrations IS 'The migrations of pghub that this database has had.';
COMMENT ON COLUMN hub.migrations.number IS 'The number that its file begins with.';
COMMENT ON COLUMN hub.migrations.name IS 'The name of its file.';
COMMENT ON COLUMN hub.migrations.sha256 IS 'The checksum of its file, in hexadecimal.';
COMMENT ON COLUMN hub.migrations.applied_at IS 'When the transaction that applied it began.';
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(connection: Connection, folder: Path) -> list[str]:
    """Apply what `folder` has and the database has not; returns the names applied.

    Raises SetupError where files and database do not fit together, where a file fails (nothing of it stays), and
    where the role lacks a right. A role that may only read succeeds if there is nothing to apply.
    """
    try:
        if not await _missing(connection, folder):
            return []
        async with _lock(connection):
            await connection.execute(_CREATE)
            missing = await _missing(connection, folder)
            for migration in missing:
                await _apply(connection, migration)
    except asyncpg.InsufficientPrivilegeError as error:
        raise SetupError(await _not_allowed(connection, error)) from None
    except asyncpg.PostgresError as error:
        raise SetupError(f"This database cannot be migrated: {error}. `pghub doctor` may know more.") from error
    return [migration.name for migration in missing]


async def pending(connection: Connection, folder: Path) -> list[str]:
    """The names of what `migrate` would apply. Raises SetupError where files and database do not fit."""
    try:
        return [migration.name for migration in await _missing(connection, folder)]
    except asyncpg.InsufficientPrivilegeError as error:
        raise SetupError(await _not_allowed(connection, error)) from None


async def _not_allowed(connection: Connection, error: asyncpg.InsufficientPrivilegeError) -> str:
    ((role, database),) = await connection.fetch(
        "SELECT pg_catalog.quote_ident(current_user), pg_catalog.quote_ident(pg_catalog.current_database())"
    )
    return (
        f"The role {role} may not migrate: {error}. Run GRANT CREATE ON DATABASE {database} TO {role}, "
        "or let an administrator run `pghub migrate`."
    )


def read(folder: Path) -> list[Migration]:
    """The migrations of `folder`, in order; other SQL may lie there whose name does not begin with a digit.

    Raises SetupError for numbers that are missing or given twice.
    """
    names = sorted(path.name for path in folder.glob("[0-9]*.sql"))
    if odd := [name for name in names if not _NAME.fullmatch(name)]:
        raise SetupError(f"{odd[0]} in {folder} is not named as a migration is: 0002_verb_noun.sql.")
    found = [Migration(int(name[:4]), name, (folder / name).read_text("utf-8")) for name in names]
    for expected, migration in enumerate(found, 1):
        if migration.number != expected:
            raise SetupError(f"The migrations in {folder} are not numbered 1, 2, 3, …: see {migration.name}.")
    return found


async def _missing(connection: Connection, folder: Path) -> list[Migration]:
    files, applied = read(folder), await _applied(connection)
    for number, (name, checksum) in applied.items():
        if number > len(files):
            raise SetupError(
                f"The database has had the migration {name}, which this version of pghub does not know. Upgrade pghub."
            )
        if files[number - 1].sha256 != checksum:
            raise SetupError(
                f"The migration {name} was changed after it had been applied. Restore the file as it was, "
                "and put the change into a new migration."
            )
    return [migration for migration in files if migration.number not in applied]


async def _applied(connection: Connection) -> dict[int, tuple[str, str]]:
    if await connection.fetchval("SELECT pg_catalog.to_regclass('hub.migrations')") is None:
        return {}
    rows = await connection.fetch("SELECT number, name, sha256 FROM hub.migrations ORDER BY number")
    return {row["number"]: (row["name"], row["sha256"]) for row in rows}


@asynccontextmanager
async def _lock(connection: Connection) -> AsyncIterator[None]:
    try:
        await connection.execute("SELECT pg_catalog.pg_advisory_lock($1)", _LOCK, timeout=_WAIT)
    except TimeoutError:
        raise SetupError(
            f"Another pghub has been migrating this database for {_WAIT:.0f} s. Start again when it is done."
        ) from None
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_catalog.pg_advisory_unlock($1)", _LOCK)


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql, timeout=_LONGEST)
            await connection.execute(
                "INSERT INTO hub.migrations (number, name, sha256) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.sha256,
            )
    except asyncpg.InsufficientPrivilegeError:
        raise
    except asyncpg.PostgresError as error:
        raise SetupError(f"The migration {migration.name} failed, and nothing of it stays: {error}.") from error
