"""What one writes first with aiohttp: `await send_str()` for each client and event. Path /, publisher at /publish."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web

clients: set[web.WebSocketResponse] = set()


async def subscribe(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    clients.add(socket)
    async for _ in socket:
        pass
    clients.discard(socket)
    return socket


async def publish(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    async for message in socket:
        for client in tuple(clients):
            await client.send_str(message.data)
    return socket


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.get("/", subscribe), web.get("/publish", publish)])
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop=uvloop.new_event_loop(),
        print=None,
        access_log=None,
        backlog=4096,
    )
