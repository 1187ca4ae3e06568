"""A websocket frame around bytes that are ready (RFC 6455, section 5.2): server to client, so unmasked."""

from __future__ import annotations

from typing import Final

PING: Final = b"\x89\x00"


def text(payload: bytes) -> bytes:
    """One unfragmented text frame. `payload` has to be UTF-8."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def pong(payload: bytes) -> bytes:
    """The answer to a ping; control frames carry at most 125 bytes."""
    return bytes((0x8A, len(payload))) + payload


def close(code: int, reason: str) -> bytes:
    """Says goodbye; the reason is cut to what a control frame holds."""
    payload = code.to_bytes(2, "big") + reason.encode()[:123]
    return bytes((0x88, len(payload))) + payload
