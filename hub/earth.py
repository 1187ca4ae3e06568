"""Who knows geometry: the extra `geo`, which is loaded when it is first needed, and where nobody needs it never."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub.geo.geometry import Geometry


def is_installed() -> bool:
    """Whether there is somebody who does."""
    return find_spec("shapely") is not None


@cache
def geometry() -> Geometry:
    """The one who knows it. The first call takes some 0.1 s and 40 MB."""
    from hub.geo.geometry import Geometry

    return Geometry()
