"""JSON columns as Python objects."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.postgres.connect import Connection, Target, pool

# What jsonb can hold: no NUL, no lone surrogates; and what orjson keeps: whole numbers of 64 bits. A float beyond 2^53
# is written in its shortest form, 1.2e+16, which jsonb, whose numbers are decimal, gives back as the whole number.
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-(2.0**53), 2.0**53)
values = st.recursive(
    scalars | text, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5), max_leaves=20
)


@pytest.mark.parametrize("kind", ["json", "jsonb"])
@given(value=values)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_value_comes_back_as_it_was(connection: Connection, kind: str, value: Any) -> None:
    assert await connection.fetchval(f"SELECT $1::{kind}", value) == value


async def test_a_string_is_a_json_string_and_no_json(connection: Connection) -> None:
    assert await connection.fetchval("SELECT jsonb_typeof($1::jsonb)", '{"a": 1}') == "string"


async def test_null_is_no_value_and_json_has_its_own(connection: Connection) -> None:
    """None inside is JSON's null; None as a parameter is SQL's, as for every type."""
    assert await connection.fetchval("SELECT $1::jsonb IS NULL", None)
    assert await connection.fetchval("SELECT jsonb_typeof($1::jsonb -> 'a')", {"a": None}) == "null"


async def test_arrays_of_json_take_anything_but_lists(connection: Connection) -> None:
    """asyncpg takes a list inside a list for another dimension; as text it is no riddle."""
    assert await connection.fetchval("SELECT $1::jsonb[]", [{"a": [1]}, 2, "3", None]) == [{"a": [1]}, 2, "3", None]
    with pytest.raises(asyncpg.DataError, match="non-homogeneous array"):
        await connection.fetchval("SELECT $1::jsonb[]", [{"a": 1}, [2]])
    assert await connection.fetchval("SELECT $1::text[]::jsonb[]", ['{"a": 1}', "[2]"]) == [{"a": 1}, [2]]


async def test_what_is_no_json_is_refused_before_it_is_sent(connection: Connection) -> None:
    with pytest.raises(asyncpg.DataError, match="not JSON serializable"):
        await connection.fetchval("SELECT $1::jsonb", {"a": object()})
    assert await connection.fetchval("SELECT 1") == 1


async def test_copy_takes_objects_too(connection: Connection) -> None:
    await connection.execute("CREATE TEMP TABLE t (payload jsonb)")
    await connection.copy_records_to_table("t", records=[({"a": 1},), ([2],)])
    assert [row.payload for row in await connection.fetch("SELECT payload FROM t")] == [{"a": 1}, [2]]


async def test_every_connection_of_a_pool_has_the_codecs(database: str) -> None:
    """A codec holds for one connection; one that was made later, or made again, must have it as well."""
    async with pool(Target(database), min_size=1, max_size=5) as opened:
        everyone = [await opened.acquire() for _ in range(5)]
        found = await asyncio.gather(*(each.fetchval("""SELECT '{"a": 1}'::jsonb""") for each in everyone))
        assert found == [{"a": 1}] * 5
        for each in everyone:
            each.terminate()
            await opened.release(each)
        assert await opened.fetchval("""SELECT '{"a": 1}'::json""") == {"a": 1}
