"""What every answer tells a browser to beware of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from hub.web import headers

DATA = ("/healthz", "/events", "/channels", "/watched", "/nowhere", "/ws")


@pytest.mark.parametrize("path", [*DATA, "/", "/client.js", "/openapi.json"])
async def test_every_answer_is_taken_for_what_it_is_and_framed_by_nobody(site: Any, path: str) -> None:
    """Whatever it is: an answer, a refusal, or a page."""
    said = (await site.http.get(site.url + path)).headers
    assert said["X-Content-Type-Options"] == "nosniff"
    assert said["Referrer-Policy"] == "no-referrer"
    assert said["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in said["Content-Security-Policy"]
    assert said["Cross-Origin-Resource-Policy"] == "same-origin"
    assert said["Cache-Control"] == ("no-store" if path in DATA else "no-cache")
    assert said["Server"] == "pghub"
    assert "Strict-Transport-Security" not in said, "it came by http"


async def test_refusals_at_the_door_have_them_too(site: Any) -> None:
    said = (await site.http.get(site.url + "/", headers={"Host": "evil.example"})).headers
    assert (said["X-Content-Type-Options"], said["Cache-Control"]) == ("nosniff", "no-store")


async def test_pages_of_listed_origins_may_embed_what_they_may_read(start: Callable[..., Any]) -> None:
    site = await start(origins=("https://shop.example",))
    for origin, policy in (("https://shop.example", "cross-origin"), ("https://evil.example", "same-origin")):
        said = (await site.http.get(site.url + "/client.js", headers={"Origin": origin})).headers
        assert said["Cross-Origin-Resource-Policy"] == policy


@pytest.mark.parametrize(
    ("scheme", "host", "kept"),
    [
        ("https", "hub.example", True),
        ("https", "hub.example:8443", True),
        ("https", "localhost:8080", False),
        ("https", "127.0.0.1:8080", False),
        ("https", "[::1]:8080", False),
        ("https", "[::1]", False),
        ("http", "hub.example", False),
    ],
)
async def test_a_name_that_is_reached_by_tls_is_so_for_ever(scheme: str, host: str, kept: bool) -> None:
    """Not `localhost`, of which a browser would believe it for all that runs there."""
    request, response = make_mocked_request("GET", "/", {"Host": host}).clone(scheme=scheme), web.Response()
    await headers.protect(request, response)
    assert ("Strict-Transport-Security" in response.headers) is kept
