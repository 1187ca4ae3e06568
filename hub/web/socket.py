"""The websocket itself: aiohttp reads it, the fan-out writes to its transport.

Writing prepared frames beside aiohttp's own writer is safe because every write is whole frames, aiohttp itself sends
nothing that could be compressed, and `on_close` takes the session out of the fan-out before aiohttp writes a close
frame, whatever the reason for it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import zlib
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import WSCloseCode, web

from hub import errors, protocol
from hub.fanout import frames
from hub.web.strict import Parser, Strict

_KERNEL_BUFFER: Final = 256 * 1024
_LINGER: Final = 1.0  # seconds in which a client that broke a rule may read which one
_LOOK: Final = 0.02  # seconds between two looks whether it has
_VIOLATIONS: Final = {close.code: close for close in (errors.PROTOCOL, errors.NOT_UTF8, errors.TOO_BIG)}
"""What aiohttp closes for by itself."""


class Socket(web.WebSocketResponse):
    """A websocket that says when it is about to close.

    `on_close` is called before the close frame is written. Pings and pongs are the caller's.
    """

    def __init__(self, *, max_frame: int, compress: bool) -> None:
        super().__init__(
            timeout=5,
            autoping=False,
            compress=compress,
            max_msg_size=max_frame,
            protocols=(protocol.SUBPROTOCOL,),
        )
        self.on_close: Callable[[], None] = _nothing
        self.ended: int | None = None  # the code that the hub has closed with, of itself

    @property
    def deflated(self) -> bool:
        """Whether frames may be deflated: the client offered it, and did not ask for a smaller window than the rest."""
        return self.compress == zlib.MAX_WBITS

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: Any) -> None:
        """Not public: where aiohttp gives a connection its parser. A test fails where a new one does so elsewhere."""
        self._transport = transport_of(request)
        super()._post_start(cast("web.BaseRequest", _Guarded(request)), protocol, writer)

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        if not self.closed:
            self.on_close()
            if (violation := _VIOLATIONS.get(code)) is not None:
                self.ended = code
                await self._linger(violation)
        return await super().close(code=code, message=message, drain=drain)

    async def _linger(self, violation: errors.Close) -> None:
        """Say goodbye to a client that is still sending, and throw away what it sends until it has hung up, too.

        aiohttp would hang up at once; then the kernel answers what comes by RST, and the client never reads the reason.
        """
        transport = self._transport
        with contextlib.suppress(OSError, RuntimeError):  # it has gone; uvloop: the handle is closed
            transport.write(frames.close(violation.code, violation.reason))
            if transport.can_write_eof():
                transport.write_eof()
            transport.resume_reading()
        for _ in range(round(_LINGER / _LOOK)):
            if transport.is_closing():
                break
            await asyncio.sleep(_LOOK)  # nothing tells
        transport.abort()  # what aiohttp writes now goes nowhere

    async def depart(self) -> None:
        """Send the client away, since the hub ends."""
        await self.end(errors.DRAIN)

    async def end(self, close: errors.Close) -> None:
        """Close with a code of the table. `drain` is off: the peer may have stopped reading for good."""
        self.ended = self.ended or close.code
        await self.close(code=close.code, message=close.reason.encode(), drain=False)

    def end_soon(self, close: errors.Close) -> None:
        """The same for who cannot wait."""
        self._end = asyncio.create_task(self.end(close), name="close")


class _Guarded:
    """A request, and its connection, that put what is Strict before a parser of frames."""

    def __init__(self, request: web.BaseRequest) -> None:
        self.protocol = self
        self._protocol = request.protocol
        self.keep_alive = request.protocol.keep_alive

    def set_parser(self, parser: Parser, data_received_cb: Callable[[], None] | None = None) -> None:
        self._protocol.set_parser(Strict(parser), data_received_cb)  # type: ignore[arg-type]


def _nothing() -> None:
    pass


def transport_of(request: web.BaseRequest) -> asyncio.Transport:
    """The connection's transport, to be kept: aiohttp forgets it when the connection is lost.

    The kernel's buffer of it is bounded: left alone it grows to megabytes for a client that does not read.
    """
    if (transport := request.transport) is None:
        raise ConnectionResetError("the client has left already")
    if (raw := transport.get_extra_info("socket")) is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
    return transport
