"""Fences and places at the door: what is refused, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hub.geo.geometry import Geometry
from tests.web.conftest import Site

POINT = {"type": "Point", "coordinates": [1, 2]}


@pytest.fixture
async def placed(start: Callable[..., Any]) -> Site:
    """A site of a hub that knows geometry."""
    return await start(geometry=Geometry())


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("bbox=1,2,3", "bbox"),
        ("bbox=a,b,c,d", "bbox"),
        ("near=1,2", "near"),
        ("near=1,89.9999,1000", "near"),
        ("within={", "within"),
        ('within={"type":"Point","coordinates":[1,2]}', "within"),
        ("bbox=1,2,3,4&bbox=1,2,3,4", "bbox"),
        ("bbox=1,2,3,4&near=1,2,3", "near"),
    ],
)
async def test_a_fence_that_is_none_is_refused_everywhere(placed: Site, query: str, field: str) -> None:
    """As a page, live, and by the websocket; the field says what is wrong."""
    for accept in ("application/json", "text/event-stream"):
        url = f"{placed.url}/events?channel=a&{query}"
        async with placed.http.get(url, headers={"Accept": accept}) as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["field"]) == (400, field), error
    peer = await placed.connect(f"/ws?channel=a&{query}")
    assert (await peer.receive())["type"] == "welcome"
    refused = await peer.receive()
    assert (refused["type"], f"`{field}`" in refused["message"]) == ("error", True)
    await peer.socket.close()


async def test_a_client_may_have_so_many_points_in_all_its_fences(placed: Site) -> None:
    """Two of the greatest, and the same one again costs nothing."""
    peer = await placed.connect()
    await peer.receive()
    for number in (1, 1, 2):
        reply = await peer.ask(type="subscribe", id=1, channels=[f"a{number}"], within=polygon(number))
        assert reply["type"] == "subscribed", reply
    reply = await peer.ask(type="subscribe", id=1, channels=["b"], bbox=[0, 0, 1, 1])
    assert (reply["code"], "20005 points" in reply["message"]) == ("too_many", True)
    await peer.ask(type="unsubscribe", id=2, channels=["a1"])
    reply = await peer.ask(type="subscribe", id=1, channels=["b"], bbox=[0, 0, 1, 1])
    assert reply["type"] == "subscribed"
    await peer.socket.close()


def polygon(shift: int) -> dict[str, Any]:
    """One of 10,000 points."""
    there = [[number / 1000, shift] for number in range(5000)]
    back = [[number / 1000, shift + 1] for number in reversed(range(4999))]
    return {"type": "Polygon", "coordinates": [[*there, *back, there[0]]]}


async def test_a_place_is_handed_on_as_a_geometry(placed: Site) -> None:
    peer = await placed.connect()
    await peer.receive()
    command = {"type": "publish", "id": 1, "channel": "a", "payload": 1}
    assert (await peer.ask(**command, place=POINT))["type"] == "published"
    async with placed.http.post(placed.url + "/events", json={"channel": "a", "payload": 1, "place": POINT}) as answer:
        assert answer.status == 201
    assert [event[-1].wkt for event in placed.publisher.published] == ["POINT (1 2)"] * 2
    for wrong in (7, {"type": "Point"}):
        refused = await peer.ask(**command, place=wrong)
        assert refused["code"] == "bad_place"
    refused = await peer.ask(**command, place=POINT, durable=False)
    assert (refused["code"], "`place` goes with durable events only" in refused["message"]) == ("bad_request", True)
    body = [{"channel": "a", "payload": 1}, {"channel": "a", "payload": 1, "place": 7}]
    async with placed.http.post(placed.url + "/events", json=body) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["field"]) == (400, "bad_place", "[1].place")
    await peer.socket.close()


async def test_a_hub_without_geometry_says_what_it_lacks(site: Site) -> None:
    peer = await site.connect()
    assert "geo" not in (await peer.receive())["features"]
    for command in (
        {"type": "subscribe", "channels": ["a"], "bbox": [0, 0, 1, 1]},
        {"type": "publish", "channel": "a", "payload": 1, "place": POINT},
    ):
        refused = await peer.ask(id=1, **command)
        assert (refused["code"], "pghub[geo]" in refused["message"]) == ("unsupported", True)
    async with site.http.get(site.url + "/events?bbox=0,0,1,1") as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["field"]) == (400, "unsupported", "bbox")
    await peer.socket.close()
