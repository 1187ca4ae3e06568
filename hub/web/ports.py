"""What the web needs of the rest of the hub, as seen from here; `hub.service` plugs it in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hub.fanout.fanout import Fanout
from hub.fanout.pulse import Pulse


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
        self, channel: str, payload: str, tags: Sequence[str], key: str | None
    ) -> asyncio.Future[int | None]: ...


class Ready(Protocol):
    """Tells what keeps the hub from serving: nothing, or one reason each."""

    def __call__(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on clients. `frame` and `buffer` are bytes."""

    clients: int = 20_000
    channels: int = 1_000
    frame: int = 1 << 20
    buffer: int = 1 << 20
    outstanding: int = 256


@dataclass(frozen=True, slots=True)
class Ports:
    """All that a websocket or a request may touch. `heartbeat` is in seconds."""

    fanout: Fanout
    pulse: Pulse
    listener: Listening
    publisher: Publishing
    ready: Ready
    limits: Limits
    heartbeat: float
    compression: bool = False
