"""Fences and places as clients say them, each checked, with a sentence for what is wrong.

Polygons are planar: their edges are straight in longitude and latitude, and none goes over the antimeridian.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from math import isfinite
from typing import Annotated, Any, Final

import msgspec
import orjson
import shapely
from msgspec import Meta
from shapely import affinity

from hub.errors import Code, CommandError
from hub.fence import MOST_POINTS, Area, Fence, Near
from hub.geo import circle
from hub.geo.codec import WGS84, encode, set_codec
from hub.geo.fences import Shape, Tree

FARTHEST: Final = 1_000_000.0
"""Metres of a circle's radius."""

_Position = Annotated[list[float], Meta(min_length=2, max_length=4)]
_Ring = Annotated[list[_Position], Meta(min_length=4)]
_Rings = Annotated[list[_Ring], Meta(min_length=1)]


class _Polygon(msgspec.Struct, tag_field="type", tag="Polygon"):
    coordinates: _Rings


class _MultiPolygon(msgspec.Struct, tag_field="type", tag="MultiPolygon"):
    coordinates: Annotated[list[_Rings], Meta(min_length=1)]


_EARTH: Final = shapely.box(-180, -90, 180, 90)


class Geometry:
    """Makes fences and places, and reads them."""

    set_codec = staticmethod(set_codec)

    def tree(self) -> Tree:
        return Tree()

    def fence(self, area: Area) -> Fence:
        """The fence of `area`. Raises CommandError (`bad_place`)."""
        if area.near is not None:
            shape = _circle(area.near)
        elif area.bbox is not None:
            shape = _box(*area.bbox)
        else:
            shape = _polygon(area.within)
        if not shapely.is_valid(shape):
            where = shapely.is_valid_reason(shape)
            raise _refusal(_way(area), f"is no proper polygon: {where[:1].lower()}{where[1:]}")
        return Shape.of(shapely.set_srid(shape, WGS84))

    def place(self, given: Any) -> Any:
        """The place that is `given`, decoded GeoJSON. Raises CommandError (`bad_place`)."""
        if not isinstance(given, dict) or "crs" in given:
            raise _refusal("place", "is a geometry of GeoJSON, in longitude and latitude, without `crs`")
        try:
            found = shapely.from_geojson(orjson.dumps(given))
        except (shapely.errors.GEOSException, orjson.JSONEncodeError) as error:
            raise _refusal("place", f"is no geometry of GeoJSON: {_words(error)}") from None
        _check(found, "place")
        return shapely.set_srid(found, WGS84)

    def geojson(self, place: Any) -> bytes:
        """`place`, one of those that Postgres has in WGS 84, as GeoJSON."""
        if place.is_empty and place.geom_type != "GeometryCollection":
            return orjson.dumps({"type": place.geom_type, "coordinates": []})
        text: str = shapely.to_geojson(place)
        return text.encode()

    def text(self, place: Any) -> bytes:
        """The place as EWKB in hexadecimal."""
        return encode(place).hex().encode()

    def decode(self, place: Any) -> Any:
        """A geometry, also where it came as hexadecimal text."""
        return shapely.from_wkb(place) if isinstance(place, str) else place


def _polygon(given: Any) -> Any:
    try:
        read: _Polygon | _MultiPolygon = msgspec.convert(given, _Polygon | _MultiPolygon)
    except msgspec.ValidationError as error:
        raise _refusal("within", f"is no polygon of GeoJSON: {str(error)[:200]}") from None
    polygons = [read.coordinates] if isinstance(read, _Polygon) else read.coordinates
    rings = list(chain.from_iterable(polygons))
    if (count := sum(map(len, rings))) > MOST_POINTS:
        raise CommandError(
            Code.TOO_LARGE, f"`within` has {count} points; {MOST_POINTS} are the most. Simplify it.", field="within"
        )
    for ring in rings:
        if ring[0] != ring[-1]:
            raise _refusal("within", "has a ring that is not closed: its last position has to be its first")
        for longitude, latitude, *_ in ring:
            _check_position("within", longitude, latitude)
    made = [shapely.Polygon(*_parts(polygon)) for polygon in polygons]
    return made[0] if isinstance(read, _Polygon) else shapely.MultiPolygon(made)


def _parts(rings: list[list[list[float]]]) -> tuple[Any, Any]:
    outer, *holes = [[position[:2] for position in ring] for ring in rings]
    return outer, holes


def _box(west: float, south: float, east: float, north: float) -> Any:
    """Of one that begins east of where it ends, the two sides of the antimeridian."""
    _check_position("bbox", west, south)
    _check_position("bbox", east, north)
    if south >= north or west == east:
        raise _refusal("bbox", "has no area: it is west, south, east, north")
    if west < east:
        return shapely.box(west, south, east, north)
    sides = [(left, right) for left, right in ((west, 180.0), (-180.0, east)) if left < right]
    if not sides:
        raise _refusal("bbox", "has no area: west and east are the antimeridian")
    return shapely.MultiPolygon([shapely.box(left, south, right, north) for left, right in sides])


@lru_cache(maxsize=1024)  # many come back with the same one
def _circle(near: Near) -> Any:
    longitude, latitude = near.point
    _check_position("near", longitude, latitude)
    if not 0 < near.meters <= FARTHEST:
        raise _refusal("near", f"reaches more than 0 and at most {FARTHEST:.0f} meters far")
    if circle.holds_pole(latitude, near.meters):
        raise _refusal("near", 'reaches a pole, where a circle has no edge; say "bbox":[-180,south,180,90]')
    corners = circle.corners(longitude, latitude, near.meters)
    whole = shapely.Polygon(corners)
    if all(-180 <= corner <= 180 for corner, _ in corners):
        return whole
    parts = [shapely.intersection(affinity.translate(whole, shift), _EARTH) for shift in (-360, 0, 360)]
    return shapely.union_all([part for part in parts if part.area])


def _check(place: Any, field: str) -> None:
    """Refuses what hub.located does, before it comes to Postgres."""
    if (count := shapely.get_num_coordinates(place)) > MOST_POINTS:
        raise CommandError(Code.TOO_LARGE, f"`{field}` has {count} points; {MOST_POINTS} are the most.", field=field)
    for longitude, latitude in shapely.get_coordinates(place).tolist():
        _check_position(field, longitude, latitude)


def _check_position(field: str, longitude: float, latitude: float) -> None:
    if not (isfinite(longitude) and isfinite(latitude) and abs(longitude) <= 180 and abs(latitude) <= 90):
        text = "goes beyond the earth: longitudes, which come first, are from -180 to 180, latitudes from -90 to 90"
        raise _refusal(field, text)


def _refusal(field: str, why: str) -> CommandError:
    return CommandError(Code.BAD_PLACE, f"`{field}` {why}.", field=field)


def _way(area: Area) -> str:
    return "within" if area.within is not None else "bbox" if area.bbox is not None else "near"


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
