"""A watched table of any types, and the ways by which its rows leave a hub and come back into Postgres."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
import asyncpg

from tests.e2e.test_history import CSV, LINES

EVENTS = "SELECT json_agg(event -> 'payload' -> 'new') FROM json_array_elements($1::text::json -> 'events') AS event"
TABLE = "SELECT $1::text::json -> 'rows'"
JSON = ("json", "jsonb", "jsonb[]", "tour")  # whose text is not kept, but what it says is


class Journey:
    """A watched table t with a column for each of `kinds`, and the ways by which its rows go out and come back."""

    def __init__(self, url: str, http: aiohttp.ClientSession, owner: asyncpg.Connection, kinds: Sequence[str]) -> None:
        self._url = url
        self._http = http
        self._owner = owner
        self._kinds = kinds
        self._count = 0

    async def begin(self) -> None:
        columns = ", ".join(f"{quoted(kind)} {kind}" for kind in self._kinds)
        await self._owner.execute(f"CREATE TABLE t (row int PRIMARY KEY, {columns}); SELECT hub.watch('t')")

    async def fill(self, values: Mapping[str, Sequence[Any]], made: Mapping[str, str]) -> None:
        """Have these rows and no others: `made` is the SQL that makes a value of a string s."""
        await self._owner.execute("DELETE FROM t")
        selected = ", ".join(
            f"(SELECT {made[kind]} FROM (SELECT {quoted(kind)} AS s) AS one WHERE s IS NOT NULL)"
            for kind in self._kinds
        )
        given = ", ".join(f"${number}::text[]" for number in range(1, len(self._kinds) + 1))
        names = ", ".join(map(quoted, self._kinds))
        texts = [[None if value is None else str(value) for value in values[kind]] for kind in self._kinds]
        await self._owner.execute(
            f"INSERT INTO t SELECT row, {selected} FROM unnest({given}) WITH ORDINALITY AS given ({names}, row)", *texts
        )
        self._count = await self._owner.fetchval(
            "SELECT count(hub.publish('p', jsonb_build_object('new', to_jsonb(t.*)))) FROM t"
        )

    async def rows(self) -> dict[str, str]:
        """The rows as they went out in each format, as an array of JSON."""
        found = {}
        for channel in ("t", "p"):
            path = f"/events?channel={channel}&last={self._count}"
            found[f"{channel}, a page"] = await self._owner.fetchval(EVENTS, (await self._body(path, {})).decode())
            lines = (await self._body(path, LINES)).split(b"\n")[:-1]
            found[f"{channel}, lines"] = await self._owner.fetchval(
                EVENTS, (b'{"events":[' + b",".join(lines) + b"]}").decode()
            )
            found[f"{channel}, CSV"] = await self._copied(await self._body(path, CSV))
        rows = (await self._body("/watched/t", {})).decode()
        found["the table"] = await self._owner.fetchval(TABLE, rows)
        lines = (await self._body("/watched/t", LINES)).split(b"\n")[1:-1]
        found["the table, lines"] = (b"[" + b",".join(lines) + b"]").decode()
        return found

    async def written(self, rows: str) -> dict[str, list[str]]:
        """The values of these rows by column, each as the very JSON that went out."""
        found = await self._owner.fetch(
            """
            SELECT column_name, array_agg(value::text ORDER BY (row ->> 'row')::int)
              FROM json_array_elements($1::text::json) AS rows (row)
             CROSS JOIN LATERAL json_each(row) AS columns (column_name, value) GROUP BY column_name
            """,
            rows,
        )
        return dict(found)

    async def _body(self, path: str, headers: Mapping[str, str]) -> bytes:
        async with self._http.get(self._url + path, headers=headers) as answer:
            assert answer.status == 200
            return await answer.read()

    async def _copied(self, csv: bytes) -> str:
        async with self._owner.transaction():
            await self._owner.execute(
                "CREATE TEMP TABLE c (id int8, channel text, at timestamptz, payload json, tags json) ON COMMIT DROP"
            )
            await self._owner.copy_to_table("c", source=io.BytesIO(csv), format="csv", header=True)
            return await self._owner.fetchval("SELECT json_agg(payload -> 'new') FROM c")

    async def changed(self, rows: str, seen_of: Callable[[str], str] | None = None) -> list[Any]:
        """Each value of the table that is not the same in these rows, when they have come back into Postgres."""
        seen = ", ".join(["row::text", *map(seen_of or _kept, self._kinds)])
        return await self._owner.fetch(
            f"""
            SELECT v.* FROM (SELECT row, ARRAY[{seen}] AS kept FROM t) AS t FULL JOIN
                   (SELECT row, ARRAY[{seen}] AS came FROM json_populate_recordset(NULL::t, $1)) AS r USING (row)
             CROSS JOIN LATERAL unnest($2::text[], kept, came) AS v (kind, kept, came)
             WHERE v.kept IS DISTINCT FROM v.came
            """,
            rows,
            ["row", *self._kinds],
        )


def quoted(kind: str) -> str:
    return '"' + kind.replace('"', '""') + '"'


def _kept(kind: str) -> str:
    """All that is to be kept of a value: of most types their text, which tells more than equality does."""
    if kind in JSON:
        return f"COALESCE(to_jsonb({quoted(kind)}), 'null')::text"
    return f"({quoted(kind)} + 0)::text" if kind in ("float4", "float8") else text(kind)


def text(kind: str) -> str:
    return f"{quoted(kind)}::text"
