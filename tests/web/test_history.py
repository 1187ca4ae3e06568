"""The past over HTTP, with nothing behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from hub.cursor import Cursor
from hub.errors import Code, CommandError
from hub.query import Query
from hub.selection import select
from hub.snapshot import NOTHING

LINES = {"Accept": "application/x-ndjson"}
CURSOR = str(Cursor(1, NOTHING))


async def test_a_page_is_json(site: Any) -> None:
    answer = await site.http.get(site.url + "/events")
    assert answer.content_type == "application/json"
    page = await answer.json()
    assert ([event["id"] for event in page["events"]], page["cursor"], len(page)) == ([1, 2], CURSOR, 2)
    site.past.gap = "expired"
    assert (await (await site.http.get(site.url + "/events")).json())["gap"] == "expired"
    assert site.past.asked == [Query()] * 2


async def test_what_is_asked_for(site: Any) -> None:
    times = "from=2026-11-22T09:00:00%2B01:00&to=2026-11-23"
    text = f"channel=a&channel=b.*&tag=x&tag=y&until={CURSOR}&{times}&last=7&limit=5"
    assert (await site.http.get(f"{site.url}/events?{text}")).status == 200
    begin, end = datetime(2026, 11, 22, 8, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)
    expected = Query(select(["a", "b.*"]), ("x", "y"), None, Cursor(1, NOTHING), begin, end, 7, 5)
    assert site.past.asked == [expected]


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/csv"])
async def test_all_of_it_is_a_stream(site: Any, accept: str) -> None:
    answer = await site.http.get(site.url + "/events", headers={"Accept": accept})
    assert (answer.content_type, answer.headers["Transfer-Encoding"]) == (accept, "chunked")
    assert answer.headers["Hub-Cursor"] == "abc"
    assert await answer.read() == b'{"id":1}\n{"id":2}\n{"id":3}\n'
    assert site.past.opened == 0


@pytest.mark.parametrize(
    ("parameters", "headers", "status", "code", "field"),
    [
        ("limit=0", {}, 400, "bad_request", "limit"),
        ("limit=1001", {}, 400, "bad_request", "limit"),
        ("limit=-1", {}, 400, "bad_request", "limit"),
        ("limit=1e3", {}, 400, "bad_request", "limit"),
        ("limit=%D9%A3", {}, 400, "bad_request", "limit"),
        ("limit=" + "9" * 5_000, {}, 400, "bad_request", "limit"),
        ("limit=1&limit=2", {}, 400, "bad_request", "limit"),
        ("last=1001", LINES, 400, "bad_request", "last"),
        (f"last=1&since={CURSOR}", {}, 400, "bad_request", "last"),
        ("since=", {}, 400, "bad_request", "since"),
        ("until=%00", {}, 400, "bad_request", "until"),
        ("from=now", {}, 400, "bad_request", "from"),
        ("from=2026-11-22T09:00:00+01:00", {}, 400, "bad_request", "from"),
        ("to=0001-01-01T00:00:00%2B14:00", {}, 400, "bad_request", "to"),
        ("from=2026-11-23&to=2026-11-22", {}, 400, "bad_request", "to"),
        ("channel=", {}, 400, "bad_channel", "channel"),
        ("channel=a%00", {}, 400, "bad_channel", "channel"),
        ("channel=a**", {}, 400, "bad_channel", "channel"),
        ("channel=$hub", {}, 403, "forbidden", "channel"),
        ("&".join(["tag=a"] * 33), {}, 400, "bad_request", "tag"),
        ("tag=%00", {}, 400, "bad_request", "tag"),
        ("tag=%ED%A0%80", {}, 400, "bad_request", None),
        ("channels=a", {}, 400, "bad_request", "channels"),
        ("", {"Accept": "text/html"}, 406, "not_acceptable", "Accept"),
        ("channel=unavailable", {}, 503, "unavailable", None),
        ("channel=unavailable", LINES, 503, "unavailable", None),
    ],
)
async def test_refusals_say_why(
    site: Any, parameters: str, headers: dict[str, str], status: int, code: str, field: str | None
) -> None:
    answer = await site.http.get(f"{site.url}/events?{parameters}", headers=headers)
    error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["field"]) == (status, code, field)
    assert error["message"]
    assert ("Retry-After" in answer.headers) == (status == 503)


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/csv"])
async def test_a_stream_that_breaks_off_has_no_end(site: Any, accept: str) -> None:
    async def broken() -> AsyncGenerator[list[bytes]]:
        yield [b'{"id":1}']
        raise CommandError(Code.UNAVAILABLE, "Gone.")

    site.past.batches = broken
    answer = await site.http.get(site.url + "/events", headers={"Accept": accept})
    with pytest.raises(aiohttp.ClientPayloadError):
        await answer.read()
    assert site.past.opened == 0


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/csv"])
async def test_a_stream_that_fails_before_its_first_event_is_refused_in_words(site: Any, accept: str) -> None:
    async def broken() -> AsyncGenerator[list[bytes]]:
        raise CommandError(Code.UNAVAILABLE, "Gone.")
        yield []

    site.past.batches = broken
    answer = await site.http.get(site.url + "/events", headers={"Accept": accept})
    assert (answer.status, (await answer.json())["error"]["message"]) == (503, "Gone.")


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/csv"])
async def test_who_reads_nothing_or_leaves_is_let_go(site: Any, accept: str) -> None:
    async def endless() -> AsyncGenerator[list[bytes]]:
        while True:
            yield [b"x" * 65_536]

    site.past.batches = endless
    host, port = site.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (host, int(port)))
        await loop.sock_sendall(client, f"GET /events HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n\r\n".encode())
        await loop.sock_recv(client, 10)
        async with asyncio.timeout(10):
            while site.past.opened:  # the server gives no signal
                await asyncio.sleep(0.05)
