"""Things that die while clients are connected."""

from __future__ import annotations

import asyncio
import os
import signal
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect

from hub.postgres.embedded import Embedded
from tests.conftest import running
from tests.e2e.test_notify import payloads, receive, subscriber


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


async def publish(socket: ClientConnection, number: int) -> str:
    """Publish by the websocket; the type of the answer."""
    command = {"type": "publish", "id": number, "channel": "a", "payload": number, "durable": False}
    await socket.send(orjson.dumps(command).decode())
    async with asyncio.timeout(20):
        while True:
            message = orjson.loads(await socket.recv())
            if message.get("id") == number:
                return str(message["type"])


async def subscribe(socket: ClientConnection, number: int) -> dict[str, Any]:
    """Subscribe to a channel that is new to the hub; the answer."""
    command = {"type": "subscribe", "id": number, "channels": [f"new{number}"]}
    await socket.send(orjson.dumps(command).decode())
    async with asyncio.timeout(20):
        while True:
            message: dict[str, Any] = orjson.loads(await socket.recv())
            if message.get("id") == number:
                assert message["type"] == "subscribed" or message["code"] == "unavailable"
                return message


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT])
async def test_a_postgres_that_dies_comes_back_and_every_subscriber_hears_of_the_gap(
    data_dir: Path, kill: signal.Signals
) -> None:
    async with Embedded(data_dir) as embedded, running(embedded.dsn) as hub:
        supervisor = asyncio.create_task(embedded.supervise())
        sockets = [await subscriber(hub, "a", "b"), await subscriber(hub, "b")]
        os.kill(postmaster(data_dir), kill)
        gaps = [await receive(socket, "gap") for socket in sockets]
        assert [gap["channels"] for gap in gaps] == [["a", "b"], ["b"]]
        assert {gap["reason"] for gap in gaps} == {"listener"}
        producer = await asyncpg.connect(hub.dsn)
        await producer.execute("NOTIFY b, '1'")
        assert [await payloads(socket, 1) for socket in sockets] == [[1], [1]]
        number = 1
        while await publish(sockets[0], number) == "error":  # the pool may still hold a dead connection
            number += 1
        assert number < 20
        await producer.close()
        for socket in sockets:
            await socket.close()
        supervisor.cancel()


async def test_while_postgres_is_gone_clients_stay_and_are_told_it_does_not_answer(data_dir: Path) -> None:
    async with Embedded(data_dir) as embedded, running(embedded.dsn) as hub:
        socket = await subscriber(hub, "a")
        os.kill(postmaster(data_dir), signal.SIGKILL)
        numbers = count(1)
        while await publish(socket, next(numbers)) == "published":
            pass  # backends outlive the postmaster by a moment
        while (await subscribe(socket, next(numbers)))["type"] == "subscribed":
            pass
        await socket.send('{"type":"ping","id":3}')
        assert await receive(socket, "pong")
        await socket.close()


async def test_a_client_that_is_killed_leaves_no_listen_behind(data_dir: Path) -> None:
    async with Embedded(data_dir) as embedded, running(embedded.dsn) as hub:
        socket = await subscriber(hub, "a")
        socket.transport.abort()
        other = await connect(hub.ws)
        await other.send('{"type":"subscribe","id":1,"channels":["$hub"]}')
        while (await payloads(other, 1))[0]["subscriptions"]:
            pass
        await other.close()
