"""Watched tables over HTTP, with nothing behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Any

import aiohttp
import orjson
import pytest

from hub.errors import Code, CommandError

HEAD = {"table": "public.orders", "channel": "orders", "cursor": "abc"}
LINES = {"Accept": "application/x-ndjson"}


async def test_a_table_is_one_object_for_whoever_does_not_care(site: Any) -> None:
    answer = await site.http.get(site.url + "/watched/orders")
    assert (answer.content_type, answer.headers["Transfer-Encoding"]) == ("application/json", "chunked")
    assert await answer.json() == HEAD | {"rows": [{"id": 1}, {"id": 2}, {"id": 3}]}
    assert site.watched.opened == 0


async def test_or_a_line_for_the_head_and_each_row(site: Any) -> None:
    answer = await site.http.get(site.url + "/watched/orders", headers=LINES)
    assert answer.content_type == "application/x-ndjson"
    assert await answer.read() == orjson.dumps(HEAD) + b'\n{"id":1}\n{"id":2}\n{"id":3}\n'


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_a_table_without_rows(site: Any, accept: str) -> None:
    async def none() -> AsyncGenerator[list[bytes]]:
        for batch in ():
            yield batch

    site.watched.batches = none
    body = await (await site.http.get(site.url + "/watched/orders", headers={"Accept": accept})).read()
    assert orjson.loads(body) == (HEAD if "x-ndjson" in accept else HEAD | {"rows": []})
    assert body.count(b"\n") == (1 if "x-ndjson" in accept else 2)


async def test_the_list(site: Any) -> None:
    answer = await site.http.get(site.url + "/watched")
    assert await answer.json() == {
        "tables": [{"table": "public.orders", "channel": "orders", "key": ["id"], "columns": ["id"]}]
    }


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "json"),
        ("application/*", "json"),
        ("application/x-ndjson, application/json", "json"),
        ("application/x-ndjson, */*", "x-ndjson"),
        ("application/json;q=0.5, application/x-ndjson;q=0.8", "x-ndjson"),
        ("Application/X-NDJSON ; q=1", "x-ndjson"),
        ("application/json;q=0, */*", "x-ndjson"),
        ("text/html, */*;q=0.1", "json"),
    ],
)
async def test_the_accept_header_decides(site: Any, accept: str, kind: str) -> None:
    answer = await site.http.get(site.url + "/watched/orders", headers={"Accept": accept})
    assert answer.content_type == f"application/{kind}"
    await answer.read()


@pytest.mark.parametrize(
    ("path", "headers", "status", "code", "field"),
    [
        ("/watched/orders", {"Accept": "text/html"}, 406, "not_acceptable", "Accept"),
        ("/watched/orders", {"Accept": "application/json;q=0"}, 406, "not_acceptable", "Accept"),
        ("/watched/orders", {"Accept": "application/json;q=x, ;"}, 406, "not_acceptable", "Accept"),
        ("/watched", {"Accept": "application/x-ndjson"}, 406, "not_acceptable", "Accept"),
        ("/watched/orders?limit=3", {}, 400, "bad_request", "limit"),
        ("/watched?x", {}, 400, "bad_request", "x"),
        ("/watched/not_found", {}, 404, "not_found", None),
        ("/watched/forbidden", {}, 403, "forbidden", None),
        ("/watched/unavailable", {}, 503, "unavailable", None),
        ("/watched/internal", {}, 500, "internal", None),
    ],
)
async def test_refusals_say_why(
    site: Any, path: str, headers: dict[str, str], status: int, code: str, field: str | None
) -> None:
    answer = await site.http.get(site.url + path, headers=headers)
    error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["field"]) == (status, code, field)
    assert error["message"]
    assert ("Retry-After" in answer.headers) == (status == 503)


async def test_a_name_may_have_slashes_and_quotes(site: Any) -> None:
    assert (await site.http.get(site.url + "/watched/%22a%2Fb%22.c/d")).status == 500  # it arrived: no such code here


async def test_pages_of_listed_origins_may_read_it_and_what_is_refused(start: Callable[..., Any]) -> None:
    site = await start(origins=("https://shop.example",))
    for path in ("/watched", "/watched/orders", "/watched/unavailable"):
        for origin, allowed in (("https://shop.example", "https://shop.example"), ("https://evil.example", None)):
            answer = await site.http.get(site.url + path, headers={"Origin": origin})
            assert answer.headers.get("Access-Control-Allow-Origin") == allowed
            assert answer.headers.get("Access-Control-Expose-Headers") == (
                allowed and "Retry-After, Hub-Cursor, Hub-Gap"
            )
            assert answer.headers.get("Vary") == (allowed and "Origin")
            await answer.read()


@pytest.mark.parametrize("error", [CommandError(Code.UNAVAILABLE, "Gone."), RuntimeError("a fault")])
@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_a_stream_that_breaks_off_has_no_end(site: Any, error: Exception, accept: str) -> None:
    async def broken() -> AsyncGenerator[list[bytes]]:
        yield [b'{"id":1}']
        await read.wait()
        raise error

    read = asyncio.Event()
    site.watched.batches = broken
    answer = await site.http.get(site.url + "/watched/orders", headers={"Accept": accept})
    assert answer.status == 200
    assert b'{"id":1}' in await answer.content.readany()
    read.set()
    with pytest.raises(aiohttp.ClientPayloadError):
        await answer.read()
    assert site.watched.opened == 0


async def test_http_1_0_is_refused(site: Any) -> None:
    """There the end of the connection is that of the response, whole or not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
    writer.write(b"GET /watched/orders HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert b" 505 " in await reader.readline()
    writer.close()


class Waiting:
    """Batches that do not come, and whether somebody still waits for them."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.given_up = asyncio.Event()

    async def batches(self) -> AsyncGenerator[list[bytes]]:
        yield [b'{"id":1}']
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up.set()


async def test_a_client_that_goes_ends_the_query_at_once(site: Any) -> None:
    waiting = Waiting()
    site.watched.batches = waiting.batches
    answer = await site.http.get(site.url + "/watched/orders")
    async with asyncio.timeout(10):
        await waiting.waiting.wait()
        assert site.watched.opened == 1
        answer.close()
        await waiting.given_up.wait()
        while site.watched.opened:
            await asyncio.sleep(0)  # the handler has a few steps to go


async def test_a_client_that_reads_nothing_is_cut_off(start: Callable[..., Any]) -> None:
    """Backpressure first: what is not read is not fetched."""
    site = await start(stall_timeout=0.3)
    begun, given = asyncio.Event(), 0

    async def endless() -> AsyncGenerator[list[bytes]]:
        nonlocal given
        while True:
            given += 1
            begun.set()
            yield [b"1" * 65_536]

    site.watched.batches = endless
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.connect(("127.0.0.1", int(site.url.rpartition(":")[2])))  # the kernel answers
        client.sendall(b"GET /watched/orders HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(10):
            await begun.wait()
            while site.watched.opened:
                await asyncio.sleep(0.01)  # nobody is told of the cut but the client, which does not look
    assert given < 100


async def test_a_slow_client_is_not_cut_off(start: Callable[..., Any]) -> None:
    """It takes several times the stall timeout, reading a little all the time."""
    site = await start(stall_timeout=0.8)

    async def some() -> AsyncGenerator[list[bytes]]:
        for _ in range(40):
            yield [b"1" * 65_536]

    site.watched.batches = some
    answer = await site.http.get(site.url + "/watched/orders", headers=LINES)
    size = 0
    while chunk := await answer.content.read(32 * 1024):
        size += len(chunk)
        await asyncio.sleep(0.04)  # this is what slow means
    assert size == 40 * 65_537 + len(orjson.dumps(HEAD)) + 1
