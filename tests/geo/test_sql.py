"""Places in the database: who writes them, what they become, and that they go with their events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from hub import assets
from hub.postgres import binaries, retention
from hub.postgres.connect import Connection, Target
from hub.postgres.migrate import migrate
from hub.postgres.retention import Keep
from tests.conftest import renamed
from tests.postgres.conftest import as_role, opened
from tests.postgres.test_migrate import UNCOMMENTED

TIN = "TIN (((0 0, 0 1, 1 0, 0 0)), ((1 0, 0 1, 1 1, 1 0)))"


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Connection]:
    """The hub's own role."""
    async with opened(Target(database)) as connection:
        yield connection


async def publish(producer: Any, place: str | None, channel: str = "fleet") -> int:
    number: int = await producer.fetchval(
        "SELECT hub.publish($1, '1', place => $2::text::gis.geometry)", channel, place
    )
    return number


async def stored(producer: Any, number: int) -> tuple[str | None, str | None]:
    """The place in WGS 84, and as it was published, if that is something else."""
    row = await producer.fetchrow(
        "SELECT gis.st_asewkt(place, 6) AS place, gis.st_asewkt(published) AS published FROM hub.places WHERE id = $1",
        number,
    )
    return row and tuple(row)


KEPT = [
    ("SRID=4326;POINT(1 2)", "SRID=4326;POINT(1 2)", None),
    ("SRID=4326;POINT(1 2 3)", "SRID=4326;POINT(1 2 3)", None),
    ("SRID=4326;POINT EMPTY", "SRID=4326;POINT EMPTY", None),
    ("SRID=4326;POLYGON((0 0,1 0,1 1,0 0))", "SRID=4326;POLYGON((0 0,1 0,1 1,0 0))", None),
    ("POINT(1 2)", "SRID=4326;POINT(1 2)", "POINT(1 2)"),
    ("SRID=3857;POINT(111319.490793 0)", "SRID=4326;POINT(1 0)", "SRID=3857;POINT(111319.490793 0)"),
    ("SRID=4326;POINTM(1 2 3)", "SRID=4326;POINT(1 2)", "SRID=4326;POINTM(1 2 3)"),
    ("SRID=4326;POINT(1 2 3 4)", "SRID=4326;POINT(1 2 3)", "SRID=4326;POINT(1 2 3 4)"),
]


async def test_a_place_is_kept_as_it_was_published_and_in_wgs_84(producer: asyncpg.Connection) -> None:
    for published, place, kept in KEPT:
        assert await stored(producer, await publish(producer, published)) == (place, kept)


SHAPES = [
    ("CURVEPOLYGON(CIRCULARSTRING(0 0,1 1,2 0,1 -1,0 0))", "POLYGON", 3.14),
    ("COMPOUNDCURVE((0 0,1 0),CIRCULARSTRING(1 0,2 1,3 0))", "LINESTRING", 0),
    ("MULTICURVE((0 0,1 0),CIRCULARSTRING(1 0,2 1,3 0))", "MULTILINESTRING", 0),
    ("MULTISURFACE(CURVEPOLYGON(CIRCULARSTRING(0 0,1 1,2 0,1 -1,0 0)))", "MULTIPOLYGON", 3.14),
    ("GEOMETRYCOLLECTION(POINT(1 1),CIRCULARSTRING(0 0,1 1,2 0))", "GEOMETRYCOLLECTION", 0),
    ("TRIANGLE((0 0,0 1,1 0,0 0))", "POLYGON", 0.5),
    (TIN, "POLYGON", 1),
    ("POLYHEDRALSURFACE(((0 0,0 1,1 1,1 0,0 0)))", "POLYGON", 1),
    ("POLYGON((0 0,2 2,2 0,0 2,0 0))", "MULTIPOLYGON", 2),
]


async def test_what_geojson_has_not_becomes_what_it_has(producer: asyncpg.Connection) -> None:
    """Of a polygon that crosses itself, the parts."""
    for published, kind, area in SHAPES:
        number = await publish(producer, "SRID=4326;" + published)
        row = await producer.fetchrow(
            "SELECT geometrytype(place) AS kind, st_area(place) AS area, st_isvalid(place) AS valid, published"
            " FROM hub.places WHERE id = $1",
            number,
        )
        assert (row["kind"], row["area"], row["valid"]) == (kind, pytest.approx(area, abs=0.01), True)
        assert row["published"] is not None


NOWHERE = [
    ("ST_MakePoint('NaN', 1)", "longitudes from -180 to 180"),
    ("ST_MakePoint(1, 'Infinity')", "longitudes from -180 to 180"),
    ("ST_MakePoint(1, 1, 'NaN')", "longitudes from -180 to 180"),
    ("ST_MakeLine(ARRAY[ST_MakePoint(2, 2), ST_MakePoint('NaN', 1), ST_MakePoint(3, 1)])", "is no number"),
    ("ST_MakePoint(200, 1)", "longitudes from -180 to 180"),
    ("ST_MakePoint(40.7, -91)", "longitudes from -180 to 180"),
    ("ST_SetSRID(ST_MakePoint(1, 1), 12345)", "from SRID 12345 to WGS 84: Cannot find SRID"),
    ("ST_SetSRID(ST_MakePoint(1e30, 1), 25832)", "from SRID 25832 to WGS 84: "),
    ("(SELECT ST_MakeLine(ST_MakePoint(n / 100.0, 1)) FROM generate_series(1, 10001) AS n)", "10000 are the most"),
]


async def test_what_is_nowhere_on_earth_is_refused_in_words(producer: asyncpg.Connection) -> None:
    for place, said in NOWHERE:
        with pytest.raises((asyncpg.DataError, asyncpg.ProgramLimitExceededError), match=said):
            await producer.execute(f"SELECT hub.publish('fleet', '1', place => {place})")
    assert await producer.fetchval("SELECT count(*) FROM hub.events") == 0


async def test_a_call_without_a_place_is_the_one_it_always_was(producer: asyncpg.Connection) -> None:
    """Whatever types a program sends, or does not: none of them is ambiguous, and none leaves a place."""
    for call in (
        "'a', '1'",
        "'a', '1', '{x}'",
        "'a', '1', ARRAY['x']",
        "'a'::varchar, '1'::jsonb",
        "'a'::name, '1'::jsonb, tags => '{x}'",
        "channel => 'a', payload => '1'",
        "'a', '1', place => NULL",
    ):
        await producer.execute(f"SELECT hub.publish({call})")
    await producer.execute("SELECT hub.publish($1, $2::text::jsonb, $3)", "a", "1", ["x"])
    assert await producer.fetchval("SELECT count(*) FROM hub.events") == 8
    assert await producer.fetchval("SELECT count(*) FROM hub.places") == 0


async def test_tags_go_with_a_place(producer: asyncpg.Connection) -> None:
    await producer.execute(
        "SELECT hub.publish('a', '1', '{x}', ST_Point(1, 2)), hub.publish('a', '1', ARRAY['y'], 'POINT(1 2)')"
    )
    found = await producer.fetch("SELECT tags, place IS NULL AS bare FROM hub.placed ORDER BY id")
    assert [tuple(row) for row in found] == [(["x"], False), (["y"], False)]


async def test_who_may_publish_may_say_where(database: str, owner: Connection, visitor: str) -> None:
    """And may not write to the table, nor move what others have published."""
    await owner.execute(f"GRANT USAGE ON SCHEMA hub, gis TO {visitor}")
    async with opened(Target(as_role(database, visitor))) as guest:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for function publish"):
            await publish(guest, "POINT(1 2)")
        await owner.execute(f"GRANT EXECUTE ON FUNCTION hub.publish(text, jsonb, text[]) TO {visitor}")
        number = await publish(guest, "SRID=4326;POINT(1 2)")
        for theirs in ("INSERT INTO hub.places DEFAULT VALUES", "DELETE FROM hub.places", "SELECT FROM hub.places"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await guest.execute(theirs)
        bare = await publish(owner, None)
        assert await guest.fetchval("SELECT hub.put_place($1, 'POINT(3 4)'::gis.geometry)", bare) == bare
        assert await stored(owner, bare) is None
    assert await stored(owner, number) == ("SRID=4326;POINT(1 2)", None)
    await owner.execute(f"DROP OWNED BY {visitor}")


async def test_functions_that_fit_better_are_not_called(database: str, owner: Connection, visitor: str) -> None:
    """Whoever may create functions beside PostGIS cannot have them run by the hub's owner."""
    await owner.execute(f"GRANT USAGE ON SCHEMA hub TO {visitor}; GRANT ALL ON SCHEMA gis TO {visitor}")
    await owner.execute(f"GRANT EXECUTE ON FUNCTION hub.publish(text, jsonb, text[]) TO {visitor}")
    trap = "LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped as %', current_user; END $$"
    async with opened(Target(as_role(database, visitor))) as guest:
        for signature in (
            "st_xmin(gis.geometry) RETURNS float8",
            "st_curvetoline(gis.geometry) RETURNS gis.geometry",
            "st_transform(gis.geometry, bigint) RETURNS gis.geometry",
            "st_asgeojson(gis.geometry) RETURNS text",
            "st_intersects(gis.geometry, text) RETURNS boolean",
        ):
            await guest.execute(f"CREATE FUNCTION gis.{signature} {trap}")
        for place in ("SRID=3857;POINT(1 2)", "CIRCULARSTRING(0 0,1 1,2 0)", TIN):
            await publish(guest, place)
        await guest.execute("DROP OWNED BY CURRENT_USER")
    await owner.execute(f"DROP OWNED BY {visitor}")


async def test_places_come_in_by_copy(producer: asyncpg.Connection) -> None:
    """Into the view, as text of whatever form PostGIS reads."""
    rows = 'a\t1\tSRID=4326;POINT(1 2)\na\t2\t\\N\na\t3\t{"type":"Point","coordinates":[3,4]}\n'
    columns = ["channel", "payload", "place"]

    async def source() -> AsyncIterator[bytes]:
        yield rows.encode()

    await producer.copy_to_table("placed", schema_name="hub", columns=columns, source=source())
    found = await producer.fetch("SELECT payload, st_asewkt(place) AS place FROM hub.placed ORDER BY id")
    assert [tuple(row) for row in found] == [("1", "SRID=4326;POINT(1 2)"), ("2", None), ("3", "SRID=4326;POINT(3 4)")]


async def test_a_row_carries_the_transaction_that_writes_it(owner: Connection) -> None:
    await publish(owner, "POINT(1 2)")
    with pytest.raises(asyncpg.CheckViolationError, match="own_xid"):
        await owner.execute("INSERT INTO hub.places (xid, id) VALUES ('99', 99)")


async def test_places_go_with_their_events(owner: Connection) -> None:
    ids = [await publish(owner, f"POINT({n} 2)") for n in range(5)]
    assert sum([gone async for gone in retention.apply(owner, Keep(count=2))]) == 3
    assert [row["id"] for row in await owner.fetch("SELECT id FROM hub.places ORDER BY id")] == ids[-2:]
    await owner.execute("TRUNCATE hub.events")
    assert await owner.fetchval("SELECT count(*) FROM hub.places") == 0


async def test_a_restored_log_has_its_places(server: str, database: str, owner: Connection) -> None:
    """From a dump in a database that knows nothing of PostGIS; and in another cluster its rows are stamped anew."""
    numbers = [await publish(owner, f"SRID=4326;POINT({n} 2)") for n in range(3)]
    major = owner.get_server_version().major
    bin_dir = next(found.bin for found in binaries.installed() if found.major == major)
    await owner.execute("CREATE DATABASE restored_places")
    restored = renamed(server, "restored_places")
    try:
        command = f"{bin_dir}/pg_dump '{database}' | {bin_dir}/psql -q -v ON_ERROR_STOP=1 '{restored}'"
        process = await asyncio.create_subprocess_shell(command)
        assert await process.wait() == 0
        async with opened(Target(restored)) as there:
            assert await there.fetchval("SELECT hub.enable_places()") == "gis"
            await there.execute("UPDATE hub.cluster SET system = 1")
            await there.execute("INSERT INTO hub.cluster (system) SELECT 1 WHERE NOT EXISTS (SELECT FROM hub.cluster)")
            await there.execute("UPDATE hub.cluster SET stamp = '1'")
            assert (await there.fetchrow("SELECT * FROM hub.arrive()"))["restored"]
            found = await there.fetch("SELECT id FROM hub.placed WHERE place IS NOT NULL ORDER BY id")
            assert [row["id"] for row in found] == numbers
            assert await stored(there, await publish(there, "SRID=4326;POINT(9 9)")) == ("SRID=4326;POINT(9 9)", None)
    finally:
        await owner.execute("DROP DATABASE IF EXISTS restored_places WITH (FORCE)")


async def test_two_hubs_that_find_postgis_at_once_do_not_stand_in_each_others_way(
    database: str, owner: Connection
) -> None:
    await owner.execute("DROP EXTENSION postgis CASCADE; SELECT hub.enable_places(); CREATE EXTENSION postgis")
    async with opened(Target(database)) as one, opened(Target(database)) as two:
        found = await asyncio.gather(*(each.fetchval("SELECT hub.enable_places()") for each in (one, two)))
    assert found == ["public", "public"]


async def test_all_that_places_add_has_a_comment(owner: Connection) -> None:
    assert [row[0] for row in await owner.fetch(UNCOMMENTED)] == []


async def test_retention_asks_for_nothing_where_there_are_no_places(blank: str) -> None:
    """The log needs neither PostGIS nor the table."""
    async with opened(Target(blank)) as connection:
        await migrate(connection, assets.folder("sql"))
        assert await connection.fetchval("SELECT hub.enable_places()") is None
        for _ in range(3):
            await connection.execute("SELECT hub.publish('a', '1')")
        assert sum([gone async for gone in retention.apply(connection, Keep(count=1))]) == 2
        await connection.execute("TRUNCATE hub.events")
