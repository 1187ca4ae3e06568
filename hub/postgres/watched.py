"""Watched tables as they are now: their rows by a server-side cursor, and the log's cursor of that very snapshot.

Whoever takes these rows and then the events since that cursor has the table, and keeps it: what the snapshot does not
show has its events after the cursor.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from hub.errors import Code, CommandError
from hub.postgres import moment, rows
from hub.postgres.acquired import FAILURES, PATIENCE, acquired
from hub.postgres.connect import Connection, Pool

FORMS: Final = {
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
}
"""Session settings that decide how values are written; those of the functions that publish are the same."""
_READING: Final = {
    "row_security": "off",  # raises where rows would be hidden
    "statement_timeout": "0",
    "lock_timeout": "5s",
    "jit": "off",
}

_TIMEOUT: Final = 30.0
_LONG: Final = 600.0  # seconds for a batch: there may be many dead rows before the next one
_ROOM: Final = 64 * 1024  # bytes of a batch
_FIRST: Final = 10  # rows of the first batch: they may be large
# Rows of any batch. Some hundreds would set off Python's garbage collector, which takes them for objects that stay and
# visits all that the hub has, again and again: 25 ms each time here, more with many clients, and no event goes out.
_MOST: Final = 100

_POSTGRES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_LIST: Final = """/* watched list */ SELECT "table", channel, key, columns FROM hub.watched ORDER BY "table" """
_FIND: Final = """
/* watched find */
SELECT w.relation::oid AS relation, w."table", w.channel, w.key, w.columns, c.relkind = 'p' AS partitioned,
       CASE WHEN NOT has_schema_privilege(c.relnamespace, 'USAGE')
                 THEN format('GRANT USAGE ON SCHEMA %s TO %I', c.relnamespace::regnamespace, current_user)
            WHEN NOT has_table_privilege(c.oid, 'SELECT')
                 THEN format('GRANT SELECT ON %s TO %I', w."table", current_user)
            WHEN row_security_active(c.oid) THEN format('ALTER ROLE %I BYPASSRLS', current_user) END AS lack
  FROM hub.watched AS w JOIN pg_class AS c ON c.oid = w.relation
 WHERE """
# Qualified: PgBouncer lets nobody close the search path of what is pooled.
_NAMED: Final = """w."table" OPERATOR(pg_catalog.=) (
    SELECT CASE WHEN pg_catalog.cardinality(parts) OPERATOR(pg_catalog.=) 1
                     THEN pg_catalog.format('public.%I', parts[1])
                WHEN pg_catalog.cardinality(parts) OPERATOR(pg_catalog.=) 2
                     THEN pg_catalog.format('%I.%I', parts[1], parts[2]) END
      FROM pg_catalog.parse_ident($1) AS parts)
"""
_CHANNEL: Final = f"/* watched channel */ SELECT w.channel FROM hub.watched AS w WHERE {_NAMED}"  # noqa: S608 - constants
_BY_NAME: Final = f"{_FIND} {_NAMED}"
_BY_OID: Final = f"""{_FIND} w.relation = $1 AND w."table" = $2"""


def session(stall_timeout: float) -> dict[str, str]:
    """The settings of connections for streams, on which nothing may happen for `stall_timeout` seconds.

    A hub that is frozen must not hold its snapshot for ever.
    """
    return FORMS | _READING | {"idle_in_transaction_session_timeout": f"{1000 * (stall_timeout + 30):.0f}ms"}


@dataclass(frozen=True, slots=True)
class Reading:
    """A table at one moment. `head` is its name, channel, key and cursor, all for orjson."""

    head: Mapping[str, object]
    _first: Sequence[Any]
    _cursor: Any
    _encode: Callable[[Any], bytes]

    async def batches(self) -> AsyncGenerator[list[bytes]]:
        """The rows as JSON, in no order, up to about 64 KB at a time. Raises CommandError when reading fails.

        Nothing is read ahead: who takes no more makes Postgres wait.
        """
        found = self._first
        count = _FIRST
        while found:
            batch = [self._encode(row) for row in found]
            yield batch
            count = max(1, min(len(batch) * _ROOM // sum(map(len, batch)), 4 * count, _MOST))
            with _explained():
                found = await self._cursor.fetch(count, timeout=_LONG)


class Watched:
    """Reads watched tables, each on a connection of `streams` (hub/postgres/codecs.py has their codecs).

    It waits up to `patience` seconds for one. All methods raise CommandError: `not_found`, `forbidden`, or
    `unavailable` where it may work later.
    """

    def __init__(self, streams: Pool, pool: Pool, *, patience: float = PATIENCE) -> None:
        self._streams = streams
        self._pool = pool
        self._patience = patience

    async def tables(self) -> list[dict[str, object]]:
        """The name, channel, key and columns of each."""
        async with acquired(self._pool, self._patience) as connection:
            with _explained():
                return [dict(row) for row in await connection.fetch(_LIST, timeout=_TIMEOUT)]

    async def channel(self, name: str) -> str | None:
        """The channel of the table that `open` would read, None where none is watched by this name."""
        async with acquired(self._pool, self._patience) as connection:
            with _explained():
                try:
                    found: str | None = await connection.fetchval(_CHANNEL, name, timeout=_TIMEOUT)
                except (asyncpg.DataError, UnicodeEncodeError):  # no name at all
                    return None
                return found

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Reading]:
        """The table that SQL calls `name`, in the schema public if it names none."""
        async with acquired(self._streams, self._patience) as connection:
            with _explained():
                await connection.reload_schema_state()  # what asyncpg knows of composite types may be old
                table = _checked(name, await _find(connection, name))
            with _explained(_POSTGRES):  # and not what comes from whoever reads
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    with _explained():
                        reading = await _begin(connection, name, table)
                    yield reading


async def _find(connection: Connection, name: str) -> Any:
    try:
        return await connection.fetchrow(_BY_NAME, name, timeout=_TIMEOUT)
    except (asyncpg.DataError, UnicodeEncodeError):  # no name at all
        return None


def _checked(name: str, table: Any) -> Any:
    if table is None:
        raise CommandError(Code.NOT_FOUND, f"No table {name!r} is watched; SELECT hub.watch('…') in SQL makes one so.")
    if table["lack"] is not None:
        raise CommandError(Code.FORBIDDEN, f"The hub cannot read all of {table['table']}: {table['lack']} is missing.")
    return table


async def _begin(connection: Connection, name: str, table: Any) -> Reading:
    """Take the snapshot, and the first rows: most of what can fail does so by now.

    The lock comes first: TRUNCATE and rewrites show to older snapshots too, and columns must stay what they are.
    """
    if connection.get_server_version().major >= 17:
        await connection.execute("SET LOCAL transaction_timeout = 0")
    await connection.execute(f"LOCK TABLE {table['table']} IN ACCESS SHARE MODE")
    stands = await connection.fetchrow(moment.STANDS, timeout=_LONG)
    table = _checked(name, await connection.fetchrow(_BY_OID, table["relation"], table["table"], timeout=_TIMEOUT))
    made = await rows.describe(connection, table["relation"], table["columns"])
    source = f"{'' if table['partitioned'] else 'ONLY '}{table['table']}"
    cursor = await connection.cursor(f"SELECT {made.selected} FROM {source} AS t")  # noqa: S608 - all are quoted
    head = {name: table[name] for name in ("table", "channel", "key")} | {"cursor": str(moment.position(stands))}
    return Reading(head, await cursor.fetch(_FIRST, timeout=_LONG), cursor, made.encode)


@contextmanager
def _explained(failures: tuple[type[Exception], ...] = FAILURES) -> Iterator[None]:
    """Raise `failures` as CommandError."""
    try:
        yield
    except failures as error:
        if isinstance(error.__context__, CommandError):  # which says more than that nothing can be rolled back now
            raise error.__context__ from None
        reason = str(error) or type(error).__name__
        raise CommandError(_code_of(error), f"The table cannot be read: {reason}.") from error


def _code_of(error: Exception) -> Code:
    match error:
        case asyncpg.InsufficientPrivilegeError():
            return Code.FORBIDDEN
        case asyncpg.UndefinedTableError() | asyncpg.InvalidSchemaNameError():
            return Code.NOT_FOUND
        case asyncpg.DataError():
            return Code.INTERNAL
        case _:
            return Code.UNAVAILABLE
