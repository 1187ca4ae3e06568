"""The Python client: follows channels of a hub, through lost connections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from hub import backoff, errors, protocol
from hub.errors import SetupError

_DRAIN_SPREAD: Final = 5.0  # seconds over which clients come back to a hub that went away on purpose
_CONNECT_TIMEOUT: Final = 10.0
_MAX_FRAME: Final = 8 << 20
_RECONNECT: Final = {close.code: close.reconnect for close in errors.CLOSE_CODES}


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection ended. It is made again after `delay` seconds; what is ephemeral is missed meanwhile."""

    reason: str
    delay: float


class RefusedError(SetupError):
    """The hub does not want what was asked for, now or later."""


async def follow(
    url: str, channels: Sequence[str], *, on_lost: Callable[[Lost], None] = lambda _: None
) -> AsyncGenerator[dict[str, Any], None]:
    """The hub's messages of type `subscribed`, `events` and `gap`, in order, for ever.

    Reconnects by itself; `on_lost` hears of it. Raises RefusedError where coming back would be no use: an
    error frame, a close code that says so, something that is no hub.
    """
    attempt = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        while True:
            lost = "the hub cannot be reached"
            wait = backoff.delay(attempt)
            attempt += 1
            try:
                async with aclosing(_once(session, url, channels)) as messages:
                    async for message in messages:
                        attempt = 0
                        yield message
            except _Closed as closed:
                lost, wait = closed.reason, closed.delay or backoff.delay(attempt)
            except (aiohttp.ClientConnectionError, TimeoutError, OSError) as error:
                lost = f"{lost}: {error}" if str(error) else lost
            on_lost(Lost(lost, wait))
            await asyncio.sleep(wait)


class _Closed(Exception):  # noqa: N818 - not an error, an end
    def __init__(self, reason: str, delay: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.delay = delay


async def _once(
    session: aiohttp.ClientSession, url: str, channels: Sequence[str]
) -> AsyncGenerator[dict[str, Any], None]:
    """The messages of one connection; ends by raising _Closed."""
    async with await _open(session, url) as socket:
        await socket.send_str(orjson.dumps({"type": "subscribe", "id": 1, "channels": channels}).decode())
        patience: float | None = _CONNECT_TIMEOUT
        while True:
            received = await socket.receive(timeout=patience)
            if received.type is not aiohttp.WSMsgType.TEXT:
                raise _closed(socket)
            message: dict[str, Any] = orjson.loads(received.data)
            match message.get("type"):
                case "welcome":
                    patience = 2 * message["heartbeat"]
                case "error":
                    raise RefusedError(f"The hub refused: {message['message']}")
                case "subscribed" | "events" | "gap":
                    yield message


async def _open(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            return await session.ws_connect(url, protocols=(protocol.SUBPROTOCOL,), max_msg_size=_MAX_FRAME)
    except aiohttp.WSServerHandshakeError as error:
        if error.status >= 500:
            raise _Closed(f"the hub answered {error.status}") from None
        raise RefusedError(f"{url} is no hub for us: it answered {error.status} {error.message}.") from None
    except aiohttp.InvalidURL:
        raise RefusedError(f"{url!r} is no address of a hub. One looks like ws://127.0.0.1:8080/ws.") from None


def _closed(socket: aiohttp.ClientWebSocketResponse) -> Exception:
    code = socket.close_code
    if code is not None and not _RECONNECT.get(code, True):
        return RefusedError(f"The hub closed the connection for good, with code {code}.")
    if code == errors.DRAIN.code:
        return _Closed("the hub is going away", random.uniform(0, _DRAIN_SPREAD))  # noqa: S311
    return _Closed("the connection was lost")
