"""Requests in flight: those that somebody waits for an answer to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from hub.web.faults import WEBSOCKET

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Flight:
    """Counts them."""

    def __init__(self) -> None:
        self._count = 0
        self._landed = asyncio.Event()
        self._landed.set()

    @web.middleware
    def middleware(self, request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        """To be put around all handlers. It leaves websockets alone, which stay for long."""
        return handler(request) if request.path == WEBSOCKET else self._counted(request, handler)

    async def landed(self) -> None:
        """Return when there are none."""
        await self._landed.wait()

    async def _counted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._count += 1
        self._landed.clear()
        try:
            return await handler(request)
        finally:
            self._count -= 1
            if not self._count:
                self._landed.set()
