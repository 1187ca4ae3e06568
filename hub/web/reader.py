"""Who reads a stream: whether they are still there, and still reading."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self, TypeVar

from aiohttp import web

from hub.web.socket import transport_of

_GLANCE: Final = 1.0  # seconds at the most between two looks: aiohttp tells nobody that a client has left

T = TypeVar("T")


class Reader:
    """The client of `request`, that reads `response`; all methods raise ConnectionError if it does no more.

    That is where it has gone, or has read nothing for `patience` seconds while something was sent. Whatever it was that
    kept the response from its end, the connection is then cut, so that nobody takes it for a whole one.
    """

    def __init__(self, request: web.Request, response: web.StreamResponse, patience: float) -> None:
        self._transport = transport_of(request)
        self._response = response
        self._patience = patience
        self._unsent, self._shrunk = math.inf, 0.0  # bytes, and when they last became fewer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._response.prepared:
            self._transport.abort()

    async def wait(self, work: Awaitable[T]) -> T:
        """The result of `work`, which is cancelled if the client goes."""
        return await self._watching(work, self._check_there)

    async def write(self, data: bytes) -> None:
        """Send `data`; returns when there is room for more."""
        self._unsent = math.inf
        await self._watching(self._response.write(data), self._check_reading)

    async def end(self, data: bytes) -> None:
        """Send `data` and the end."""
        self._unsent = math.inf
        await self._watching(self._response.write_eof(data), self._check_reading)

    async def _watching(self, work: Awaitable[T], check: Callable[[], None]) -> T:
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait((task,), timeout=min(_GLANCE, self._patience / 4)))[0]:
                check()
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        return task.result()

    def _check_there(self) -> None:
        if self._transport.is_closing():
            raise ConnectionResetError("the client has left")

    def _check_reading(self) -> None:
        """As long as bytes are unsent, a client that has left without a word looks like one that does not read."""
        now, unsent = asyncio.get_running_loop().time(), self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent, self._shrunk = unsent, now
        elif now - self._shrunk > self._patience:
            raise ConnectionAbortedError(f"nothing was read for {self._patience:g} s")
