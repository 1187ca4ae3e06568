"""Fences on what lies in the log: pages, history and the ring tell the same, and by an index."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from hub import snapshot
from hub.cursor import Cursor, Witness
from hub.event import Event
from hub.fanout.batches import Batch
from hub.fanout.ring import Ring
from hub.fence import Area, Fence, Near
from hub.geo.geometry import Geometry
from hub.postgres import log as logs
from hub.postgres import past
from hub.postgres.codecs import set_codecs
from hub.postgres.connect import Connection, Target, connect, pool
from hub.postgres.history import History
from hub.postgres.log import Log
from hub.postgres.places import Places
from hub.postgres.tail import PLAN
from hub.query import Query
from hub.selection import Selection, select
from hub.snapshot import NOTHING
from tests.postgres.conftest import opened

GEOMETRY = Geometry()
BEGINNING = Cursor(1, NOTHING)
COLUMNS = "id, xid::text::bigint AS xid, channel, payload::text, tags, published_at, place"
CORNER = GEOMETRY.fence(Area(bbox=(0.0, 0.0, 5.0, 5.0)))
CIRCLE = GEOMETRY.fence(Area(near=Near((5.0, 5.0), 300_000.0)))


@dataclass
class Read:
    """All ways to read a database with some events."""

    owner: Connection
    places: Places
    log: Log
    history: History


@pytest.fixture
async def read(database: str) -> AsyncIterator[Read]:
    places = Places(lambda: GEOMETRY)
    codecs = places.codecs(set_codecs)

    async def fresh() -> None:
        return

    async with (
        opened(Target(database)) as owner,
        pool(Target(database), min_size=0, max_size=4, settings=PLAN, codecs=codecs) as readers,
    ):
        await places.follow(owner, await places.look(places.keep(readers) and owner))
        log = Log(readers, fresh=fresh, places=places)
        yield Read(owner, places, log, History(readers, readers, places=places))


async def scatter(owner: Connection, count: int) -> None:
    """Points, lines and events without a place, on three channels, in transactions of ten."""
    dice = random.Random(7)
    for _ in range(count // 10):
        rows = []
        for _ in range(10):
            x, y = dice.uniform(-2, 12), dice.uniform(-2, 12)
            line = f"LINESTRING({x} {y},{x + 1} {y + 1})"
            place = dice.choice((f"SRID=4326;POINT({x} {y})", f"SRID=4326;POINT({x} {y})", "SRID=4326;" + line, None))
            rows.append((dice.choice(("fleet", "fleet.a", "other")), place))
        await owner.execute(
            "SELECT hub.publish(channel, '1', place => place::gis.geometry) FROM unnest($1::text[], $2::text[])"
            " AS t (channel, place)",
            *map(list, zip(*rows, strict=True)),
        )


async def now(owner: Connection) -> Cursor:
    row = await owner.fetchrow(
        "SELECT pg_current_snapshot()::text AS seen, (SELECT max(xid::text::bigint) FROM hub.events) AS last"
    )
    assert row is not None
    return Cursor(1, snapshot.parse(row["seen"]).tightened(row["last"]), Witness(row["last"], 1, 1))


async def all_events(read: Read) -> list[Event]:
    rows = await read.owner.fetch(f"SELECT {COLUMNS} FROM hub.placed ORDER BY id")
    return [read.places.read(row) for row in rows]


def inside(events: list[Event], fence: Fence, *channels: str) -> list[bytes]:
    return [
        event.json
        for event in events
        if event.channel in channels and event.place is not None and fence.hits(event.place)
    ]


async def paged(read: Read, selection: Selection) -> list[bytes]:
    position, upper, found = BEGINNING, await now(read.owner), list[bytes]()
    while position != upper:
        page = await read.log.page(selection, position, upper)
        assert page.position != position
        position, found = page.position, [*found, *(event.json for event in page.events)]
    return found


@pytest.mark.parametrize("fence", [CORNER, CIRCLE], ids=["box", "circle"])
async def test_log_history_and_ring_tell_what_testing_each_tells(
    read: Read, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scatter(read.owner, 400)
    events = await all_events(read)
    expected = inside(events, fence, "fleet", "fleet.a")
    assert 20 < len(expected) < 300
    monkeypatch.setattr(logs, "_WINDOW", 70)
    selection = select(["fleet", "fleet.*"], fence=fence)
    assert await paged(read, selection) == expected
    query = Query(select(["fleet", "fleet.*"]), fence=fence, limit=1000)
    assert [event.json for event in (await read.history.page(query)).events] == expected
    ring = Ring(1 << 20, BEGINNING)
    ring.append(Batch(1, BEGINNING, await now(read.owner)), events)
    page = ring.page(selection, BEGINNING, await now(read.owner))
    assert [event.json for event in page.events] == expected


async def test_names_with_fences_and_names_without_are_read_together(read: Read) -> None:
    await scatter(read.owner, 200)
    events = await all_events(read)
    selection = select(["fleet"], fence=CORNER).merged(select(["other"])).merged(select(["fleet.*"], fence=CIRCLE))
    either = {*inside(events, CORNER, "fleet"), *inside(events, CIRCLE, "fleet.a")}
    assert await paged(read, selection) == [e.json for e in events if e.channel == "other" or e.json in either]


@pytest.mark.parametrize("count", [1, 7, 1000])
@pytest.mark.parametrize("names", [["fleet"], ["fleet", "fleet.*", "none.**"]], ids=["name", "patterns"])
async def test_the_newest_are_the_newest_inside(read: Read, count: int, names: list[str]) -> None:
    await scatter(read.owner, 200)
    channels = ["fleet", "fleet.a"][: len(names)]
    expected = inside(await all_events(read), CORNER, *channels)
    upper = await now(read.owner)
    behind = await read.log.newest(select(names, fence=CORNER), count, upper)
    start = upper.back_at(NOTHING).inside(upper, behind)
    page = await read.log.page(select(names, fence=CORNER), start, upper)
    assert [event.json for event in page.events] == expected[-count:]


async def test_a_page_with_great_places_is_cut_as_one_with_great_payloads_is(read: Read) -> None:
    """1,000 points are 16 KB; and the place of an event counts as its payload does."""
    line = "(SELECT gis.st_makeline(gis.st_point(n / 1000.0, 1, 4326)) FROM generate_series(1, 1000) AS n)"
    for _ in range(12):
        await read.owner.execute(f"SELECT hub.publish('fleet', '1', place => {line})")
    page = await read.log.page(select(["fleet"], fence=CORNER), BEGINNING, await now(read.owner))
    assert 0 < len(page.events) < 5
    assert len(await paged(read, select(["fleet"], fence=CORNER))) == 12


async def test_history_inside_of_a_fence_is_found_by_the_index_of_places(read: Read) -> None:
    await scatter(read.owner, 100)
    upper = await now(read.owner)
    for of in (past.page_of, past.rows_of):
        query = Query(select(["fleet"]), fence=CORNER, limit=10)
        statement, arguments = of(query, BEGINNING, upper, 0, read.places.source)
        async with read.owner.transaction():
            await read.owner.execute("; ".join(f"SET LOCAL {name} = {value}" for name, value in PLAN.items()))
            plan = await explained(read.owner, statement, arguments)
        assert "Index Scan using places_by_place" in plan


async def test_a_replay_looks_up_the_places_of_its_window_and_no_others(read: Read) -> None:
    """Else each page would go through all places of the log."""
    await scatter(read.owner, 100)
    seen = str((await now(read.owner)).snapshot)
    for name, value in PLAN.items():
        await read.owner.execute(f"SET {name} = {value}")
    for analysed in (False, True):
        if analysed:
            await read.owner.execute("ANALYZE hub.events, hub.places")
        arguments = [["fleet"], 0, 20, "1:1:", seen, None, [CORNER.wkb]]
        plan = await explained(read.owner, logs._page_fenced("gis"), arguments)
        assert "Index Cond: ((xid = events.xid) AND (id = events.id))" in plan


async def explained(connection: Connection, statement: str, arguments: list[Any]) -> str:
    rows = await connection.fetch("EXPLAIN " + statement, *arguments)
    return "\n".join(row[0] for row in rows)


async def test_a_place_may_be_read_on_a_connection_that_has_learnt_nothing(read: Read, database: str) -> None:
    """One that was in use when PostGIS came brings text."""
    await scatter(read.owner, 30)
    connection = await connect(Target(database), purpose="test")
    rows = await connection.fetch(f"SELECT {COLUMNS} FROM hub.placed ORDER BY id")
    await connection.close()
    assert [read.places.read(row).json for row in rows] == [event.json for event in await all_events(read)]
