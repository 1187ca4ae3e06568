"""One event with a place, for whoever is at a terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hub.errors import SetupError
from hub.postgres import once
from hub.postgres.connect import Connection, Target
from tests.postgres.conftest import opened


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Connection]:
    async with opened(Target(database)) as connection:
        yield connection


async def test_a_place_is_said_as_geojson_as_wkt_or_as_two_numbers(owner: Connection) -> None:
    for place in ('{"type":"Point","coordinates":[-1.5,2]}', "SRID=4326;POINT(-1.5 2)", "-1.5,2", " -1.5 , 2.0 "):
        await once.publish(owner, "fleet", "1", place=place)
    found = await owner.fetch("SELECT gis.st_asewkt(place) AS place, published FROM hub.places")
    assert [tuple(row) for row in found] == [("SRID=4326;POINT(-1.5 2)", None)] * 4


async def test_a_key_keeps_the_first_place(owner: Connection) -> None:
    first = await once.publish(owner, "fleet", "1", key="k", place="1,2")
    assert await once.publish(owner, "fleet", "2", key="k", place="3,4") == first
    assert await owner.fetchval("SELECT array_agg(gis.st_astext(place)) FROM hub.places") == ["POINT(1 2)"]


async def test_what_is_no_place_is_said(owner: Connection) -> None:
    for place, words in (("somewhere", "parse error"), ("{}", "refuses the event"), ("200,1", "longitudes from -180")):
        with pytest.raises(SetupError, match=words) as refusal:
            await once.publish(owner, "fleet", "1", place=place)
        assert "\n" not in str(refusal.value)
    assert await owner.fetchval("SELECT count(*) FROM hub.events") == 0


async def test_without_postgis_there_are_no_places(owner: Connection) -> None:
    await owner.execute("DROP EXTENSION postgis CASCADE; SELECT hub.enable_places()")
    with pytest.raises(SetupError, match="CREATE EXTENSION postgis"):
        await once.publish(owner, "fleet", "1", place="1,2")
    assert await once.publish(owner, "fleet", "1")
