"""Who is connected, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hub import event
from hub.web.roster import Roster

NOW = datetime(2026, 11, 1, 9, tzinfo=UTC)


async def listed(site: Any, query: str = "") -> list[dict[str, Any]]:
    async with site.http.get(f"{site.url}/sessions{query}") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        found: list[dict[str, Any]] = (await response.json())["sessions"]
        return found


async def test_each_who_is_connected_is_told_and_how_far_it_is(site: Any) -> None:
    assert await listed(site) == []
    peer = await site.connect("/ws?channel=b&channel=a")
    welcome = await peer.receive()
    await peer.receive()
    site.ports.fanout.sink([event.ephemeral("a", "1", NOW), event.ephemeral("b", "2", NOW)])
    (told,) = await listed(site)
    since = datetime.fromisoformat(told.pop("since"))
    assert abs((datetime.now(UTC) - since).total_seconds()) < 60
    assert told == {
        "id": welcome["session"],
        "address": "127.0.0.1",
        "kind": "websocket",
        "subject": None,
        "channels": ["a", "b"],
        "subscriptions": 2,
        "position": "live",
        "buffer": 0,
        "lag": None,
        "deliveries": 2,
    }


async def test_live_streams_are_among_them(site: Any) -> None:
    headers = {"Accept": "text/event-stream"}
    async with site.http.get(site.url + "/events?channel=a", headers=headers) as stream:
        await stream.content.readline()
        (told,) = await listed(site)
        assert (told["kind"], told["channels"]) == ("sse", ["a"])
        assert (await site.http.delete(f"{site.url}/sessions/{told['id']}")).status == 204
        await stream.content.read()  # to its end
    assert await listed(site) == []


async def test_one_that_is_sent_off_is_told_not_to_come_back(site: Any) -> None:
    peer, other = await site.connect(), await site.connect()
    name = (await peer.receive())["session"]
    await other.receive()
    assert (await site.http.delete(f"{site.url}/sessions/{name}")).status == 204
    assert await peer.closed() == 1008
    assert len(await listed(site)) == 1
    answer = await site.http.delete(f"{site.url}/sessions/{name}")
    assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")
    assert site.ports.roster.closes == {"1008": 1}


async def test_no_more_are_told_than_are_asked_for_and_a_bad_number_is_refused(site: Any) -> None:
    peers = [await site.connect() for _ in range(3)]
    for peer in peers:
        await peer.receive()
    assert len(await listed(site, "?limit=2")) == 2
    for query, field in (("?limit=0", "limit"), ("?limit=1001", "limit"), ("?limit=", "limit"), ("?a=1", "a")):
        async with site.http.get(f"{site.url}/sessions{query}") as response:
            assert (response.status, (await response.json())["error"]["field"]) == (400, field)


@pytest.mark.parametrize(("code", "label"), [(1000, "1000"), (4401, "4401"), (3999, "other"), (None, "1006")])
def test_close_codes_that_clients_make_up_are_one(code: int | None, label: str) -> None:
    roster = Roster()
    roster.closed(code)
    assert roster.closes == {label: 1}


async def test_metrics_are_text_for_prometheus(site: Any) -> None:
    headers = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"}
    async with site.http.get(site.url + "/metrics", headers=headers) as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await response.text() == "# HELP pghub_tasks Tasks.\n"
