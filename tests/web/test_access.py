"""Who may ask at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from hub.web.access import Access


@pytest.mark.parametrize(
    ("bound", "host", "allowed"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "localhost:8080", True),
        ("127.0.0.1", "LOCALHOST:1", True),
        ("127.0.0.1", "127.0.0.1:8080", True),
        ("127.0.0.1", "[::1]:8080", True),
        ("localhost", "127.0.0.1", True),
        ("127.0.0.1", "192.168.0.7", False),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "evil.example:8080", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "[", False),
        ("127.0.0.1", "hub.example", True),
        ("0.0.0.0", "192.168.0.7:8080", True),
        ("0.0.0.0", "evil.example", False),
    ],
)
def test_a_host_is_ours_or_listed(bound: str, host: str, allowed: bool) -> None:
    assert Access(bound, ["https://hub.example"]).host_allowed(host) is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://localhost:8080", True),
        ("https://hub.example", True),
        ("https://HUB.example", True),
        ("http://localhost:9999", False),
        ("http://evil.example", False),
        ("null", False),
        ("http://[", False),
    ],
)
def test_an_origin_is_this_page_or_listed(origin: str | None, allowed: bool) -> None:
    assert Access("127.0.0.1", ["https://hub.example/"]).origin_allowed(origin, "localhost:8080") is allowed


@pytest.mark.parametrize(
    ("origin", "scheme", "allowed"),
    [
        ("https://localhost:8080", "https", True),
        ("http://localhost:8080", "https", False),
        ("http://localhost:8080", "http", True),
        ("https://localhost:8080", None, True),
        ("http://hub.example", "https", True),
    ],
)
def test_a_page_that_came_by_another_scheme_is_no_page_of_ours(origin: str, scheme: str | None, allowed: bool) -> None:
    """Where it is known by which the hub is spoken to; what is listed is allowed as it is listed."""
    assert Access("127.0.0.1", ["http://hub.example"]).origin_allowed(origin, "localhost:8080", scheme) is allowed


async def test_a_foreign_host_gets_421_on_every_path(site: Any) -> None:
    for path in ("/", "/healthz", "/ws", "/nowhere"):
        answer = await site.http.get(site.url + path, headers={"Host": "evil.example"})
        assert answer.status == 421
        assert (await answer.json())["error"]["code"] == "wrong_host"


async def test_a_foreign_page_gets_403_before_the_upgrade(site: Any) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await site.connect(origin="http://evil.example")
    assert caught.value.status == 403
    assert not site.ports.fanout.sessions


async def test_a_foreign_page_may_not_post(site: Any) -> None:
    answer = await site.http.post(site.url + "/", headers={"Origin": "http://evil.example"})
    assert answer.status == 403


async def test_a_page_of_the_hub_itself_may_connect(site: Any) -> None:
    assert (await (await site.connect(origin=site.url)).receive())["type"] == "welcome"


async def test_a_listed_origin_may_connect_and_import_the_client(start: Callable[..., Any]) -> None:
    site = await start(origins=("https://shop.example",))
    assert (await (await site.connect(origin="https://shop.example")).receive())["type"] == "welcome"
    answer = await site.http.get(site.url + "/client.js", headers={"Origin": "https://shop.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert answer.headers["Access-Control-Expose-Headers"] == "Retry-After, Hub-Cursor, Hub-Gap"


async def test_nobody_else_gets_a_cors_header(site: Any) -> None:
    answer = await site.http.get(site.url + "/client.js", headers={"Origin": "https://shop.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
