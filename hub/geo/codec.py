"""PostGIS's geometry as objects of shapely, over binary EWKB both ways."""

from __future__ import annotations

from typing import Any, Final

import shapely
from shapely.geometry import shape

WGS84: Final = 4326


async def set_codec(connection: Any, home: str) -> None:
    """Make geometry of `connection` go through shapely, where `home` is the schema that PostGIS lives in.

    Written are geometries of shapely, each with its SRID, and whatever has a `__geo_interface__`, which is in WGS 84.
    Raises ValueError where there is no such type.
    """
    await connection.set_type_codec("geometry", schema=home, encoder=encode, decoder=shapely.from_wkb, format="binary")


def encode(value: Any) -> bytes:
    """The EWKB of `value`."""
    if not isinstance(value, shapely.Geometry):
        value = shapely.set_srid(shape(value), WGS84)
    data: bytes = shapely.to_wkb(value, include_srid=True)
    return data
