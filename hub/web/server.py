"""Serving the site on an address, for as long as a block lasts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from hub import cursor
from hub.errors import SetupError
from hub.web import stalled
from hub.web.app import Web

_CUT: Final = 0.1  # seconds for handlers whose connection was closed under them
_LAST: Final = 1.0  # seconds at least for requests in flight
_MAX_LINE: Final = 2 * cursor.MAX_LENGTH  # of a request: a cursor may stand in the URL, and in a header


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to serve, and with which patience; port 0 takes a free one.

    `handshake_timeout` bounds in seconds how long a connection may take to ask, from its first byte or since it was
    answered last; a TLS handshake has as long. Whoever takes nothing of what is written for `stall_timeout` seconds is
    cut off. `drain_seconds` is what clients and requests have when it ends.
    """

    host: str
    port: int
    reuse_port: bool = False
    tls: ssl.SSLContext | None = None
    handshake_timeout: float = 10.0
    stall_timeout: float = 120.0
    drain_seconds: float = 5.0

    @property
    def scheme(self) -> str:
        return "http" if self.tls is None else "https"


@asynccontextmanager
async def serving(site: Web, endpoint: Endpoint, *, hurry: asyncio.Event) -> AsyncIterator[str]:
    """The URL at which `site` is served. Raises SetupError where it cannot listen.

    Leaving takes no new connections, sends the clients away, lets requests in flight end, and then closes what is left;
    at once when `hurry` is set.
    """
    # aiohttp has no limit for a request's head; but what it calls keep-alive counts until a head is whole.
    runner = web.AppRunner(
        site.app,
        access_log=None,
        shutdown_timeout=_CUT,
        keepalive_timeout=endpoint.handshake_timeout,
        max_line_size=_MAX_LINE,
        max_field_size=_MAX_LINE,
    )
    await runner.setup()
    assert runner.server is not None
    cutting = asyncio.create_task(stalled.cut(runner.server, endpoint.stall_timeout), name="cut stalled")
    try:
        with contextlib.closing(await _listen(runner.server, endpoint)) as server:
            host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
            yield f"{endpoint.scheme}://{host}:{server.sockets[0].getsockname()[1]}"
        await _unless(hurry, _drain(site, runner.server, endpoint.drain_seconds))
    finally:
        cutting.cancel()
        await runner.cleanup()


async def _listen(server: web.Server, endpoint: Endpoint) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            server,
            endpoint.host,
            endpoint.port,
            ssl=endpoint.tls,
            ssl_handshake_timeout=endpoint.handshake_timeout if endpoint.tls else None,
            backlog=4096,
            reuse_port=endpoint.reuse_port,
        )
    except OSError as error:
        raise SetupError(
            f"The hub cannot listen on {endpoint.host} port {endpoint.port}: {error.strerror or error}. "
            "Stop what uses it, or choose another one with --port (0 takes a free one)."
        ) from None


async def _drain(site: Web, server: web.Server, seconds: float) -> None:
    """Both have `seconds` together, and what clients leave of them is for requests."""
    now = asyncio.get_running_loop().time
    end = now() + seconds
    await site.drain(seconds)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(_LAST, end - now())):
            await site.landed()
            server.pre_shutdown()  # not before: a websocket, or a request's body, would hear no more of its client
            await asyncio.sleep(0)
            await server.shutdown(None)


async def _unless(hurry: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, up to the moment when there is hurry."""
    tasks = asyncio.create_task(work, name="drain"), asyncio.create_task(hurry.wait(), name="hurry")
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(ends[0], Exception):
        raise ends[0]
