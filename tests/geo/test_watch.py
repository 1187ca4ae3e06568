"""Watched tables: a column that is a geometry is the place of a row's changes."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

TABLE = "CREATE TABLE public.trucks (id int PRIMARY KEY, name text, position geometry)"
WATCH = "SELECT hub.watch('public.trucks', place => 'position')"


@pytest.fixture
async def trucks(producer: asyncpg.Connection) -> asyncpg.Connection:
    await producer.execute(f"{TABLE}; {WATCH}")
    return producer


async def told(producer: asyncpg.Connection) -> list[tuple[str, Any, str | None]]:
    """Operation, id and place of each change since this was last asked."""
    rows = await producer.fetch(
        "SELECT payload ->> 'op', (coalesce(nullif(payload -> 'new', 'null'), payload -> 'old') ->> 'id')::int,"
        " st_astext(place) FROM hub.placed ORDER BY id"
    )
    await producer.execute("TRUNCATE hub.events")
    return [tuple(row) for row in rows]


async def test_each_change_is_where_the_row_is(trucks: asyncpg.Connection) -> None:
    """A delete is where it was; so is the half of an update that takes a key away."""
    await trucks.execute("INSERT INTO trucks SELECT n, 'x', st_point(n, n, 4326) FROM generate_series(1, 3) AS n")
    assert await told(trucks) == [("insert", n, f"POINT({n} {n})") for n in (1, 2, 3)]
    await trucks.execute("UPDATE trucks SET position = st_point(id, 9, 4326) WHERE id < 3")
    assert await told(trucks) == [("update", 1, "POINT(1 9)"), ("update", 2, "POINT(2 9)")]
    await trucks.execute("UPDATE trucks SET id = 7, position = st_point(7, 7, 4326) WHERE id = 1")
    assert await told(trucks) == [("delete", 1, "POINT(1 9)"), ("insert", 7, "POINT(7 7)")]
    await trucks.execute("DELETE FROM trucks")
    assert sorted(await told(trucks)) == [
        ("delete", 2, "POINT(2 9)"),
        ("delete", 3, "POINT(3 3)"),
        ("delete", 7, "POINT(7 7)"),
    ]
    await trucks.execute("TRUNCATE trucks")
    assert [row[2] for row in await told(trucks)] == [None]


async def test_many_rows_of_a_statement_have_each_its_own(trucks: asyncpg.Connection) -> None:
    await trucks.execute(
        "INSERT INTO trucks SELECT n, 'x', st_point(n % 180, 1, 4326) FROM generate_series(1, 2500) AS n"
    )
    assert await told(trucks) == [("insert", n, f"POINT({n % 180} 1)") for n in range(1, 2501)]


async def test_a_statement_never_fails_for_a_place_that_is_nowhere(trucks: asyncpg.Connection) -> None:
    """It is kept as it is, and the event has none."""
    await trucks.execute(
        "INSERT INTO trucks VALUES (1, 'x', st_point(400, 1)), (2, 'x', NULL), (3, 'x', st_point(1, 1))"
    )
    kept = await trucks.fetch("SELECT st_astext(place), st_astext(published) FROM hub.places ORDER BY id")
    assert [tuple(row) for row in kept] == [(None, "POINT(400 1)"), ("POINT(1 1)", "POINT(1 1)")]
    assert await told(trucks) == [("insert", 1, None), ("insert", 2, None), ("insert", 3, "POINT(1 1)")]


async def test_the_column_may_get_another_name_or_go(trucks: asyncpg.Connection) -> None:
    await trucks.execute(
        "ALTER TABLE trucks RENAME position TO spot; INSERT INTO trucks VALUES (1, 'x', st_point(1, 1))"
    )
    assert await told(trucks) == [("insert", 1, "POINT(1 1)")]
    await trucks.execute("SELECT hub.rewatch()")
    assert await trucks.fetchval("SELECT place FROM hub.watched") == "spot"
    await trucks.execute("ALTER TABLE trucks DROP spot; SELECT hub.rewatch(); TRUNCATE hub.events")
    await trucks.execute("INSERT INTO trucks VALUES (2, 'x')")
    assert await told(trucks) == [("insert", 2, None)]
    assert await trucks.fetchval("SELECT place FROM hub.watched") is None


async def test_another_type_in_its_stead_is_no_place(trucks: asyncpg.Connection) -> None:
    """A type's functions may be its owner's, and these triggers run as the hub's."""
    await trucks.execute("ALTER TABLE trucks ALTER position TYPE text; INSERT INTO trucks VALUES (1, 'x', 'here')")
    assert await told(trucks) == [("insert", 1, None)]


async def test_watching_again_changes_the_place(trucks: asyncpg.Connection) -> None:
    await trucks.execute("SELECT hub.watch('public.trucks'); INSERT INTO trucks VALUES (1, 'x', st_point(1, 1))")
    assert await told(trucks) == [("insert", 1, None)]
    await trucks.execute(f"{WATCH}; INSERT INTO trucks VALUES (2, 'x', st_point(1, 1))")
    assert await told(trucks) == [("insert", 2, "POINT(1 1)")]


async def test_a_column_that_is_no_geometry_is_refused(trucks: asyncpg.Connection) -> None:
    for place in ("name", "nowhere"):
        with pytest.raises(asyncpg.UndefinedColumnError, match=f"no column {place} that is a geometry"):
            await trucks.execute("SELECT hub.watch('public.trucks', place => $1)", place)


async def test_without_postgis_there_is_no_place_to_watch(trucks: asyncpg.Connection) -> None:
    await trucks.execute("DROP EXTENSION postgis CASCADE; SELECT hub.enable_places()")
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="without PostGIS") as refused:
        await trucks.execute("SELECT hub.watch('public.trucks', place => 'position')")
    assert "CREATE EXTENSION postgis" in str(refused.value.hint)
    await trucks.execute("INSERT INTO public.trucks VALUES (1, 'x')")
    assert await trucks.fetchval("SELECT count(*) FROM hub.events") == 1
