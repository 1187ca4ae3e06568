"""An export of what happened inside of a fence."""

from __future__ import annotations

import csv
import io

import asyncpg
import orjson
import pytest

from hub import export
from hub.errors import SetupError
from hub.postgres.connect import Target
from tests.postgres.conftest import opened


async def test_lines_and_csv_are_of_what_happened_inside(producer: asyncpg.Connection, database: str) -> None:
    for longitude in (1, 5, 9):
        await producer.execute("SELECT hub.publish('fleet', '1', place => st_point($1, 1, 4326))", longitude)
    wanted = export.asked(["fleet"], [], bbox="0,0,6,6")
    found: dict[bool, list[object]] = {}
    for is_csv in (False, True):
        out = io.BytesIO()
        async with opened(Target(database)) as connection:
            await export.write(connection, wanted, out, csv=is_csv)
        text = out.getvalue().decode()
        events = csv.DictReader(io.StringIO(text)) if is_csv else map(orjson.loads, text.splitlines())
        places = [event["place"] for event in events]
        found[is_csv] = [orjson.loads(place)["coordinates"] if is_csv else place["coordinates"] for place in places]
    assert found == {False: [[1, 1], [5, 1]], True: [[1, 1], [5, 1]]}


async def test_a_database_without_places_has_nothing_inside_and_all_outside(
    producer: asyncpg.Connection, database: str
) -> None:
    await producer.execute("DROP EXTENSION postgis CASCADE; SELECT hub.enable_places(), hub.publish('fleet', '1')")
    for options, count in (({"bbox": "0,0,6,6"}, 0), ({}, 1)):
        out = io.BytesIO()
        async with opened(Target(database)) as connection:
            await export.write(connection, export.asked(["fleet"], [], **options), out, csv=False)
        assert out.getvalue().count(b"\n") == count


def test_a_fence_that_is_none_is_said() -> None:
    with pytest.raises(SetupError, match="`bbox` has no area"):
        export.asked(["fleet"], [], bbox="0,0,0,6")
