"""HUB_COMPRESSION, seen by clients that offer it, that do not, and that offer less."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.frames import Frame

from tests.conftest import running

PATIENCE = 20
TEXT = "the same words again and again, " * 20


class Counted(PerMessageDeflate):
    """A client's side of the extension, which counts the frames that came deflated."""

    deflated = 0

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        self.deflated += frame.rsv1
        return super().decode(frame, max_size=max_size)


class Offer(ClientPerMessageDeflateFactory):
    def process_response_params(self, params: Sequence[tuple[str, str | None]], accepted: Any) -> PerMessageDeflate:
        made = super().process_response_params(params, accepted)
        return Counted(
            made.remote_no_context_takeover,
            made.local_no_context_takeover,
            made.remote_max_window_bits,
            made.local_max_window_bits,
            made.compress_settings,
        )


@pytest.fixture
async def hub(database: str) -> AsyncIterator[Any]:
    async with running(database, compression="on") as hub:
        yield hub


async def message(socket: ClientConnection, kind: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while True:
            found: dict[str, Any] = orjson.loads(await socket.recv())
            if found["type"] == kind:
                return found


async def follow(hub: Any, offer: Offer | None) -> ClientConnection:
    extensions = None if offer is None else [offer]
    socket = await connect(f"{hub.ws}?channel=news", compression=None, extensions=extensions)
    await message(socket, "subscribed")
    return socket


def agreed(socket: ClientConnection) -> Counted | None:
    extensions = socket.protocol.extensions
    return extensions[0] if extensions else None  # type: ignore[return-value]


async def publish(hub: Any, *payloads: Any) -> None:
    producer = await asyncpg.connect(hub.dsn)
    await producer.execute(
        "SELECT hub.publish('news', p) FROM unnest($1::jsonb[]) AS p", [orjson.dumps(p).decode() for p in payloads]
    )
    await producer.close()


async def test_who_offers_it_gets_deflated_events_and_others_the_same_ones_plain(hub: Any) -> None:
    sockets = [await follow(hub, offer) for offer in (Offer(client_max_window_bits=True), Offer(), None)]
    for number in range(3):
        await publish(hub, {"text": TEXT, "number": number})
        for socket in sockets:
            (event,) = (await message(socket, "events"))["events"]
            assert event["payload"] == {"text": TEXT, "number": number}
    for socket in sockets[:2]:
        extension = agreed(socket)
        assert extension is not None
        assert extension.deflated == 3
    assert agreed(sockets[2]) is None
    for socket in sockets:
        await socket.close()


async def test_who_offers_a_smaller_window_gets_plain_frames(hub: Any) -> None:
    socket = await follow(hub, Offer(server_max_window_bits=10))
    await publish(hub, TEXT)
    assert (await message(socket, "events"))["events"][0]["payload"] == TEXT
    extension = agreed(socket)
    assert extension is None or extension.deflated == 0
    await socket.close()


async def test_commands_may_be_deflated_too_and_a_bomb_is_refused(hub: Any) -> None:
    socket = await follow(hub, Offer(client_max_window_bits=True))
    await socket.send(orjson.dumps({"type": "publish", "id": 1, "channel": "news", "payload": TEXT}).decode())
    assert (await message(socket, "events"))["events"][0]["payload"] == TEXT
    await socket.send("x" * (8 << 20))  # a few KB on the wire
    with pytest.raises(ConnectionClosed) as closed:
        await message(socket, "none")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_it_is_off_unless_asked_for(database: str) -> None:
    async with running(database) as hub:
        socket = await follow(hub, Offer())
        assert agreed(socket) is None
        await socket.close()


async def test_a_slow_client_that_agreed_to_it_loses_nothing(database: str) -> None:
    """What is replayed to it is plain, what comes live is deflated: both in one stream."""
    async with running(database, compression="on", max_buffer=64 * 1024) as hub:
        socket = await follow(hub, Offer())
        noise = [zlib.crc32(bytes([number % 256])) for number in range(500)]
        for start in range(0, 4_000, 500):
            await publish(hub, *({"n": start + number, "pad": [noise] * 2} for number in range(500)))
        await publish(hub, {"n": "end"})
        got: list[Any] = []
        while not got or got[-1] != "end":
            got += [event["payload"]["n"] for event in (await message(socket, "events"))["events"]]
        assert got == [*range(4_000), "end"]
        await socket.close()
