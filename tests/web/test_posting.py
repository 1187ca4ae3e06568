"""Events posted over HTTP, with nothing behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from hub.errors import Code, CommandError

EVENT = {"channel": "orders", "payload": {"n": 1}}
JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}


async def post(site: Any, body: Any, query: str = "", **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    answer = await site.http.post(f"{site.url}/events{query}", data=data, headers=JSON | headers)
    return answer.status, await answer.json()


async def refused(site: Any, body: Any, query: str = "", **headers: str) -> tuple[int, str, str | None]:
    status, answer = await post(site, body, query, **headers)
    assert answer["error"]["message"]
    return status, answer["error"]["code"], answer["error"]["field"]


async def test_one_event(site: Any) -> None:
    assert await post(site, EVENT | {"tags": ["a"]}) == (201, {"event": 1})
    assert await post(site, EVENT | {"key": "k"}) == (201, {"event": 2})
    assert site.publisher.published == [("orders", '{"n":1}', ["a"], None), ("orders", '{"n":1}', [], "k")]


async def test_one_that_postgres_refuses(site: Any) -> None:
    site.publisher.at_once = False
    answer = asyncio.create_task(refused(site, EVENT))
    while not site.publisher.futures:
        await asyncio.sleep(0)  # the request is on its way
    site.publisher.futures[0].set_exception(CommandError(Code.TOO_LARGE, "Too large."))
    assert await answer == (413, "too_large", None)


async def test_one_that_is_under_way_when_the_hub_ends(site: Any) -> None:
    site.publisher.at_once = False
    answer = asyncio.create_task(refused(site, EVENT))
    while not site.publisher.futures:
        await asyncio.sleep(0)  # the request is on its way
    site.publisher.futures[0].cancel()
    assert await answer == (503, "unavailable", None)


async def test_an_array_is_all_or_nothing(site: Any) -> None:
    assert await post(site, [EVENT, EVENT]) == (201, {"events": [1, 2]})
    assert await refused(site, [EVENT, EVENT, {"channel": 3, "payload": 1}]) == (400, "bad_request", "[2].channel")
    assert await refused(site, [EVENT, 3]) == (400, "bad_request", "[1]")
    assert len(site.items.published) == 2
    assert await refused(site, [EVENT, EVENT | {"channel": "too_large"}]) == (413, "too_large", "[1]")


async def test_not_atomic_each_has_its_result(site: Any) -> None:
    body = [EVENT, {"channel": "hub_x", "payload": 1}, EVENT | {"channel": "too_large"}, {}, EVENT]
    status, answer = await post(site, body, "?atomic=false")
    assert status == 207
    results = answer["results"]
    assert [result["status"] for result in results] == [201, 403, 413, 400, 201]
    assert (results[0]["event"], results[4]["event"]) == (1, 3)
    assert [result["error"]["field"] for result in results[1:4]] == ["channel", None, "channel"]
    assert (await post(site, [{}], "?atomic=false"))[0] == 207


@pytest.mark.parametrize("body", [b"", b"{", b'{"channel":', b"\x00", b"\xef\xbb\xbf{}", b"[" * 100_000, b'"', b"[]"])
async def test_what_is_no_json_is_refused(site: Any, body: bytes) -> None:
    assert await refused(site, body) == (400, "bad_request", None)


@pytest.mark.parametrize(
    ("query", "headers", "status", "code", "field"),
    [
        ("?atomic=maybe", {}, 400, "bad_request", "atomic"),
        ("?atomic=true&atomic=true", {}, 400, "bad_request", "atomic"),
        ("?atomic=false", {}, 400, "bad_request", "atomic"),
        ("?channel=a", {}, 400, "bad_request", "channel"),
        ("?%ff=a", {}, 400, "bad_request", "\ufffd"),
        ("", {"Content-Type": "text/plain"}, 415, "unsupported", "Content-Type"),
        ("", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported", "Content-Type"),
        ("", {"Content-Type": "application/json; charset=latin-1"}, 415, "unsupported", "Content-Type"),
        ("", {"Content-Type": "nonsense"}, 415, "unsupported", "Content-Type"),
        ("", {"Idempotency-Key": ""}, 400, "bad_request", "Idempotency-Key"),
        ("", {"Idempotency-Key": "x" * 256}, 400, "bad_request", "Idempotency-Key"),
        ("", {"Content-Encoding": "gzip"}, 400, "bad_request", None),
        ("", {"Content-Encoding": "compress"}, 415, "unsupported", "Content-Encoding"),
        ("", {"Expect": "a miracle"}, 417, "unsupported", "Expect"),
    ],
)
async def test_refusals_say_why(
    site: Any, query: str, headers: dict[str, str], status: int, code: str, field: str | None
) -> None:
    assert await refused(site, EVENT, query, **headers) == (status, code, field)
    assert not site.publisher.published


async def test_a_charset_of_utf_8_may_be_named(site: Any) -> None:
    assert (await post(site, EVENT, **{"Content-Type": "application/json; charset=UTF-8"}))[0] == 201


async def test_an_idempotency_key_is_the_key_and_in_an_array_each_has_one(site: Any) -> None:
    key = {"Idempotency-Key": "k"}
    assert (await post(site, EVENT, **key))[0] == 201
    assert site.publisher.published[0][3] == "k"
    await post(site, [EVENT, EVENT], **key)
    assert [item.key for item in site.items.published] == ["k:0", "k:1"]
    assert await refused(site, EVENT | {"key": "x"}, **key) == (400, "bad_request", "key")
    assert await refused(site, [EVENT, EVENT | {"key": "x"}], **key) == (400, "bad_request", "[1].key")
    assert (await refused(site, [EVENT], **{"Idempotency-Key": "k" * 252}))[2] == "Idempotency-Key"
    assert (await post(site, [EVENT], **{"Idempotency-Key": "k" * 251}))[0] == 201
    assert (await refused(site, b"", **key | LINES)) == (400, "bad_request", "Idempotency-Key")


async def test_a_large_body_is_refused_before_it_is_read(start: Callable[..., Any]) -> None:
    site = await start(frame=1_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
    head = "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1001\r\n\r\n"
    writer.write(head.encode())
    assert b" 413 " in await reader.readline()
    writer.close()

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    answer = await site.http.post(site.url + "/events", data=chunks(), headers=JSON)
    assert (answer.status, (await answer.json())["error"]["code"]) == (413, "too_large")


async def test_lines_are_handed_on_as_they_come(start: Callable[..., Any]) -> None:
    site = await start(frame=100)
    sent, more = b'{"channel":"a","payload":1}\n', asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield sent
        await more.wait()
        yield sent * 1_000

    answer = asyncio.create_task(site.http.post(site.url + "/events", data=chunks(), headers=LINES))
    await asyncio.wait_for(site.items.loading.wait(), 10)
    assert site.items.loaded == sent
    more.set()
    assert await (await answer).json() == {"events": 1_001}
    assert (await refused(site, sent, "?atomic=false", **LINES)) == (400, "bad_request", "atomic")


async def test_a_body_that_stalls_is_given_up(start: Callable[..., Any]) -> None:
    site = await start(stall_timeout=0.2)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"["
        await asyncio.Event().wait()

    for headers in (JSON, LINES):
        with_body = site.http.post(site.url + "/events", data=chunks(), headers=headers)
        answer = await asyncio.wait_for(with_body, 10)
        assert (answer.status, (await answer.json())["error"]["code"]) == (408, "stalled")
    assert site.items.given_up is not None


async def test_a_body_that_only_drips_is_given_up(start: Callable[..., Any]) -> None:
    site = await start(stall_timeout=0.2)

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)  # what it is about

    for headers in (JSON, LINES):
        answer = await asyncio.wait_for(site.http.post(site.url + "/events", data=chunks(), headers=headers), 10)
        assert (answer.status, (await answer.json())["error"]["code"]) == (408, "stalled")


async def test_a_body_of_rubbish_is_no_news_for_the_log(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert (await post(site, b"no gzip", **{"Content-Encoding": "gzip"}))[0] == 400
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(("size", "expected"), [(1_000, b" 100 "), (1_001, b" 413 ")])
async def test_a_client_that_asks_first_sends_no_body_that_is_too_large(
    start: Callable[..., Any], size: int, expected: bytes
) -> None:
    site = await start(frame=1_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(site.url.rpartition(":")[2]))
    head = f"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
    writer.write(head.encode() + b"Expect: 100-continue\r\n\r\n")
    assert expected in await reader.readline()
    writer.close()


async def test_a_client_that_goes_in_the_middle_ends_the_load(site: Any) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"channel":"a","payload":1}\n'
        await asyncio.Event().wait()

    task = asyncio.create_task(site.http.post(site.url + "/events", data=chunks(), headers=LINES))
    await asyncio.wait_for(site.items.loading.wait(), 10)
    task.cancel()
    async with asyncio.timeout(10):
        while site.items.given_up is None:
            await asyncio.sleep(0.01)  # nobody is told but the load


async def test_other_methods_are_not_allowed(site: Any) -> None:
    for method in ("PUT", "DELETE", "PATCH"):
        answer = await site.http.request(method, site.url + "/events")
        assert (answer.status, "POST" in answer.headers["Allow"]) == (405, True)


async def test_pages_of_listed_origins_may_post_after_asking(start: Callable[..., Any]) -> None:
    site = await start(origins=("https://shop.example",))
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for origin, allowed in (("https://shop.example", True), ("https://evil.example", False)):
        answer = await site.http.options(site.url + "/events", headers=ask | {"Origin": origin})
        assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
        assert ("POST" in answer.headers.get("Access-Control-Allow-Methods", "")) == allowed
        assert ("Content-Type" in answer.headers.get("Access-Control-Allow-Headers", "")) == allowed
        answer = await site.http.post(site.url + "/events", json=EVENT, headers={"Origin": origin})
        assert answer.status == (201 if allowed else 403)
