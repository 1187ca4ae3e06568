"""Fences and places as clients say them: what is meant, and what is wrong with it, in words."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest
import shapely

from hub.errors import Code, CommandError
from hub.fence import MOST_POINTS, Area, Near
from hub.geo.geometry import Geometry

GEOMETRY = Geometry()
SQUARE = [[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]


def within(*rings: Any, kind: str = "Polygon") -> Area:
    return Area(within={"type": kind, "coordinates": list(rings)})


def at(longitude: float, latitude: float) -> Any:
    return shapely.Point(longitude, latitude)


def ring(count: int) -> list[list[float]]:
    corners = [[math.cos(2 * math.pi * n / count), math.sin(2 * math.pi * n / count)] for n in range(count)]
    return [*corners, corners[0]]


def test_a_polygon_has_its_border_and_not_its_holes() -> None:
    fence = GEOMETRY.fence(within(SQUARE, [[0.5, 0.5], [0.5, 1.5], [1.5, 1.5], [1.5, 0.5], [0.5, 0.5]]))
    assert [fence.hits(at(*place)) for place in ((0, 0), (0.2, 1), (1, 1), (3, 1))] == [True, True, False, False]
    assert fence.points == 10


def test_several_polygons_are_one_fence() -> None:
    fence = GEOMETRY.fence(within([SQUARE], [[[5, 5], [6, 5], [6, 6], [5, 5]]], kind="MultiPolygon"))
    assert [fence.hits(at(*place)) for place in ((1, 1), (5.5, 5.2), (4, 4))] == [True, True, False]


def test_the_same_shape_is_the_same_fence_whichever_way_it_is_said() -> None:
    """So who has it is in one group."""
    turned = [[2, 2], [2, 0], [0, 0], [0, 2], [2, 2]]
    fences = {GEOMETRY.fence(area) for area in (within(SQUARE), within(turned), Area(bbox=(0.0, 0.0, 2.0, 2.0)))}
    assert len(fences) == 1
    assert GEOMETRY.fence(within(ring(5))) not in fences


def test_heights_count_for_nothing() -> None:
    high = [[*position, 1000] for position in SQUARE]
    assert GEOMETRY.fence(within(high)) is GEOMETRY.fence(within(SQUARE))
    assert GEOMETRY.fence(within(SQUARE)).hits(shapely.Point(1, 1, 5))


def test_a_box_over_the_antimeridian_is_both_sides_of_it() -> None:
    fiji = GEOMETRY.fence(Area(bbox=(176.0, -21.0, -178.0, -12.0)))
    assert [fiji.hits(at(longitude, -17)) for longitude in (178, 180, -180, -179, 0, 175)] == [True] * 4 + [False] * 2
    assert GEOMETRY.fence(Area(bbox=(180.0, 0.0, -170.0, 1.0))).hits(at(-175, 0.5))


def test_a_circle_may_go_over_the_antimeridian() -> None:
    taveuni = GEOMETRY.fence(Area(near=Near((179.97, -16.85), 30_000.0)))
    found = [taveuni.hits(at(longitude, -16.85)) for longitude in (179.97, 179.75, 179.6, -179.8, -179.7)]
    assert found == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("area", "said"),
    [
        (Area(within=[1]), "Expected `object`"),
        (Area(within={"type": "Point", "coordinates": [1, 2]}), "Invalid value 'Point'"),
        (Area(within={"type": "Feature", "geometry": None}), "Invalid value 'Feature'"),
        (within([[0, 0], [1, "x"], [1, 1], [0, 0]]), "`$.coordinates[0][1][1]`"),
        (within([[0, 0], [1, 1], [0, 0]]), "length >= 4"),
        (within(), "length >= 1"),
        (within(SQUARE[:-1]), "not closed"),
        (within([[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]), "self-intersection[1 1]"),
        (within([[0, 0], [1, 1], [2, 2], [0, 0]]), "no proper polygon"),
        (within([[170, 0], [190, 0], [190, 1], [170, 0]]), "beyond the earth"),
        (within([[0, 0], [0, 91], [1, 91], [0, 0]]), "beyond the earth"),
        (within([[0, 0], [0, float("nan")], [1, 1], [0, 0]]), "beyond the earth"),
        (within([[0, 0], [0, float("inf")], [1, 1], [0, 0]]), "beyond the earth"),
        (Area(bbox=(0.0, 2.0, 1.0, 1.0)), "no area"),
        (Area(bbox=(1.0, 0.0, 1.0, 1.0)), "no area"),
        (Area(bbox=(180.0, 0.0, -180.0, 1.0)), "no area"),
        (Area(bbox=(0.0, 0.0, 200.0, 1.0)), "beyond the earth"),
        (Area(near=Near((0.0, 0.0), 0.0)), "at most 1000000 meters"),
        (Area(near=Near((0.0, 0.0), 1e7)), "at most 1000000 meters"),
        (Area(near=Near((0.0, 0.0), float("nan"))), "at most 1000000 meters"),
        (Area(near=Near((0.0, 95.0), 1.0)), "beyond the earth"),
        (Area(near=Near((0.0, 89.999), 1000.0)), "reaches a pole"),
    ],
    ids=lambda value: None if isinstance(value, Area) else str(value),
)
def test_what_is_no_fence_is_refused_in_words(area: Area, said: str) -> None:
    with pytest.raises(CommandError) as refused:
        GEOMETRY.fence(area)
    assert (refused.value.code, refused.value.field) == (Code.BAD_PLACE, refused.value.message.split("`")[1])
    assert said in refused.value.message


def test_a_fence_of_too_many_points_is_refused_and_the_greatest_is_not() -> None:
    with pytest.raises(CommandError) as refused:
        GEOMETRY.fence(within([[0.0, 0.0]] * 100_000))
    assert (refused.value.code, refused.value.field) == (Code.TOO_LARGE, "within")
    assert GEOMETRY.fence(within(ring(MOST_POINTS - 1))).points == MOST_POINTS


@pytest.mark.parametrize(
    "wkt",
    [
        "POINT (1 2)",
        "POINT Z (1 2 3)",
        "LINESTRING (0 0, 1 1)",
        "POLYGON ((0 0, 1 0, 1 1, 0 0))",
        "MULTIPOINT ((1 1), (2 2))",
        "MULTILINESTRING ((0 0, 1 1), (2 2, 3 3))",
        "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)))",
        "GEOMETRYCOLLECTION (POINT (1 2), LINESTRING (0 0, 1 1))",
        "POINT EMPTY",
        "POLYGON EMPTY",
        "GEOMETRYCOLLECTION EMPTY",
    ],
)
def test_a_place_is_read_as_it_is_written(wkt: str) -> None:
    place = shapely.set_srid(shapely.from_wkt(wkt), 4326)
    said = orjson.loads(GEOMETRY.geojson(place))
    assert shapely.equals_exact(GEOMETRY.place(said), place)
    assert shapely.get_srid(GEOMETRY.place(said)) == 4326
    assert said == orjson.loads(orjson.dumps(shapely.geometry.mapping(place))) or place.is_empty


@pytest.mark.parametrize(
    "given",
    [
        7,
        "POINT (1 2)",
        [1, 2],
        {},
        {"type": "Point"},
        {"type": "Point", "coordinates": ["x", 2]},
        {"type": "Point", "coordinates": [200, 2]},
        {"type": "Point", "coordinates": [None, 2]},
        {"type": "LineString", "coordinates": [[0, 0], [0, 95]]},
        {"type": "Circle", "coordinates": [0, 0]},
        {"type": "Point", "coordinates": [1, 2], "crs": {"type": "name", "properties": {"name": "EPSG:3857"}}},
    ],
    ids=str,
)
def test_what_is_no_place_is_refused_in_words(given: Any) -> None:
    with pytest.raises(CommandError) as refused:
        GEOMETRY.place(given)
    assert (refused.value.code, refused.value.field) == (Code.BAD_PLACE, "place")


def test_a_place_of_too_many_points_is_refused() -> None:
    with pytest.raises(CommandError) as refused:
        GEOMETRY.place({"type": "LineString", "coordinates": ring(MOST_POINTS)})
    assert (refused.value.code, refused.value.field) == (Code.TOO_LARGE, "place")
