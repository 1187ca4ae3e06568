"""What no handler answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import aiohttp
import pytest

from hub.errors import Code


async def refusal(answer: Any) -> dict[str, Any]:
    """The error in `answer`, which has nothing else in it."""
    assert answer.content_type == "application/json"
    [(name, error)] = (await answer.json()).items()
    assert name == "error"
    assert set(error) == {"code", "message", "field"}
    return error


@pytest.mark.parametrize("path", ["/nowhere", "/events/", "/%00", "/%ff", "/%ED%A0%80", "/" + "x" * 5_000])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_a_path_that_is_not_there_is_told_as_any_error_is(site: Any, method: str, path: str) -> None:
    answer = await site.http.request(method, site.url + path)
    assert answer.status == 404
    assert (await refusal(answer))["code"] == Code.NOT_FOUND


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/events", "GET, HEAD, POST"), ("/watched/orders", "GET, HEAD"), ("/", "GET, HEAD"), ("/ws", "GET, HEAD")],
)
@pytest.mark.parametrize("method", ["DELETE", "OPTIONS", "PATCH"])
async def test_a_method_that_is_not_there_is_told_with_those_that_are(
    site: Any, method: str, path: str, allowed: str
) -> None:
    answer = await site.http.request(method, site.url + path)
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)
    assert allowed in (await refusal(answer))["message"]


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/", "*/*"),
        ("/client.js", "*/*"),
        ("/healthz", "*/*"),
        ("/channels", "*/*"),
        ("/openapi.json", "*/*"),
        ("/watched", "*/*"),
        ("/watched/orders", "application/json"),
        ("/watched/orders", "application/x-ndjson"),
        ("/watched/not_found", "*/*"),
        ("/events", "application/json"),
        ("/events", "application/x-ndjson"),
        ("/events", "text/csv"),
        ("/events?last=0", "*/*"),
        ("/nowhere", "*/*"),
        ("/ws", "*/*"),
    ],
)
async def test_head_gets_what_get_gets_but_for_the_body(site: Any, path: str, accept: str) -> None:
    url, headers = site.url + path, {"Accept": accept}
    get, head = await site.http.get(url, headers=headers), await site.http.head(url, headers=headers)
    body = await get.read()
    assert body
    assert await head.read() == b""
    assert head.status == get.status
    assert without(head.headers, "Date") == without(get.headers, "Date", "Transfer-Encoding")
    assert site.watched.opened == site.past.opened == 0


def without(headers: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


async def test_head_of_a_stream_that_goes_on_ends(site: Any) -> None:
    answer = await site.http.head(site.url + "/events?channel=a", headers={"Accept": "text/event-stream"})
    assert (answer.status, answer.content_type) == (200, "text/event-stream")
    assert not site.ports.fanout.sessions
    assert not site.listener.held


async def test_a_fault_of_the_hub_is_told_without_its_inside(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(site.watched, "tables", broken)
    answer = await site.http.get(site.url + "/watched")
    assert answer.status == 500
    assert "secret" not in await answer.text()
    assert (await refusal(answer))["code"] == Code.INTERNAL


async def test_a_fault_behind_the_head_of_an_answer_cuts_it_off(site: Any) -> None:
    async def broken() -> AsyncGenerator[list[bytes]]:
        yield [b"{}"]
        raise RuntimeError("secret")

    site.past.batches = broken
    answer = await site.http.get(site.url + "/events", headers={"Accept": "application/x-ndjson"})
    with pytest.raises(aiohttp.ClientPayloadError):
        await answer.read()


async def test_pages_of_listed_origins_may_read_that_too(start: Callable[..., Any]) -> None:
    site = await start(origins=("https://shop.example",))
    answer = await site.http.get(site.url + "/nowhere", headers={"Origin": "https://shop.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
