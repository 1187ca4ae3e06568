"""PostGIS's geometry on the wire: binary, with its SRID, whatever it is made of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import product
from typing import ClassVar

import asyncpg
import pytest
import shapely

from hub.geo.codec import set_codec
from hub.postgres.connect import Connection, Target
from tests.postgres.conftest import opened


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Connection]:
    async with opened(Target(database)) as connection:
        await set_codec(connection, "gis")
        yield connection


WKT = [
    "POINT (1 2)",
    "POINT Z (1 2 3)",
    "POINT M (1 2 3)",
    "POINT ZM (1 2 3 4)",
    "LINESTRING (0 0, 1 1, 2 0)",
    "POLYGON ((0 0, 4 0, 4 4, 0 4, 0 0), (1 1, 1 2, 2 2, 1 1))",
    "MULTIPOINT ((1 1), (2 2))",
    "MULTILINESTRING ((0 0, 1 1), (2 2, 3 3))",
    "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)))",
    "GEOMETRYCOLLECTION (POINT (1 2), LINESTRING (0 0, 1 1))",
    "POINT EMPTY",
    "LINESTRING EMPTY",
    "GEOMETRYCOLLECTION EMPTY",
]


async def test_a_geometry_comes_back_as_it_was_with_its_srid(owner: Connection) -> None:
    for wkt, srid in product(WKT, (0, 4326, 25832)):
        geometry = shapely.set_srid(shapely.from_wkt(wkt), srid)
        row = await owner.fetchrow("SELECT $1::gis.geometry AS same, gis.st_asewkt($1::gis.geometry) AS text", geometry)
        assert row is not None
        assert shapely.equals_exact(row["same"], geometry)
        assert shapely.get_srid(row["same"]) == srid
        assert row["text"].startswith(f"SRID={srid};" if srid else wkt.split()[0])


async def test_arrays_and_null_go_through_it_too(owner: Connection) -> None:
    found = await owner.fetchval("SELECT $1::gis.geometry[]", [shapely.Point(1, 2), None])
    assert found == [shapely.Point(1, 2), None]


class Truck:
    """Anything that can say where it is."""

    __geo_interface__: ClassVar = {"type": "Point", "coordinates": (-73.9857, 40.7484)}


async def test_whatever_has_a_geo_interface_is_written_in_wgs_84(owner: Connection) -> None:
    assert (
        await owner.fetchval("SELECT gis.st_asewkt($1::gis.geometry)", Truck()) == "SRID=4326;POINT(-73.9857 40.7484)"
    )


async def test_what_is_no_geometry_is_refused_before_it_is_sent(owner: Connection) -> None:
    with pytest.raises(asyncpg.DataError):
        await owner.fetchval("SELECT $1::gis.geometry", "POINT (1 2)")
    assert await owner.fetchval("SELECT 1") == 1


async def test_a_schema_without_postgis_is_told(owner: Connection) -> None:
    with pytest.raises(ValueError, match="unknown type"):
        await set_codec(owner, "public")
