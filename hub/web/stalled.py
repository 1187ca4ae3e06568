"""Cutting off connections whose peers take nothing of what is written to them, whoever has written it.

Behind a close frame, and within a plain answer, nobody else looks: a transport that closes waits for its peer for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

import structlog
from aiohttp import web

_LOOKS: Final = 16  # in a row at which just as much is unsent: fewer might happen by chance to who reads slowly

_AT_ONCE: Final = struct.pack("ii", 1, 0)  # on closing: forget what waits, and say so to the peer

log = structlog.get_logger()


async def cut(server: web.Server, patience: float) -> None:
    """Cut off, from now on, each connection of `server` of which nothing is sent for `patience` seconds."""
    stuck: dict[asyncio.Transport, tuple[int, int]] = {}  # the bytes that wait, and at how many looks it was as many
    while True:
        await asyncio.sleep(patience / _LOOKS)
        before, stuck = stuck, {}
        for transport, size in _unsent(server):
            was, looks = before.get(transport, (size, 0))
            if size != was:
                stuck[transport] = size, 0
            elif looks < _LOOKS:
                stuck[transport] = size, looks + 1
            else:
                log.info("stalled", unsent=size)
                _reset(transport)


def _unsent(server: web.Server) -> list[tuple[asyncio.Transport, int]]:
    """The transports on which bytes wait, and how many."""
    found = []
    # `connections` has the handlers only, and one that is forced to close forgets its transport too early.
    for transport in server._connections.values():
        try:
            size = transport.get_write_buffer_size()
        except RuntimeError:  # uvloop's, of one that is closed
            continue
        if size:
            found.append((transport, size))
    return found


def _reset(transport: asyncio.Transport) -> None:
    """End it. Left to itself, the kernel would go on offering its peer what it had taken over."""
    if (peer := transport.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()
