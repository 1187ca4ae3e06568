"""Rows with dot access."""

from __future__ import annotations

import copy

import pytest

from hub.postgres.connect import Connection


async def test_columns_are_attributes_and_stay_items(connection: Connection) -> None:
    row = (await connection.fetch("SELECT 'paid' AS status, 7 AS id"))[0]
    assert (row.status, row.id) == (row["status"], row["id"]) == tuple(row) == ("paid", 7)


async def test_a_column_named_like_a_method_is_reached_by_brackets_and_the_method_stays(connection: Connection) -> None:
    row = (await connection.fetch("SELECT 1 AS keys, 2 AS items, 3 AS get, 4 AS values"))[0]
    assert [row[name] for name in ("keys", "items", "get", "values")] == [1, 2, 3, 4]
    assert list(row.keys()) == ["keys", "items", "get", "values"]
    assert list(row.values()) == [1, 2, 3, 4]
    assert dict(row.items()) == {"keys": 1, "items": 2, "get": 3, "values": 4}
    assert row.get("get") == 3


async def test_an_unknown_name_says_what_columns_there_are(connection: Connection) -> None:
    row = (await connection.fetch("SELECT 1 AS status, 2 AS id"))[0]
    with pytest.raises(AttributeError, match=r"no column 'state'; there are: status, id$"):
        row.state  # noqa: B018 - to read it is the test
    assert not hasattr(row, "state")


async def test_of_very_many_columns_only_some_are_named(connection: Connection) -> None:
    row = (await connection.fetch("SELECT " + ", ".join(f"{n} AS c{n}" for n in range(500))))[0]
    with pytest.raises(AttributeError, match=r"c18, c19 and 480 more$"):
        row.state  # noqa: B018 - to read it is the test


async def test_a_row_without_columns_says_so(connection: Connection) -> None:
    row = (await connection.fetch("SELECT"))[0]
    with pytest.raises(AttributeError, match="there are: none"):
        row.state  # noqa: B018 - to read it is the test


async def test_dir_lists_the_columns_beside_the_methods(connection: Connection) -> None:
    row = (await connection.fetch("SELECT 1 AS status, 2 AS keys"))[0]
    assert {"status", "keys", "items"} <= set(dir(row))


async def test_copies_do_not_recurse(connection: Connection) -> None:
    """copy asks an object for methods that no row has; that has to end in a plain answer."""
    row = (await connection.fetch("SELECT 1 AS status"))[0]
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            duplicate(row)


async def test_queries_and_cursors_all_give_rows_with_dot_access(connection: Connection) -> None:
    statement = await connection.prepare("SELECT n FROM generate_series(1, 3) AS n")
    async with connection.transaction():
        assert [row.n async for row in statement.cursor()] == [1, 2, 3]
    row = await connection.fetchrow("SELECT 5 AS n")
    assert row is not None
    assert row.n == 5
