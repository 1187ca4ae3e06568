"""The Python client, against real hubs that come and go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import asyncpg
import pytest

from hub import client
from hub.client import Lost, RefusedError, follow
from tests.conftest import Hub, running


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back at once: how long clients wait is `backoff`'s to test."""
    monkeypatch.setattr(client.backoff, "delay", lambda _attempt: 0.01)
    monkeypatch.setattr(client, "_DRAIN_SPREAD", 0.01)


async def following(messages: AsyncGenerator[dict[str, Any], None], kind: str) -> dict[str, Any]:
    """The next message of this type."""
    async with asyncio.timeout(20):
        async for message in messages:
            if message["type"] == kind:
                return message
    raise AssertionError("it never ends by itself")


async def notify(dsn: str, channel: str, payload: str) -> None:
    producer = await asyncpg.connect(dsn)
    await producer.execute("SELECT pg_notify($1, $2)", channel, payload)
    await producer.close()


async def test_it_yields_the_events_of_its_channels(hub: Hub) -> None:
    async with aclosing(follow(hub.ws, ["a", "b"])) as messages:
        assert (await following(messages, "subscribed"))["channels"] == ["a", "b"]
        await notify(hub.dsn, "b", "7")
        assert (await following(messages, "events"))["events"][0]["payload"] == 7


async def test_it_comes_back_to_a_hub_that_went_away(database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lost: list[Lost] = []
    async with aclosing(follow(f"ws://127.0.0.1:{port}/ws", ["a"], on_lost=lost.append)) as messages:
        async with running(database, port=port):
            await following(messages, "subscribed")
            again = asyncio.create_task(following(messages, "subscribed"))
        async with running(database, port=port):
            await again
            await notify(database, "a", "1")
            await following(messages, "events")
    assert "going away" in lost[0].reason


@pytest.mark.parametrize("channel", ["", "hub_bell", "a.*"])
async def test_what_the_hub_refuses_ends_it_with_the_hubs_words(hub: Hub, channel: str) -> None:
    with pytest.raises(RefusedError, match="The hub refused: "):
        await following(follow(hub.ws, [channel]), "events")


@pytest.mark.parametrize("path", ["/healthz", "/nowhere"])
async def test_what_is_no_hub_ends_it(hub: Hub, path: str) -> None:
    with pytest.raises(RefusedError, match="is no hub"):
        await following(follow(f"{hub.ws.removesuffix('/ws')}{path}", ["a"]), "events")


async def test_a_heartbeat_that_stays_away_ends_the_connection(unused_tcp_port: int) -> None:
    """A hub that welcomes and then falls silent is left for a better one."""
    from aiohttp import web

    async def silent(request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse(protocols=("pghub.v1",))
        await answer.prepare(request)
        await answer.send_str('{"type":"welcome","heartbeat":0.05}')
        async for _ in answer:
            pass
        return answer

    app = web.Application()
    app.router.add_get("/ws", silent)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    lost = asyncio.Event()
    messages = follow(f"ws://127.0.0.1:{unused_tcp_port}/ws", ["a"], on_lost=lambda _: lost.set())
    waiting = asyncio.create_task(following(messages, "events"))
    async with asyncio.timeout(10):
        await lost.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await messages.aclose()
    await runner.cleanup()
