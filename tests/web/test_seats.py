"""How many connections one address may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

STREAM = {"Accept": "text/event-stream"}


async def refusal(site: Any, **headers: str) -> aiohttp.ClientResponse:
    return await site.http.get(site.url + "/events?channel=a", headers=STREAM | headers)


async def test_an_address_has_so_many_websockets_and_streams_and_no_more(start: Callable[..., Any]) -> None:
    site = await start(per_address=2)
    peer = await site.connect()
    async with site.http.get(site.url + "/events?channel=a", headers=STREAM) as stream:
        assert stream.status == 200
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await site.connect()
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "10")
        answer = await refusal(site)
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (429, "too_many")
        assert "127.0.0.1 has 2 connections" in error["message"]
        await peer.socket.close()
        await (await site.connect()).receive()
    assert len(site.ports.fanout.sessions) <= 2


async def test_what_does_not_stay_takes_no_seat(start: Callable[..., Any]) -> None:
    site = await start(per_address=1)
    for _ in range(3):
        assert (await site.http.get(site.url + "/ws")).status == 426
        assert (await site.http.get(site.url + "/events", headers=STREAM)).status == 400
        broken = {"Upgrade": "websocket", "Connection": "Upgrade"}
        assert (await site.http.get(site.url + "/ws", headers=broken)).status == 400
        assert (await site.http.get(site.url + "/events?channel=broken", headers=STREAM)).status == 503
    await (await site.connect()).receive()


async def test_behind_a_trusted_proxy_each_client_is_counted_for_itself(start: Callable[..., Any]) -> None:
    site = await start(per_address=1, trusted="127.0.0.1")
    here = [await site.connect(headers={"X-Forwarded-For": said}) for said in ("192.0.2.1", "192.0.2.2", "2001:db8::1")]
    assert (await refusal(site, **{"X-Forwarded-For": "192.0.2.3, 192.0.2.1"})).status == 429
    assert (await refusal(site, **{"X-Forwarded-For": "2001:db8::2"})).status == 429, "one customer has a /64"
    assert len(here) == len(site.ports.fanout.sessions)


async def test_nobody_else_says_who_they_are(start: Callable[..., Any]) -> None:
    site = await start(per_address=1, trusted="10.0.0.0/8")
    peer = await site.connect(headers={"X-Forwarded-For": "192.0.2.1"})
    assert (await refusal(site, **{"X-Forwarded-For": "192.0.2.2"})).status == 429
    assert not peer.socket.closed


async def test_whoever_comes_while_the_hub_goes_is_sent_elsewhere(site: Any) -> None:
    await site.web.drain(0)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await site.connect()
    assert caught.value.status == 503
    answer = await refusal(site)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
