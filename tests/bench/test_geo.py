"""What places cost: to read them, and to find whose fences they hit."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import pytest
import shapely

from hub import event
from hub.fanout.fanout import Fanout
from hub.fanout.sessions import Join
from hub.fence import Area, Fence, Near
from hub.geo.codec import set_codec
from hub.geo.fences import Tree
from hub.geo.geometry import Geometry
from hub.postgres.connect import Connection, Target
from hub.selection import select
from tests.bench.table import show
from tests.fanout.test_fanout import NOW, Unread, turns
from tests.fanout.test_fences import position
from tests.geo.conftest import server as server
from tests.geo.conftest import template as template
from tests.postgres.conftest import opened

pytestmark = pytest.mark.bench

ROUNDS = 5
POINTS = 100_000
FENCES = 10_000
RATE = 1_000  # events a second
BATCH = 20  # events that the tail brings at a time, then
WAYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "binary, by the codec": ("place", lambda place: place),
    "ST_AsText, read by shapely": ("gis.st_astext(place)", shapely.from_wkt),
    "ST_AsGeoJSON, read by shapely": ("gis.st_asgeojson(place)", shapely.from_geojson),
}


@pytest.fixture
async def owner(database: str) -> AsyncIterator[Connection]:
    async with opened(Target(database)) as connection:
        await set_codec(connection, "gis")
        yield connection


async def test_reading_points(owner: Connection) -> None:
    await owner.execute("CREATE TABLE public.points (place gis.geometry)")
    await owner.execute(
        "INSERT INTO public.points SELECT gis.st_point(random() * 360 - 180, random() * 180 - 90, 4326)"
        f" FROM generate_series(1, {POINTS})"
    )
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    used: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, (column, read) in WAYS.items():
            began, before = time.perf_counter(), time.process_time()
            places = [read(row[0]) for row in await owner.fetch(f"SELECT {column} FROM public.points")]
            rates[way].append(POINTS / (time.perf_counter() - began))
            used[way].append(1e6 * (time.process_time() - before) / POINTS)
            assert len(places) == POINTS
            assert isinstance(places[0], shapely.Point)
    best = median(rates["binary, by the codec"])
    rows = [
        (way, f"{median(found):,.0f}", f"{median(found) / best:.2f}", f"{median(used[way]):.1f}")
        for way, found in rates.items()
    ]
    show(f"Reading {POINTS:,} points", ("", "rows a second", "of the codec's", "microseconds of CPU a row here"), rows)


class Turn:
    """Tests each fence in turn, as one would without a tree: prepared, one by one, or all by a call of shapely's."""

    def __init__(self, *, at_once: bool) -> None:
        self._fences: Counter[Any] = Counter()
        self._shapes: Any = None
        self._at_once = at_once

    def add(self, fence: Fence) -> None:
        self._fences[fence] += 1

    def remove(self, fence: Fence) -> None:
        del self._fences[fence]

    def around(self, places: Sequence[Any]) -> list[list[Fence]]:
        there = list(self._fences)
        if not self._at_once:
            return [[fence for fence in there if fence.hits(place)] for place in places]
        if self._shapes is None:
            self._shapes = np.array([fence.shape for fence in there], dtype=object)
        return [[there[hit] for hit in np.flatnonzero(shapely.intersects(self._shapes, place))] for place in places]


class Sink:
    """A client that takes all."""

    def write(self, data: bytes, /) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        pass


async def test_ten_thousand_fences() -> None:
    dice = random.Random(1)

    def somewhere() -> tuple[float, float]:
        return dice.uniform(-10, 30), dice.uniform(35, 60)

    geometry = Geometry()
    fences = [geometry.fence(Area(near=Near(somewhere(), 20_000.0))) for _ in range(FENCES)]
    rows = []
    for name, index, seconds in (
        ("a tree of prepared fences", Tree(), 5.0),
        ("each in turn, in one call for all", Turn(at_once=True), 0.5),
        ("each in turn, one by one", Turn(at_once=False), 0.1),
    ):
        fanout = Fanout(Unread(), max_buffer=1 << 20, fences=lambda index=index: index)
        fanout.start(position(0), [], position(0))
        for fence in fences:
            fanout.subscribe(fanout.open(Sink()), Join(1, ["fleet"], select(["fleet"], fence=fence)))
        used, number = 0.0, 0
        while number < RATE * seconds:
            batch = []
            for _ in range(BATCH):
                number += 1
                made = event.durable(number, number, "fleet", "1", (), NOW)
                point = shapely.Point(*somewhere())
                batch.append(event.placed(made, point, geometry.geojson(point)))
            began = time.process_time()
            fanout.sink(batch, position(number))
            await turns(10)
            used += time.process_time() - began
        rows.append((name, f"{fanout.deliveries / number:.1f}", f"{100 * used * RATE / number:,.1f} %"))
    show(f"{FENCES:,} fences of 128 points, {RATE:,} events a second", ("", "hits an event", "CPU"), rows)
