"""Places and fences through whole hubs."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
from websockets.asyncio.client import connect

from hub import earth
from hub.client import follow
from hub.errors import CommandError
from hub.postgres.connect import Target
from hub.postgres.loading import copy_csv
from tests.conftest import running
from tests.e2e.test_durable import Follower
from tests.e2e.test_history import CSV, LINES
from tests.postgres.conftest import opened
from tests.web.events import Received

MANHATTAN = {
    "type": "Polygon",
    "coordinates": [[[-74.02, 40.70], [-73.97, 40.70], [-73.93, 40.80], [-73.96, 40.82], [-74.02, 40.70]]],
}
EMPIRE_STATE = {"type": "Point", "coordinates": [-73.9857, 40.7484]}
LIBERTY = {"type": "Point", "coordinates": [-74.0445, 40.6892]}
INSIDE, OUTSIDE = (-73.9857, 40.7484), (-74.0445, 40.6892)
FENCES: dict[str, Any] = {
    "within": MANHATTAN,
    "bbox": [-74.02, 40.70, -73.93, 40.82],
    "near": {"point": [-73.98, 40.75], "meters": 1500},
}
URLS = {
    "within": orjson.dumps(MANHATTAN).decode(),
    "bbox": "-74.02,40.70,-73.93,40.82",
    "near": "-73.98,40.75,1500",
}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def publish(producer: asyncpg.Connection, payload: object, place: tuple[float, float] | None = None) -> None:
    await producer.execute(
        "SELECT hub.publish('fleet', $1::jsonb, place => ST_SetSRID(ST_MakePoint($2, $3), 4326))",
        orjson.dumps(payload).decode(),
        *(place or (None, None)),
    )


async def publish_all(producer: asyncpg.Connection, *, upto: str) -> None:
    """One inside, one outside, one without a place; then one inside that ends the wait."""
    await publish(producer, f"{upto} inside", INSIDE)
    await publish(producer, f"{upto} outside", OUTSIDE)
    await publish(producer, f"{upto} nowhere")
    await publish(producer, upto, INSIDE)


async def ask(hub: Any, **command: Any) -> dict[str, Any]:
    """The reply to one command."""
    async with connect(hub.ws) as socket:
        await socket.recv()
        await socket.send(orjson.dumps({"id": 1} | command).decode())
        return orjson.loads(await socket.recv())


@pytest.mark.parametrize("way", FENCES)
async def test_a_fence_lets_through_what_happens_inside(hub: Any, producer: asyncpg.Connection, way: str) -> None:
    await publish_all(producer, upto="before")
    follower = await Follower(["fleet"]).connect(hub, last=2, **{way: FENCES[way]})
    await publish_all(producer, upto="after")
    assert await follower.until("after") == ["before inside", "before", "after inside", "after"]
    assert [event["place"] for event in follower.events] == [EMPIRE_STATE] * 4
    assert follower.subscribed["ephemeral"] == []


async def test_without_a_fence_all_comes_and_what_has_a_place_says_where(
    hub: Any, producer: asyncpg.Connection
) -> None:
    follower = await Follower(["fleet"]).connect(hub)
    await publish_all(producer, upto="end")
    await follower.until("end")
    assert [event.get("place") for event in follower.events] == [EMPIRE_STATE, LIBERTY, None, EMPIRE_STATE]


async def test_welcome_says_that_there_are_places(hub: Any) -> None:
    async with connect(hub.ws) as socket:
        assert orjson.loads(await socket.recv())["features"] == ["log", "publish", "geo"]


async def test_a_client_that_comes_back_gets_what_happened_inside_meanwhile(
    hub: Any, producer: asyncpg.Connection
) -> None:
    """From the ring of this hub, and from the log, which is all that another one has."""
    follower = await Follower(["fleet"]).connect(hub, within=MANHATTAN)
    await follower.socket.close()
    await publish_all(producer, upto="away")
    since = follower.since
    await follower.connect(hub, within=MANHATTAN)
    assert await follower.until("away") == ["away inside", "away"]
    await follower.socket.close()
    async with running(hub.dsn) as another:
        again = await Follower(["fleet"], since).connect(another, within=MANHATTAN)
        assert await again.until("away") == ["away inside", "away"]
        assert again.events == follower.events
        await again.socket.close()


async def test_a_place_goes_in_by_the_websocket_too(hub: Any) -> None:
    follower = await Follower(["fleet"]).connect(hub, bbox=FENCES["bbox"])
    for place in (LIBERTY, EMPIRE_STATE, None):
        reply = await ask(hub, type="publish", channel="fleet", payload=place, place=place)
        assert reply["type"] == "published"
    assert await follower.until(EMPIRE_STATE) == [EMPIRE_STATE]


async def test_a_place_goes_in_by_http_too(hub: Any, http: aiohttp.ClientSession) -> None:
    """One event, or several; with a key or without."""
    follower = await Follower(["fleet"]).connect(hub, bbox=FENCES["bbox"])
    for place in (LIBERTY, EMPIRE_STATE):
        event = {"channel": "fleet", "payload": place, "place": place}
        async with http.post(hub.url + "/events", json=event) as answer:
            assert answer.status == 201, await answer.text()
        async with http.post(hub.url + "/events", json=[event, event | {"key": f"{place}", "payload": 2}]) as answer:
            assert answer.status == 201, await answer.text()
        async with http.post(hub.url + "/events", json=event | {"key": f"{place}", "payload": 3}) as answer:
            assert answer.status == 201, await answer.text()
        async with http.post(hub.url + "/events?atomic=false", json=[event | {"payload": "end"}]) as answer:
            assert answer.status == 207, await answer.text()
    assert await follower.until("end") == [EMPIRE_STATE, EMPIRE_STATE, 2, "end"]


@pytest.mark.parametrize("way", URLS)
async def test_history_is_of_what_has_happened_inside(
    hub: Any, producer: asyncpg.Connection, http: aiohttp.ClientSession, way: str
) -> None:
    """A page, all as lines, all as CSV."""
    await publish_all(producer, upto="end")
    query = {"channel": "fleet", way: URLS[way]}
    async with http.get(hub.url + "/events", params=query) as answer:
        page = await answer.json()
        assert [event["payload"] for event in page["events"]] == ["end inside", "end"]
    async with http.get(hub.url + "/events", params=query | {"last": "1"}) as answer:
        assert [event["payload"] for event in (await answer.json())["events"]] == ["end"]
    async with http.get(hub.url + "/events", params=query, headers=LINES) as answer:
        assert [orjson.loads(line) async for line in answer.content] == page["events"]
    async with http.get(hub.url + "/events", params=query, headers=CSV) as answer:
        rows = list(csv.DictReader(io.StringIO(await answer.text())))
        assert [orjson.loads(row["place"]) for row in rows] == [EMPIRE_STATE, EMPIRE_STATE]


async def test_server_sent_events_come_from_inside(
    hub: Any, producer: asyncpg.Connection, http: aiohttp.ClientSession
) -> None:
    await publish_all(producer, upto="before")
    query = {"channel": "fleet", "bbox": URLS["bbox"], "last": "1"}
    received = Received()
    async with http.get(hub.url + "/events", params=query, headers={"Accept": "text/event-stream"}) as answer:
        assert await payloads(answer, received, until="before") == ["before"]
        await publish_all(producer, upto="after")
        assert await payloads(answer, received, until="after") == ["before", "after inside", "after"]


async def payloads(answer: aiohttp.ClientResponse, received: Received, *, until: str) -> list[Any]:
    """Read until this payload has come; all payloads so far."""
    async with asyncio.timeout(10):
        while until not in (found := [event["payload"] for frame in received.frames for event in frame["events"]]):
            received.feed(await answer.content.readany())
    return found


async def test_postgis_may_come_and_go(server: str, blank: str, http: aiohttp.ClientSession) -> None:
    """Whoever makes the extension tells the hub, or waits a minute; nothing is to be started anew."""
    async with opened(Target(blank)) as owner, running(blank) as hub:
        refused = await ask(hub, type="subscribe", channels=["fleet"], bbox=FENCES["bbox"])
        assert (refused["code"], "PostGIS" in refused["message"]) == ("unsupported", True)
        await owner.execute('CREATE SCHEMA "The Earth"; CREATE EXTENSION postgis SCHEMA "The Earth"')
        await owner.execute("SELECT hub.enable_places(), hub.publish('fleet', '1')")
        plain = await Follower(["fleet"]).connect(hub, last=1)
        await plain.until(1)
        follower = await Follower(["fleet"]).connect(hub, bbox=FENCES["bbox"])
        event = {"channel": "fleet", "payload": 2, "place": EMPIRE_STATE}
        async with http.post(hub.url + "/events", json=event) as answer:
            assert answer.status == 201, await answer.text()
        assert await follower.until(2) == [2]
        await owner.execute("DROP EXTENSION postgis CASCADE; SELECT hub.publish('fleet', '3')")
        assert await plain.until(3) == [1, 2, 3]
        refused = await ask(hub, type="subscribe", channels=["fleet"], bbox=FENCES["bbox"])
        assert refused["code"] == "unsupported"


async def test_a_watched_row_is_where_it_says_and_reads_as_it_is_told(
    hub: Any, producer: asyncpg.Connection, http: aiohttp.ClientSession
) -> None:
    await producer.execute("CREATE TABLE public.trucks (id int PRIMARY KEY, position geometry)")
    await producer.execute("SELECT hub.watch('public.trucks', place => 'position')")
    follower = await Follower(["trucks"]).connect(hub, within=MANHATTAN)
    for number, place in enumerate((INSIDE, OUTSIDE, INSIDE)):
        await producer.execute("INSERT INTO trucks VALUES ($1, st_point($2, $3, 4326))", number, *place)
    while len(follower.events) < 2:
        await follower.take()
    assert [event["payload"]["new"]["id"] for event in follower.events] == [0, 2]
    assert [event["place"] for event in follower.events] == [EMPIRE_STATE] * 2
    async with http.get(hub.url + "/watched/trucks") as answer:
        rows = (await answer.json())["rows"]
    assert [rows[0], rows[2]] == [event["payload"]["new"] for event in follower.events]


LINES_IN = [
    {"channel": "fleet", "payload": 1, "place": None},
    {"channel": "fleet", "payload": 2, "place": EMPIRE_STATE},
    {"channel": "fleet", "payload": 3},
    {"channel": "fleet", "payload": 4, "tags": ["a"], "place": LIBERTY},
]


async def load(hub: Any, http: aiohttp.ClientSession, lines: list[Any]) -> Any:
    body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    async with http.post(hub.url + "/events", data=body, headers={"Content-Type": "application/x-ndjson"}) as answer:
        return await answer.json()


async def test_lines_have_places_if_the_first_says_so(
    hub: Any, producer: asyncpg.Connection, http: aiohttp.ClientSession
) -> None:
    assert await load(hub, http, LINES_IN) == {"events": 4}
    found = await producer.fetch("SELECT payload, tags, st_asgeojson(place)::json AS place FROM hub.placed ORDER BY id")
    assert [orjson.loads(row["place"] or "null") for row in found] == [None, EMPIRE_STATE, None, LIBERTY]
    assert [row["tags"] for row in found] == [[], [], [], ["a"]]
    late = (await load(hub, http, [LINES_IN[2], *LINES_IN]))["error"]
    assert (late["code"], late["field"]) == ("bad_place", "line 3")
    wrong = (await load(hub, http, [*LINES_IN, LINES_IN[0] | {"place": {"type": "Point"}}]))["error"]
    assert (wrong["code"], wrong["field"]) == ("bad_place", "line 5")
    assert await producer.fetchval("SELECT count(*) FROM hub.events") == 4


async def test_a_csv_file_may_have_a_column_for_places(hub: Any, producer: asyncpg.Connection) -> None:
    async def chunks(text: str) -> AsyncIterator[bytes]:
        yield text.encode()

    async with opened(Target(hub.dsn)) as connection:
        text = "place,channel,payload\nPOINT(1 2),fleet,1\n,fleet,2\nSRID=3857;POINT(0 0),fleet,3\n"
        assert await copy_csv(connection, chunks(text)) == 3
        with pytest.raises(CommandError) as refused:
            await copy_csv(connection, chunks(text + "POINT(1),fleet,1\n"))
        assert (refused.value.code, refused.value.field) == ("bad_place", "line 5")
    found = await producer.fetch("SELECT st_asewkt(place) AS place FROM hub.placed ORDER BY id")
    assert [row["place"] for row in found] == ["SRID=4326;POINT(1 2)", None, "SRID=4326;POINT(0 0)"]


async def test_the_python_client_follows_what_happens_inside(hub: Any, producer: asyncpg.Connection) -> None:
    await publish_all(producer, upto="end")
    found = list[Any]()
    async with aclosing(follow(hub.ws, ["fleet"], last=10, fence={"near": FENCES["near"]})) as messages:
        async for message in messages:
            found += [orjson.loads(event)["payload"] for event in message.get("events", ())]
            if "end" in found:
                break
    assert found == ["end inside", "end"]


async def test_a_hub_without_the_extra_leaves_places_alone(
    database: str, producer: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may have it. Events come without their places, and what asks for a fence is refused."""
    monkeypatch.setattr(earth, "is_installed", lambda: False)
    async with running(database) as hub:
        refused = await ask(hub, type="subscribe", channels=["fleet"], bbox=FENCES["bbox"])
        assert refused["code"] == "unsupported"
        follower = await Follower(["fleet"]).connect(hub)
        await publish_all(producer, upto="end")
        assert await follower.until("end") == ["end inside", "end outside", "end nowhere", "end"]
        assert not [event for event in follower.events if "place" in event]
        await follower.socket.close()
