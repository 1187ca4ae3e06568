"""Fences: the parts of the earth that subscriptions are confined to, as far as one need not know geometry."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec
import orjson

from hub.errors import Code, CommandError

MOST_POINTS: Final = 10_000
"""Points of a fence."""
MOST_OF_CLIENT: Final = 20_000
"""Points of all fences of a client together."""
WAYS: Final = ("within", "bbox", "near")
"""How a fence can be said."""


class Place(Protocol):
    """Where an event has happened: a geometry of shapely, or what else is written as one."""

    @property
    def wkb(self) -> bytes: ...


class Fence(Protocol):
    """Equal to, and one entry of a dictionary with, every other fence of the same shape. hub/geo makes them."""

    @property
    def wkb(self) -> bytes:
        """Its shape in WGS 84, as well-known binary with its SRID."""

    @property
    def points(self) -> int:
        """How many points the shape has."""

    def hits(self, place: Any) -> bool:
        """Whether `place` has a point in common with it, on its border too. An empty place has none."""


class Fences(Protocol):
    """Many fences at once. Each is there once, however often it was added."""

    def add(self, fence: Fence) -> None: ...
    def remove(self, fence: Fence) -> None: ...
    def around(self, places: Sequence[Any]) -> Sequence[Collection[Fence]]:
        """For each of `places`, of which some may be None, the fences that it hits."""


class Near(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A circle."""

    point: tuple[float, float]
    meters: float


class Area(msgspec.Struct, frozen=True):
    """A fence as a client says it, in one of these ways: a polygon of GeoJSON, its edges, or a circle."""

    within: Any = None
    bbox: tuple[float, float, float, float] | None = None
    near: Near | None = None


class Geometry(Protocol):
    """Knows geometry. All raise CommandError (`bad_place`), whose field is what the argument came as."""

    def fence(self, area: Area) -> Fence: ...
    def place(self, given: Any) -> Place:
        """The place that is `given` as GeoJSON."""


def only(area: Area) -> Area | None:
    """The same; None where nothing is said. Raises CommandError for one that is said in more than one way."""
    said = [way for way in WAYS if getattr(area, way) is not None]
    if len(said) > 1:
        message = f"`{said[0]}` and `{said[1]}` exclude each other; a subscription has one fence."
        raise CommandError(Code.BAD_REQUEST, message, field=said[1])
    return area if said else None


def made(area: Area | None, geometry: Geometry | None) -> Fence | None:
    """The fence of `area`, if there is one. Raises CommandError (`unsupported`) where nobody knows geometry."""
    if area is None:
        return None
    if geometry is None:
        raise unsupported(next(way for way in WAYS if getattr(area, way) is not None))
    return geometry.fence(area)


def placed(given: Any, geometry: Geometry | None) -> Place | None:
    """The place `given` as GeoJSON, if there is one. Raises CommandError as `made` does."""
    if given is None:
        return None
    if geometry is None:
        raise unsupported("place")
    return geometry.place(given)


def unsupported(field: str) -> CommandError:
    """The refusal of what needs PostGIS and shapely."""
    text = f"`{field}` needs PostGIS in the database and `pip install 'pghub[geo]'` at the hub; one of them is missing."
    return CommandError(Code.UNSUPPORTED, text, field=field)


def parse(parameters: Iterable[tuple[str, str]]) -> Area | None:
    """The area that parameters of a URL say: `within` as GeoJSON, `bbox=w,s,e,n`, `near=lon,lat,meters`.

    Raises CommandError (`bad_place`).
    """
    found: dict[str, Any] = {}
    for name, text in parameters:
        if name in found:
            raise CommandError(Code.BAD_REQUEST, f"`{name}` can be given only once.", field=name)
        try:
            found[name] = orjson.loads(text) if name == "within" else _numbers(text, 4 if name == "bbox" else 3)
        except ValueError:
            raise CommandError(Code.BAD_PLACE, f"`{name}` is not to be read: {_FORMS[name]}.", field=name) from None
    if (near := found.get("near")) is not None:
        found["near"] = Near(near[:2], near[2])
    return only(Area(**found))


def _numbers(text: str, count: int) -> tuple[float, ...]:
    numbers = tuple(map(float, text.split(",")))
    if len(numbers) != count:
        raise ValueError("another number of numbers")
    return numbers


_FORMS: Final = {
    "within": "it is a polygon as GeoJSON",
    "bbox": "it is west,south,east,north in degrees",
    "near": "it is longitude,latitude,meters",
}
