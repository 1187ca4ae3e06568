"""The websocket itself: aiohttp reads it, the fan-out writes to its transport.

Writing prepared frames beside aiohttp's own writer is safe because every write is whole frames, aiohttp itself sends
nothing that could be compressed, and `on_close` takes the session out of the fan-out before aiohttp writes a close
frame, whatever the reason for it was.
"""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import Callable
from typing import Final

from aiohttp import WSCloseCode, web

from hub import errors, protocol

_KERNEL_BUFFER: Final = 256 * 1024


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

    @property
    def deflated(self) -> bool:
        """Whether frames may be deflated: the client offered it, and did not ask for a smaller window than the rest."""
        return self.compress == zlib.MAX_WBITS

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        if not self.closed:
            self.on_close()
        return await super().close(code=code, message=message, drain=drain)

    async def end(self, close: errors.Close) -> None:
        """Close with a code of the table. `drain` is off: the peer may have stopped reading for good."""
        await self.close(code=close.code, message=close.reason.encode(), drain=False)


def _nothing() -> None:
    pass


def transport_of(request: web.Request) -> asyncio.Transport:
    """The connection's transport, to be kept: aiohttp forgets it when the connection is lost.

    The kernel's buffer of it is bounded: left alone it grows to megabytes for a client that does not read.
    """
    if (transport := request.transport) is None:
        raise ConnectionResetError("the client has left already")
    if (raw := transport.get_extra_info("socket")) is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
    return transport
