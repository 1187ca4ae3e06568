"""What schemathesis leaves out: forms that Accept asks for, streams, lines, bodies and parameters that are none.

These too a running hub answers as its contract says, and never that it broke.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any
from urllib.parse import quote, urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.web.openapi import CONTRACT

OPERATIONS = [(path, method) for path, item in CONTRACT["paths"].items() for method in item]
EDGES = ["", "0", "1", "-1", "9" * 30, "1e9", "true", "a.*", "**", "$hub", "\0", "\n", "\ud800", "\U0001f600", "x" * 70]
EDGES += ["2026-11-22T09:00:00Z", "9999-12-31T23:59:59-14:00", "0001-01-01", "orders", "AgAAAA", "null"]
VALUES = st.sampled_from(EDGES) | st.text(max_size=10)
KINDS = ["application/json", "application/x-ndjson", "text/csv", "text/event-stream", "text/html", "*/*;q=x", ""]
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(VALUES, inner, max_size=3),
    max_leaves=6,
)
ITEMS = st.fixed_dictionaries(
    {"channel": VALUES | st.just("orders"), "payload": JSON},
    optional={"tags": st.lists(VALUES, max_size=3) | JSON, "key": VALUES | JSON, "other": JSON},
)
LINES = st.lists(ITEMS | JSON, max_size=3).map(lambda values: "\n".join(map(json.dumps, values)).encode())
BODIES = st.binary(max_size=20) | LINES


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, str, dict[str, str], bytes | None]:
    """The operation's path and method, the target, headers and body of a request that is nearly right, or is not."""
    path, method = draw(st.sampled_from(OPERATIONS))
    known = [each["name"] for each in CONTRACT["paths"][path][method].get("parameters", ()) if each["in"] == "query"]
    names = st.sampled_from(known) | VALUES if known and draw(st.integers(0, 4)) else VALUES
    query = draw(st.lists(st.tuples(names, VALUES), max_size=3)) if draw(st.booleans()) else []
    target = path.replace("{table}", _quoted(draw(VALUES.filter(lambda name: name not in ("", ".", "..")))))
    if query:
        target += "?" + "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in query)
    headers = {"Accept": draw(st.sampled_from(KINDS))}
    if method == "get":
        return path, method, target, headers, None
    return path, method, target, headers | {"Content-Type": draw(st.sampled_from(KINDS))}, draw(BODIES)


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


def ask(url: str, method: str, target: str, headers: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
    """Status and body; of a stream that goes on nothing is read."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method.upper(), target, body, headers)
        response = connection.getresponse()
        live = response.headers.get_content_type() == "text/event-stream"
        return response.status, b"" if live else response.read()
    finally:
        connection.close()


async def test_no_request_breaks_the_hub_and_every_answer_is_in_the_contract(hub: Any) -> None:
    @settings(max_examples=300, deadline=None)
    @given(requests())
    def check(request: tuple[str, str, str, dict[str, str], bytes | None]) -> None:
        path, method, *rest = request
        status, body = ask(hub.url, method, *rest)
        assert status < 500
        assert str(status) in CONTRACT["paths"][path][method]["responses"]
        if status >= 400:
            assert set(json.loads(body)["error"]) - {"channels"} == {"code", "message", "field"}

    await asyncio.to_thread(check)
