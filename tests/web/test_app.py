"""Pages, probes and the handshake."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from hub.web.socket import Socket


async def test_the_dashboard_is_served_under_a_strict_policy(site: Any) -> None:
    answer = await site.http.get(site.url + "/")
    assert answer.content_type == "text/html"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_page_that_has_not_changed_is_not_sent_again(site: Any) -> None:
    tag = (await site.http.get(site.url + "/client.js")).headers["ETag"]
    again = await site.http.get(site.url + "/client.js", headers={"If-None-Match": tag})
    assert again.status == 304
    assert await again.read() == b""


async def test_what_is_not_there_is_not_found(site: Any) -> None:
    for path in ("/nowhere", "/../pyproject.toml", "/%2e%2e/secret"):
        assert (await site.http.get(site.url + path)).status == 404


async def test_probes(site: Any) -> None:
    assert (await site.http.get(site.url + "/healthz")).status == 200
    assert (await site.http.get(site.url + "/readyz")).status == 200
    site.reasons.append("The listening connection is down.")
    answer = await site.http.get(site.url + "/readyz")
    assert answer.status == 503
    assert (await answer.json())["reasons"] == ["The listening connection is down."]


async def test_a_plain_get_of_the_websocket_is_told_so(site: Any) -> None:
    answer = await site.http.get(site.url + "/ws")
    assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")
    error = (await answer.json())["error"]
    assert error["code"] == "upgrade_required"
    assert "websocket" in error["message"]


async def test_our_subprotocol_is_agreed_to_and_may_be_left_out(site: Any) -> None:
    peer = await site.connect(protocols=("other", "pghub.v1"))
    assert peer.socket.protocol == "pghub.v1"


async def test_other_subprotocols_alone_are_refused(site: Any) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await site.connect(protocols=("graphql-ws",))
    assert caught.value.status == 400
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Protocol": "graphql-ws"}
    answer = await site.http.get(site.url + "/ws", headers=headers)
    assert (await answer.json())["error"]["field"] == "Sec-WebSocket-Protocol"


async def test_a_broken_handshake_leaves_nothing_behind(site: Any) -> None:
    answer = await site.http.get(site.url + "/ws", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert answer.status == 400
    assert (await answer.json())["error"]["code"] == "bad_request"
    assert not site.ports.fanout.sessions


async def test_a_client_that_leaves_in_the_handshake_is_no_error(
    site: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a close between the request and its handler's first step, so here the answer finds it closed."""

    async def gone(*_: Any) -> None:
        raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")

    with monkeypatch.context() as patched:
        patched.setattr(Socket, "prepare", gone)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await site.connect()
    assert (await (await site.connect()).receive())["type"] == "welcome"
    assert not caplog.records
