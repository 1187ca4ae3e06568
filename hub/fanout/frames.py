"""A websocket frame around bytes that are ready (RFC 6455, section 5.2): server to client, so unmasked."""

from __future__ import annotations

import zlib
from typing import Final

PING: Final = b"\x89\x00"
_TEXT: Final = 0x81
_DEFLATED: Final = 0xC1  # a text frame with RSV1
_WORTH_IT: Final = 128  # bytes from which a message is deflated


def text(payload: bytes) -> bytes:
    """One unfragmented text frame. `payload` has to be UTF-8."""
    return _frame(_TEXT, payload)


def deflated(payload: bytes) -> bytes:
    """The same for whoever agreed to permessage-deflate (RFC 7692), and to a window of 32 KB.

    It refers to nothing that was sent before, so one frame is right for all of them, whatever else each was sent.
    """
    if len(payload) < _WORTH_IT:
        return text(payload)
    deflate = zlib.compressobj(level=1, wbits=-15)
    body = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return _frame(_DEFLATED, body[:-4])  # RFC 7692, 7.2.1: without the 00 00 ff ff at the end


def _frame(head: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((head, size)) + payload
    if size < 65536:
        return bytes((head, 126)) + size.to_bytes(2, "big") + payload
    return bytes((head, 127)) + size.to_bytes(8, "big") + payload


def pong(payload: bytes) -> bytes:
    """The answer to a ping; control frames carry at most 125 bytes."""
    return bytes((0x8A, len(payload))) + payload


def close(code: int, reason: str) -> bytes:
    """Says goodbye; the reason is cut to what a control frame holds."""
    payload = code.to_bytes(2, "big") + reason.encode()[:123]
    return bytes((0x88, len(payload))) + payload
