"""The past over HTTP, through a whole hub."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import signal
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from hub import service
from hub.postgres.embedded import Embedded
from tests.conftest import running
from tests.e2e.test_durable import Follower
from tests.e2e.test_watched import connected

LINES = {"Accept": "application/x-ndjson"}
CSV = {"Accept": "text/csv"}
FILL = "INSERT INTO hub.events (channel, payload, tags) SELECT {}, {}, '{{x}}' FROM generate_series(1, {}) AS n"


async def ask(http: aiohttp.ClientSession, url: str, **parameters: Any) -> dict[str, Any]:
    async with http.get(url + "/events", params=parameters) as answer:
        assert answer.status == 200, await answer.text()
        return orjson.loads(await answer.read())


async def lines(http: aiohttp.ClientSession, url: str, **parameters: Any) -> list[Any]:
    async with http.get(url + "/events", params=parameters, headers=LINES) as answer:
        assert answer.status == 200, await answer.text()
        return [orjson.loads(line) async for line in answer.content]


def ids(events: list[dict[str, Any]]) -> list[int]:
    return [event["id"] for event in events]


async def test_pages_stream_and_websocket_tell_the_same(hub: Any) -> None:
    """A page's cursor is where the next begins, or a subscribe; the last one is empty."""
    async with connected(hub.dsn) as owner, aiohttp.ClientSession() as http:
        await owner.execute(FILL.format("'a.' || n % 3", "to_jsonb(n)", 50))
        streamed = await lines(http, hub.url)
        found: list[Any] = []
        page: dict[str, Any] = await ask(http, hub.url, limit=7)
        first = page["cursor"]
        while page["events"]:
            found += page["events"]
            page = await ask(http, hub.url, limit=7, since=page["cursor"])
        assert [event["payload"] for event in found] == list(range(1, 51))
        assert found == streamed
        follower = await Follower(["**"], since=first).connect(hub)
        while len(follower.events) < 43:
            await follower.take()
        assert [event["id"] for event in follower.events] == ids(found)[7:]
        await follower.socket.close()
        await owner.execute("SELECT hub.publish('a.1', '51')")
        later = await ask(http, hub.url, since=page["cursor"])
        assert [event["payload"] for event in later["events"]] == [51]


async def test_csv_by_copy(hub: Any) -> None:
    payload = {"text": 'a "quoted", text\n', "n": None}
    async with connected(hub.dsn) as owner, aiohttp.ClientSession() as http:
        await owner.execute("SELECT hub.publish('a', $1::text::jsonb, '{x,\"y,z\"}')", orjson.dumps(payload).decode())
        await owner.execute("SELECT hub.publish('b', '1')")
        (event,) = await lines(http, hub.url, channel="a", tag="y,z")
        async with http.get(hub.url + "/events?channel=a&tag=y,z", headers=CSV) as answer:
            assert (answer.content_type, answer.headers["Transfer-Encoding"]) == ("text/csv", "chunked")
            (row,) = csv.DictReader(io.StringIO(await answer.text(), newline=""))
    assert list(row) == ["id", "channel", "at", "payload", "tags"]
    assert (int(row["id"]), row["channel"], row["at"]) == (event["id"], "a", event["at"])
    assert orjson.loads(row["payload"]) == payload == event["payload"]
    assert orjson.loads(row["tags"]) == event["tags"] == ["x", "y,z"]


async def status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """The status of a request for a page that has to be searched for, and is empty."""
    writer.write(b"GET /events?tag=none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    found = int(answer.split()[1])
    assert (b"Retry-After" in answer) == (found == 503)
    return found


async def test_a_full_pool_is_a_503_and_the_live_go_on(database: str) -> None:
    """2,000 requests at once on twenty connections, which are all; a subscriber gets its events meanwhile."""
    service.raise_file_limit()
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(running(database, pool_min=20, pool_max=20, pool_timeout=0.5))
        owner = await stack.enter_async_context(connected(database))
        await owner.execute(FILL.format("'a'", "to_jsonb(n)", 20_000))
        follower = await Follower(["live"]).connect(hub)
        stack.push_async_callback(follower.socket.close)
        host, port = hub.url.removeprefix("http://").split(":")
        clients = await asyncio.gather(*(asyncio.open_connection(host, port) for _ in range(2_000)))
        # A connection is accepted a turn of the loop: when this one has been, so have those before it.
        async with aiohttp.request("GET", hub.url + "/healthz") as last:
            assert last.status == 200
        requests = asyncio.gather(*(status(*client) for client in clients))
        most = sent = 0
        while not requests.done():  # each round waits for Postgres and for an event that comes back
            busy = await owner.fetch(
                "SELECT state <> 'idle' AS busy FROM pg_stat_activity "
                "WHERE application_name = 'pghub pool' AND datname = current_database()"
            )
            assert len(busy) <= 20
            most = max(most, sum(row["busy"] for row in busy))
            await owner.execute("SELECT hub.publish('live', '1')")
            sent += 1
            while len(follower.events) < sent:
                await follower.take()
        assert set(await requests) == {200, 503}
        assert 1 <= most <= 20


@pytest.mark.parametrize("headers", [LINES, CSV])
async def test_postgres_dying_in_the_middle_is_no_short_stream(data_dir: Path, headers: dict[str, str]) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Embedded(data_dir))
        hub = await stack.enter_async_context(running(server.dsn))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        async with connected(server.dsn) as owner:
            await owner.execute(FILL.format("'a'", "to_jsonb(repeat('x', 2000))", 20_000))
        answer = await http.get(hub.url + "/events", headers=headers)
        assert answer.status == 200
        await answer.content.readany()
        os.kill(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
        await server.stop()
        await server.start()


async def test_a_slow_reader_holds_back_postgres_and_one_that_leaves_lets_go(hub: Any) -> None:
    async with connected(hub.dsn) as owner, aiohttp.ClientSession() as http:
        await owner.execute(FILL.format("'a'", "to_jsonb(repeat('x', 2000))", 20_000))
        answer = await http.get(hub.url + "/events", headers=CSV)
        state = "SELECT wait_event FROM pg_stat_activity WHERE application_name = 'pghub stream' AND state = 'active'"
        async with asyncio.timeout(20):
            while await owner.fetchval(state) != "ClientWrite":  # Postgres gives no signal
                await asyncio.sleep(0.05)
            answer.close()
            while await owner.fetchval(state) is not None:
                await asyncio.sleep(0.05)


async def test_what_retention_has_taken_and_another_log_are_told(hub: Any) -> None:
    async with connected(hub.dsn) as owner, aiohttp.ClientSession() as http:
        await owner.execute("SELECT hub.publish('a', '1')")
        cursor = (await ask(http, hub.url))["cursor"]
        await owner.execute("SELECT hub.publish('a', '2')")
        await owner.execute("SELECT hub.publish('a', '3')")
        await owner.execute(
            "WITH gone AS (DELETE FROM hub.events WHERE payload IN ('1', '2') RETURNING xid)"
            "UPDATE hub.log SET horizon = (SELECT (max(xid::text::bigint) + 1)::text::xid8 FROM gone)"
        )
        page = await ask(http, hub.url, since=cursor)
        assert (page["gap"], [event["payload"] for event in page["events"]]) == ("expired", [3])
        assert "gap" not in await ask(http, hub.url, since=page["cursor"])
        await owner.execute("TRUNCATE hub.events")
        await owner.execute("SELECT hub.publish('a', '4')")
        page = await ask(http, hub.url, since=cursor)
        assert (page["gap"], [event["payload"] for event in page["events"]]) == ("reset", [4])


async def test_from_to_until_and_last(hub: Any) -> None:
    async with connected(hub.dsn) as owner, aiohttp.ClientSession() as http:
        for number in range(4):
            await owner.execute("SELECT hub.publish('a', $1::int::text::jsonb)", number)
        page = await ask(http, hub.url, limit=2)
        whole = await ask(http, hub.url)
        await owner.execute("SELECT hub.publish('a', '9')")
        second = await owner.fetchval("SELECT published_at FROM hub.events WHERE payload = '1'")
        between = await ask(
            http, hub.url, **{"from": second.isoformat(), "to": (second + timedelta(hours=1)).isoformat(), "last": 2}
        )
        assert [event["payload"] for event in between["events"]] == [3, 9]
        times = {"from": second.isoformat(), "to": (second + timedelta(hours=1)).isoformat()}
        assert [event["payload"] for event in await lines(http, hub.url, **times)] == [1, 2, 3, 9]
        async with http.get(hub.url + "/events", params=times, headers=CSV) as answer:
            assert [row["payload"] for row in csv.DictReader(io.StringIO(await answer.text()))] == ["1", "2", "3", "9"]
        for until, payloads in ((page["cursor"], [0, 1]), (whole["cursor"], [0, 1, 2, 3])):
            assert [event["payload"] for event in await lines(http, hub.url, until=until)] == payloads
            found = await ask(http, hub.url, until=until)
            assert ([event["payload"] for event in found["events"]], found["cursor"]) == (payloads, until)
            assert (await ask(http, hub.url, since=until, until=until))["events"] == []
        rest = await lines(http, hub.url, since=page["cursor"], limit=2)
        assert [event["payload"] for event in rest] == [2, 3]


async def test_a_stream_has_its_cursor_before_it(hub: Any) -> None:
    async with connected(hub.dsn) as owner, aiohttp.ClientSession() as http:
        await owner.execute("SELECT hub.publish('a', '1')")
        async with http.get(hub.url + "/events", headers=LINES) as answer:
            await answer.read()
            cursor = answer.headers["Hub-Cursor"]
        assert (await ask(http, hub.url, since=cursor))["events"] == []
        async with http.get(hub.url + "/events?limit=1", headers=LINES) as answer:
            await answer.read()
            assert "Hub-Cursor" not in answer.headers
