"""The Python client: follows channels of a hub, through lost connections."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec
import orjson
from aiohttp import hdrs

from hub import backoff, errors, protocol
from hub.errors import Code, SetupError

_DRAIN_SPREAD: Final = 5.0  # seconds over which clients come back to a hub that went away on purpose
_CONNECT_TIMEOUT: Final = 10.0
_MAX_FRAME: Final = 8 << 20
_PASSING: Final = (Code.UNAVAILABLE, Code.INTERNAL)  # errors that another try may not meet
_TOKEN: Final = re.compile(r"[\w.-]+", re.ASCII)
_TOKEN_REFUSED: Final = {401: "it is no good, or not any more. Get a new one.", 403: "it grants nothing here."}
_RECONNECT: Final = {close.code: close.reconnect for close in errors.CLOSE_CODES}

_parts: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_events: Final = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection ended. It is made again after `delay` seconds; NOTIFYs are missed meanwhile."""

    reason: str
    delay: float


class RefusedError(SetupError):
    """The hub does not want what was asked for, now or later."""


async def follow(
    url: str,
    channels: Sequence[str],
    *,
    since: str | None = None,
    last: int | None = None,
    ephemeral: bool = True,
    fence: Mapping[str, Any] | None = None,
    token: str | None = None,
    on_lost: Callable[[Lost], None] = lambda _: None,
) -> AsyncGenerator[dict[str, Any], None]:
    """The hub's messages of type `subscribed`, `events`, `gap` and `cursor`, in order, for ever.

    Begins behind the cursor `since`, or with the newest `last` durable events, or else with what comes next.
    `channels` may be patterns; without `ephemeral` no NOTIFYs are wanted. `fence` is `within`, `bbox` or
    `near`, as on the wire, for what happens inside only. `token` is what the hub lets us in by.

    A message's `events` are the JSON that the hub has sent, as bytes: Python's numbers do not hold all of Postgres's.

    Its `cursor` is the position that it leads to. Whoever stores it together with what the message did, and
    later begins with `since` that cursor, gets each durable event exactly once. A message without a cursor moves
    nothing: it has NOTIFYs only, or word of their loss.

    Reconnects by itself and goes on behind the last message; `on_lost` hears of it. Raises RefusedError where coming
    back would be no use: an error frame, a close code that says so, something that is no hub.
    """
    options = {} if ephemeral else {"ephemeral": False}
    place = _Place(channels, since, last, options | dict(fence or {}))
    attempt = 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), headers=_headers(token)) as session:
        while True:
            lost = "the hub cannot be reached"
            wait = backoff.delay(attempt)
            attempt += 1
            try:
                async with aclosing(_once(session, url, place)) as messages:
                    async for message in messages:
                        attempt = 0
                        yield message
            except _Closed as closed:
                lost, wait = closed.reason, closed.delay or backoff.delay(attempt)
            except (aiohttp.ClientConnectionError, TimeoutError, OSError) as error:
                lost = f"{lost}: {error}" if str(error) else lost
            on_lost(Lost(lost, wait))
            await asyncio.sleep(wait)


class _Place:
    """How far a follower got, through all its connections: behind `cursor`, if it has one yet.

    There is one subscribe to a connection, so one cursor does for what is confirmed and for what is not: a replay
    begins where the connection before it ended.
    """

    def __init__(
        self, channels: Sequence[str], since: str | None, last: int | None, options: Mapping[str, Any]
    ) -> None:
        self._command = {"type": "subscribe", "id": 1, "channels": list(channels), **options}
        self._start = {"since": since, "last": last}
        self._cursor: str | None = None
        self._confirmed = False

    def subscribe(self) -> str:
        """The command that a new connection begins with."""
        self._confirmed = False
        start = self._start if self._cursor is None else {"since": self._cursor}
        given = {name: value for name, value in start.items() if value is not None}
        return orjson.dumps(self._command | given).decode()

    def move(self, message: dict[str, Any]) -> None:
        """Go where `message` leads. A cursor that leads nowhere is taken out of it."""
        if message["type"] == "subscribed":
            self._confirmed = True
        if "for" not in message and not self._confirmed:
            message.pop("cursor", None)  # it is of subscriptions that are confirmed, and there is none
        self._cursor = message.get("cursor", self._cursor)


class _Closed(Exception):  # noqa: N818 - not an error, an end
    def __init__(self, reason: str, delay: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.delay = delay


async def _once(session: aiohttp.ClientSession, url: str, place: _Place) -> AsyncGenerator[dict[str, Any], None]:
    """The messages of one connection, which move `place`; ends by raising _Closed."""
    async with await _open(session, url) as socket:
        await socket.send_str(place.subscribe())
        patience: float | None = _CONNECT_TIMEOUT
        while True:
            received = await socket.receive(timeout=patience)
            if received.type is not aiohttp.WSMsgType.TEXT:
                raise _closed(socket)
            message = _read(received.data)
            match message.get("type"):
                case "welcome":
                    patience = 2 * message["heartbeat"]
                case "error":
                    raise _refused(message)
                case "subscribed" | "events" | "gap" | "cursor":
                    place.move(message)
                    if message["type"] != "cursor" or "cursor" in message:
                        yield message


def _read(frame: str) -> dict[str, Any]:
    """A message, but for its events."""
    parts = _parts.decode(frame)
    events = {"events": list(map(bytes, _events.decode(parts.pop("events"))))} if "events" in parts else {}
    return {name: msgspec.json.decode(part) for name, part in parts.items()} | events


def _headers(token: str | None) -> dict[str, str]:
    if token is None:
        return {}
    if not _TOKEN.fullmatch(token.strip()):
        raise RefusedError("The token is none: it is to have letters, digits, `-`, `_` and dots only.")
    return {hdrs.AUTHORIZATION: f"Bearer {token.strip()}"}


def _refused(error: dict[str, Any]) -> Exception:
    if error.get("code") == Code.UNAUTHENTICATED:
        return RefusedError("The hub wants a token, which `pghub listen` takes from HUB_TOKEN.")
    if error.get("code") in _PASSING:
        return _Closed(f"the hub cannot serve now: {error['message']}")
    return RefusedError(f"The hub refused: {error['message']}")


async def _open(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            return await session.ws_connect(url, protocols=(protocol.SUBPROTOCOL,), max_msg_size=_MAX_FRAME)
    except aiohttp.WSServerHandshakeError as error:
        if error.status >= 500 or error.status == 429:
            raise _Closed(f"the hub answered {error.status}") from None
        if error.status in _TOKEN_REFUSED:
            raise RefusedError(f"{url} refuses the token: {_TOKEN_REFUSED[error.status]}") from None
        raise RefusedError(f"{url} is no hub for us: it answered {error.status} {error.message}.") from None
    except aiohttp.ClientConnectorCertificateError as error:
        reason = getattr(error.certificate_error, "verify_message", "") or error.certificate_error
        raise RefusedError(
            f"The certificate of {url} is not to be trusted: {str(reason).rstrip('.')}. Where its CA is one of your "
            "own, name the CA's file in SSL_CERT_FILE."
        ) from None
    except aiohttp.InvalidURL:
        raise RefusedError(f"{url!r} is no address of a hub. One looks like ws://127.0.0.1:8080/ws.") from None


def _closed(socket: aiohttp.ClientWebSocketResponse) -> Exception:
    code = socket.close_code
    if code is not None and not _RECONNECT.get(code, True):
        return RefusedError(f"The hub closed the connection for good, with code {code}.")
    if code == errors.DRAIN.code:
        return _Closed("the hub is going away", random.uniform(0, _DRAIN_SPREAD))  # noqa: S311
    return _Closed("the connection was lost")
