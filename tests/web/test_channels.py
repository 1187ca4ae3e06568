"""What goes on, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hub import event
from hub.cursor import Cursor
from hub.snapshot import Snapshot

NOW = datetime(2026, 11, 1, 9, tzinfo=UTC)


async def listed(site: Any) -> list[dict[str, Any]]:
    async with site.http.get(site.url + "/channels") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        found: list[dict[str, Any]] = (await response.json())["channels"]
        return found


async def test_channels_are_listed_by_what_comes_on_them(site: Any) -> None:
    assert await listed(site) == []
    peer = await site.connect("/ws?channel=quiet&channel=busy&channel=all.*")
    assert [(await peer.receive())["type"] for _ in range(2)] == ["welcome", "subscribed"]
    fanout = site.ports.fanout
    position = Cursor(1, Snapshot(9, 9, ()))
    fanout.sink([event.durable(7, number, "busy", "1", (), NOW) for number in (1, 2)], position)
    fanout.sink([event.ephemeral('od"d', "1", NOW)])
    at = "2026-11-01T09:00:00Z"
    none = {"subscribers": 0, "rate": 0.0}
    assert await listed(site) == [
        none | {"channel": "busy", "subscribers": 1, "events": 2, "last": {"at": at, "id": 2}},
        none | {"channel": 'od"d', "events": 1, "last": {"at": at, "id": None}},
        none | {"channel": "quiet", "subscribers": 1, "events": 0, "last": None},
    ]


async def test_no_more_are_listed_than_can_be_read(site: Any) -> None:
    events = [event.ephemeral(f"c{number}", "1", NOW) for number in range(1_500)]
    site.ports.fanout.sink([*events, events[7]])
    found = await listed(site)
    assert len(found) == 1_000
    assert found[0]["channel"] == "c7"


@pytest.mark.parametrize(
    ("query", "accept", "status", "field"), [("?a=1", "*/*", 400, "a"), ("", "text/html", 406, "Accept")]
)
async def test_what_is_refused(site: Any, query: str, accept: str, status: int, field: str) -> None:
    async with site.http.get(site.url + "/channels" + query, headers={"Accept": accept}) as response:
        assert (response.status, (await response.json())["error"]["field"]) == (status, field)
