"""A websocket client that only receives: as thin as asyncpg's own callback, so that neither side's library counts."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from urllib.parse import urlsplit


class Receiver(asyncio.Protocol):
    """Hands each text frame's payload to `on_frame`; the hub's pings are left unanswered."""

    def __init__(self, on_frame: Callable[[bytes], None]) -> None:
        self._on_frame = on_frame
        self._buffer = bytearray()
        self._open = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a TCP connection's is a Transport

    def data_received(self, data: bytes) -> None:
        if self._open and not self._buffer and data[:2] == b"\x81\x7e" and len(data) == 4 + (data[2] << 8 | data[3]):
            self._on_frame(data[4:])  # one whole frame of 126 bytes or more, as nearly always here
            return
        self._buffer += data
        if not self._open:
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            assert b" 101 " in head, head
            self._open, self._buffer = True, rest
        while (frame := self._frame()) is not None:
            if frame[0] == 0x81:
                self._on_frame(frame[1])

    def _frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + size or len(buffer) < start:
            return None
        frame = buffer[0], bytes(buffer[start : start + size])
        del buffer[: start + size]
        return frame


async def receive(url: str, on_frame: Callable[[bytes], None]) -> asyncio.Transport:
    """Open the websocket `url`; close the transport to end."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: Receiver(on_frame), parts.hostname, parts.port)
    key = base64.b64encode(os.urandom(16)).decode()
    transport.write(
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return transport
