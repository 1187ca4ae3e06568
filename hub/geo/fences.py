"""Fences as shapely has them: one alone, and many in a tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
import shapely
import structlog
from shapely import STRtree

from hub.fence import Fence
from hub.geo.codec import encode

log = structlog.get_logger()


class Shape:
    """A fence. Two of the same shape are one object, prepared once, as long as anybody has it: `of` sees to that."""

    __slots__ = ("__weakref__", "points", "shape", "wkb")
    _known: ClassVar[WeakValueDictionary[bytes, Shape]] = WeakValueDictionary()

    def __init__(self, shape: Any, wkb: bytes) -> None:
        self.shape = shape
        self.wkb = wkb
        self.points = int(shapely.get_num_coordinates(shape))
        shapely.prepare(shape)

    @classmethod
    def of(cls, shape: Any) -> Shape:
        """The fence of this shape, whatever vertex it begins with and whichever way it goes round."""
        normal = shapely.normalize(shape)
        wkb = encode(normal)
        found = cls._known.get(wkb)
        if found is None:
            found = cls._known[wkb] = cls(normal, wkb)
        return found

    def hits(self, place: Any) -> bool:
        try:
            return bool(shapely.intersects(self.shape, place))
        except shapely.errors.GEOSException as error:  # nobody is to be cut off for somebody's odd place
            log.warning("place_unreadable", reason=str(error))
            return False


class Tree:
    """Finds which of many fences places hit: those whose boxes do, in one look, and of these the prepared shapes.

    It is built when it is asked and fences have come or gone since.
    """

    def __init__(self) -> None:
        self._added: Counter[Fence] = Counter()
        self._fences: list[Any] = []
        self._shapes: Any = None
        self._tree: STRtree | None = None

    def __repr__(self) -> str:
        return f"<Tree fences={len(self._added)} {'built' if self._tree else 'stale'}>"

    def add(self, fence: Fence) -> None:
        self._added[fence] += 1
        if self._added[fence] == 1:
            self._tree = None

    def remove(self, fence: Fence) -> None:
        self._added[fence] -= 1
        if not self._added[fence]:
            del self._added[fence]
            self._tree = None

    def around(self, places: Sequence[Any]) -> list[list[Fence]]:
        found: list[list[Fence]] = [[] for _ in places]
        if self._tree is None:
            self._build()
        assert self._tree is not None
        near, candidates = self._tree.query(np.array(places, dtype=object))
        hit = self._hit(candidates, np.array(places, dtype=object)[near])
        for place, candidate in zip(near[hit].tolist(), candidates[hit].tolist(), strict=True):
            found[place].append(self._fences[candidate])
        return found

    def _hit(self, candidates: Any, places: Any) -> Any:
        try:
            return shapely.intersects(self._shapes[candidates], places)
        except shapely.errors.GEOSException:  # of one of them: each by itself
            pairs = zip(candidates.tolist(), places.tolist(), strict=True)
            return np.array([self._fences[candidate].hits(place) for candidate, place in pairs], dtype=bool)

    def _build(self) -> None:
        self._fences = list(self._added)
        self._shapes = np.array([fence.shape for fence in self._fences], dtype=object)
        self._tree = STRtree(self._shapes)
