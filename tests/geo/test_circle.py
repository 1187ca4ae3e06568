"""Circles: their corners lie where the geodesics of the ellipsoid end."""

from __future__ import annotations

from itertools import pairwise

import asyncpg
import pytest

from hub.geo import circle

PLACES = [(-73.98, 40.75, 500.0), (0.0, 0.0, 100_000.0), (179.9, -45.0, 30_000.0), (12.0, 78.0, 1_000_000.0)]


async def test_every_corner_is_as_far_away_as_postgis_measures(producer: asyncpg.Connection) -> None:
    for longitude, latitude, meters in PLACES:
        corners = circle.corners(longitude, latitude, meters)
        rows = await producer.fetch(
            "SELECT ST_Distance(ST_Point($1, $2)::geography, ST_Point(lon, lat)::geography) AS away"
            " FROM unnest($3::float8[], $4::float8[]) AS corner (lon, lat)",
            *(longitude, latitude, [lon for lon, _ in corners], [lat for _, lat in corners]),
        )
        assert [row["away"] for row in rows] == pytest.approx([meters] * circle.CORNERS, abs=0.01)


def test_corners_go_round_without_a_leap_over_the_antimeridian() -> None:
    corners = circle.corners(179.9, -45.0, 30_000.0)
    assert max(longitude for longitude, _ in corners) > 180
    assert all(abs(after[0] - before[0]) < 1 for before, after in pairwise(corners))


@pytest.mark.parametrize(
    ("latitude", "meters", "there"), [(89.0, 100_000.0, False), (89.0, 112_000.0, True), (-90.0, 1.0, True)]
)
def test_a_circle_knows_whether_a_pole_is_inside(latitude: float, meters: float, there: bool) -> None:
    assert circle.holds_pole(latitude, meters) is there
