"""What the web needs of the rest of the hub, as seen from here; `hub.service` plugs it in."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from hub.errors import CommandError
from hub.fanout.fanout import Fanout
from hub.fanout.pulse import Pulse
from hub.fence import Geometry, Place
from hub.grants import Grants
from hub.item import Item
from hub.page import Page
from hub.query import Query
from hub.web.roster import Roster


class Listening(Protocol):
    """Holds LISTENs for those who need them; `hub.postgres.listener` is one."""

    def hold(self, channel: str) -> None: ...
    def release(self, channel: str) -> None: ...
    async def listening(self, channels: Iterable[str]) -> None: ...


class Publishing(Protocol):
    """Publishes, by NOTIFY and into the log; `hub.postgres.publisher` is one."""

    async def room(self) -> None: ...
    def notify(self, channel: str, payload: str) -> asyncio.Future[None]: ...
    def publish(
        self, channel: str, payload: str, tags: Sequence[str], key: str | None, *, place: Place | None
    ) -> asyncio.Future[int | None]: ...


class Reading(Protocol):
    """A table at one moment: what goes before its rows, and these as JSON, some at a time."""

    @property
    def head(self) -> Mapping[str, object]: ...
    def batches(self) -> AsyncGenerator[list[bytes]]: ...


class Watching(Protocol):
    """Reads watched tables; `hub.postgres.watched` is one. All raise CommandError."""

    async def tables(self) -> Sequence[Mapping[str, object]]: ...
    async def channel(self, name: str) -> str | None: ...
    def open(self, name: str) -> AbstractAsyncContextManager[Reading]: ...


Check: TypeAlias = Callable[[Sequence[str]], Awaitable[None]]
"""Refuses channels, by raising CommandError."""


class Posting(Protocol):
    """Publishes many events; `hub.postgres.items` does. All raise CommandError."""

    async def publish(self, items: Sequence[Item]) -> list[int]: ...
    async def publish_each(self, items: Sequence[Item]) -> list[int | CommandError]: ...
    async def load(self, chunks: AsyncIterator[bytes], check: Check | None) -> int: ...


class Exporting(Protocol):
    """Events that were published: what is to be said of them, and these as JSON, or all as CSV."""

    @property
    def head(self) -> Mapping[str, str]: ...
    def batches(self) -> AsyncGenerator[list[bytes]]: ...
    async def copy(self, write: Callable[[bytes], Awaitable[None]]) -> None: ...


class Past(Protocol):
    """Reads the log for whoever does not stay; `hub.postgres.history` does. All raise CommandError."""

    async def page(self, query: Query) -> Page: ...
    def open(self, query: Query) -> AbstractAsyncContextManager[Exporting]: ...


class Geography(Protocol):
    """Tells whether there are places now, and who knows geometry then."""

    def __call__(self) -> Geometry | None: ...


def no_geography() -> None:
    """There are none."""


class Verifying(Protocol):
    """Tells what a token grants; `hub.tokens` does. Raises CommandError (`unauthenticated`)."""

    def verify(self, text: str) -> Grants: ...


class Authorizing(Protocol):
    """Is asked what a token alone would allow; `hub.postgres.authorize` is one. Raises CommandError."""

    async def refused(self, claims: str, action: str, names: Sequence[str]) -> Sequence[str]: ...


class Ready(Protocol):
    """Tells what keeps the hub from serving: nothing, or one reason each; `hub.readiness` does."""

    async def __call__(self) -> list[str]: ...


class Scraping(Protocol):
    """Gives the metrics as text for Prometheus; `hub.metrics` does."""

    async def __call__(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on clients. `frame` and `buffer` are bytes, `rate` is messages a second."""

    clients: int = 20_000
    per_address: int = 10_000
    rate: float = math.inf
    channels: int = 1_000
    frame: int = 1 << 20
    buffer: int = 1 << 20
    outstanding: int = 256


@dataclass(frozen=True, slots=True)
class Ports:
    """All that a websocket or a request may touch. `heartbeat` and the timeouts are in seconds.

    Without `tokens` the hub is open; with them a websocket has `auth_timeout` to send one.
    """

    fanout: Fanout
    pulse: Pulse
    listener: Listening
    publisher: Publishing
    watched: Watching
    posting: Posting
    past: Past
    ready: Ready
    scrape: Scraping
    limits: Limits
    heartbeat: float
    stall_timeout: float
    compression: bool = False
    geometry: Geography = no_geography
    tokens: Verifying | None = None
    authorizing: Authorizing | None = None
    auth_timeout: float = 10.0
    roster: Roster = field(default_factory=Roster)
