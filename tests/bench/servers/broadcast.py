"""The library websockets and its broadcast(), on uvloop. Path /, publisher at /publish."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

clients: set[ServerConnection] = set()


async def handle(connection: ServerConnection) -> None:
    if connection.request is not None and connection.request.path == "/publish":
        with suppress(ConnectionClosed):
            async for message in connection:
                broadcast(clients, message)
        return
    clients.add(connection)
    await connection.wait_closed()
    clients.discard(connection)


async def main(port: int) -> None:
    async with serve(handle, "127.0.0.1", port, compression=None, ping_interval=None, backlog=4096):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
