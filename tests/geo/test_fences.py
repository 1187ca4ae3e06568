"""Many fences: the tree finds what testing each in turn finds."""

from __future__ import annotations

import gc
from typing import Any

import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.geo.fences import Shape, Tree

coordinates = st.integers(0, 8)
corners = st.tuples(coordinates, coordinates)
points = st.builds(shapely.Point, coordinates, coordinates)
boxes = st.builds(
    lambda west, south, width, height: shapely.box(west, south, west + width, south + height),
    *(coordinates, coordinates, st.integers(1, 4), st.integers(1, 4)),
)
circles = st.builds(lambda point, radius: point.buffer(radius), points, st.integers(1, 3))
shapes = boxes | circles | st.builds(lambda one, other: shapely.union(one, other), boxes, circles)
lines = st.lists(corners, min_size=2, max_size=4).map(shapely.LineString)
places = (
    st.none()
    | points
    | lines
    | boxes
    | st.just(shapely.Point())
    | st.builds(lambda *parts: shapely.GeometryCollection(parts), points, lines)
)


@given(st.lists(shapes, max_size=12), st.lists(places, max_size=12), st.data())
@settings(deadline=None, max_examples=60)
def test_the_tree_finds_what_testing_each_fence_finds(
    given_shapes: Any, given_places: Any, data: st.DataObject
) -> None:
    tree, there = Tree(), [Shape.of(shape) for shape in given_shapes]
    for fence in there:
        tree.add(fence)
    for _ in range(2):
        found = tree.around(given_places)
        expected = [{fence for fence in there if place is not None and fence.hits(place)} for place in given_places]
        assert [set(fences) for fences in found] == expected
        assert all(len(set(fences)) == len(fences) for fences in found)
        if there:
            gone = there.pop(data.draw(st.integers(0, len(there) - 1)))
            tree.remove(gone)


def test_fences_that_nobody_has_any_more_are_forgotten() -> None:
    before = len(Shape._known)
    fence = Shape.of(shapely.box(0.125, 0.25, 1, 1))
    assert Shape.of(shapely.box(0.125, 0.25, 1, 1)) is fence
    assert len(Shape._known) == before + 1
    del fence
    gc.collect()
    assert len(Shape._known) == before


def test_an_invalid_place_keeps_no_other_from_being_found() -> None:
    """Places come from Postgres, where they are made valid; this is for whoever has written to the table by hand."""
    tree, fence = Tree(), Shape.of(shapely.box(0, 0, 4, 4))
    tree.add(fence)
    bow_tie = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    nested = shapely.GeometryCollection([shapely.GeometryCollection([bow_tie])])
    assert tree.around([bow_tie, nested, shapely.Point(1, 1)])[2] == [fence]
