"""Circles on the earth, as polygons.

A vertex lies where one comes to that goes the radius along a geodesic of the WGS 84 ellipsoid: T. Vincenty, Direct and
Inverse Solutions of Geodesics on the Ellipsoid, Survey Review XXIII (1975), equations 1 to 11; good to a millimetre.
"""

from __future__ import annotations

from math import atan, atan2, cos, degrees, hypot, pi, radians, sin, tan
from typing import Final

CORNERS: Final = 128
"""Vertices of a circle: between them it is up to 0.03 % of the radius narrower than it should be, near a pole 0.3 %."""

_A: Final = 6_378_137.0  # metres
_F: Final = 1 / 298.257223563
_B: Final = _A * (1 - _F)
_ENOUGH: Final = 1e-12  # radians


def corners(longitude: float, latitude: float, meters: float) -> list[tuple[float, float]]:
    """The vertices, in degrees; longitudes go on beyond 180 and -180. No pole may be inside."""
    half = CORNERS // 2
    east = [_destination(longitude, latitude, pi * corner / half, meters) for corner in range(half + 1)]
    west = [(2 * longitude - there, north) for there, north in reversed(east[1:-1])]  # its mirror image
    return east + west


def holds_pole(latitude: float, meters: float) -> bool:
    """Whether a pole lies inside or so near that it cannot be told. A degree of latitude has 110,574 m at the least."""
    return abs(latitude) + meters / 110_574 >= 90


def _destination(longitude: float, latitude: float, azimuth: float, meters: float) -> tuple[float, float]:
    reduced = atan((1 - _F) * tan(radians(latitude)))
    sin_u, cos_u = sin(reduced), cos(reduced)
    sin_start, cos_start = sin(azimuth), cos(azimuth)
    sigma_1 = atan2(tan(reduced), cos_start)
    sin_alpha = cos_u * sin_start
    cos_sq = 1 - sin_alpha**2
    u_sq = cos_sq * (_A**2 - _B**2) / _B**2
    a = 1 + u_sq / 16384 * (4096 + u_sq * (-768 + u_sq * (320 - 175 * u_sq)))
    b = u_sq / 1024 * (256 + u_sq * (-128 + u_sq * (74 - 47 * u_sq)))
    sigma, before = meters / (_B * a), float("inf")
    while abs(sigma - before) > _ENOUGH:
        middle = cos(2 * sigma_1 + sigma)
        shift = middle * (-3 + 4 * sin(sigma) ** 2) * (-3 + 4 * middle**2)
        delta = b * sin(sigma) * (middle + b / 4 * (cos(sigma) * (-1 + 2 * middle**2) - b / 6 * shift))
        sigma, before = meters / (_B * a) + delta, sigma
    x = sin_u * sin(sigma) - cos_u * cos(sigma) * cos_start
    there = atan2(
        sin_u * cos(sigma) + cos_u * sin(sigma) * cos_start,
        (1 - _F) * hypot(sin_alpha, x),
    )
    turn = atan2(sin(sigma) * sin_start, cos_u * cos(sigma) - sin_u * sin(sigma) * cos_start)
    c = _F / 16 * cos_sq * (4 + _F * (4 - 3 * cos_sq))
    middle = cos(2 * sigma_1 + sigma)
    turn -= (1 - c) * _F * sin_alpha * (sigma + c * sin(sigma) * (middle + c * cos(sigma) * (-1 + 2 * middle**2)))
    return longitude + degrees(turn), degrees(there)
