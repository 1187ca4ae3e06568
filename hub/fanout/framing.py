"""How messages become the bytes of a connection, which is a websocket or a stream of server-sent events."""

from __future__ import annotations

from typing import Final, Protocol

from hub import protocol
from hub.errors import Close
from hub.fanout import frames

Message = tuple[bytes, str | None]
"""A message, and the cursor that stands in it."""


class Framing(Protocol):
    """One kind of connection; whatever it makes is whole, so it may stand between any two others."""

    @property
    def ping(self) -> bytes:
        """What is answered at once by a client that lives; empty where clients cannot answer."""

    @property
    def repeats(self) -> bool:
        """Whether a sign of life has the cursor even where the one before had it."""

    def shared(self, message: bytes, cursor: str | None, /) -> bytes:
        """A message that is made once for many."""

    def own(self, message: bytes, cursor: str | None, /) -> bytes:
        """A message for one connection."""

    def confirmed(self, reply: bytes, cursor: str, /) -> bytes:
        """Tells that a subscribe is live, and from where on; `reply` says so in words."""

    def sign(self, cursor: str | None, /) -> bytes:
        """A sign of life; with a `cursor`, all up to there was written."""

    def goodbye(self, close: Close, /) -> bytes:
        """The last that is written."""


class _Websocket:
    ping = frames.PING
    repeats = False
    _alive = frames.text(protocol.heartbeat(None))

    def shared(self, message: bytes, _cursor: str | None, /) -> bytes:
        return frames.text(message)

    def own(self, message: bytes, _cursor: str | None, /) -> bytes:
        return frames.text(message)

    def confirmed(self, reply: bytes, _cursor: str, /) -> bytes:
        return frames.text(reply)

    def sign(self, cursor: str | None, /) -> bytes:
        return self._alive if cursor is None else frames.text(protocol.heartbeat(cursor))

    def goodbye(self, close: Close, /) -> bytes:
        return frames.close(close.code, close.reason)


class _Deflated(_Websocket):
    def shared(self, message: bytes, _cursor: str | None, /) -> bytes:
        return frames.deflated(message)


class _ServerSent:
    """Server-sent events (HTML Living Standard, section 9.2).

    The end of the stream is goodbye enough: a browser that sees it comes back by itself.
    """

    ping = b""
    repeats = True

    def shared(self, message: bytes, cursor: str | None, /) -> bytes:
        if b"\n" in message or b"\r" in message:  # between the tokens of a payload, which a NOTIFY may have anyhow
            message = b"\ndata: ".join(message.splitlines())
        if cursor is None:
            return b"data: %b\n\n" % message
        return b"id: %b\ndata: %b\n\n" % (cursor.encode(), message)

    own = shared

    def confirmed(self, _reply: bytes, cursor: str, /) -> bytes:
        return self.sign(cursor)

    def sign(self, cursor: str | None, /) -> bytes:
        return b":\n\n" if cursor is None else b"id: %b\n\n" % cursor.encode()

    def goodbye(self, _close: Close, /) -> bytes:
        return b""


WEBSOCKET: Final[Framing] = _Websocket()
DEFLATED: Final[Framing] = _Deflated()
"""For whoever agreed to it; what is for one connection alone is not worth it."""
SERVER_SENT: Final[Framing] = _ServerSent()
