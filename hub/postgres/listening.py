"""A connection that listens: notifications as they come, and LISTEN for many channels at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from hub.postgres.telemetry import TellingConnection

_STATEMENT: Final = 1_000  # channels in one statement


class Notification(NamedTuple):
    """What a NOTIFY brought."""

    channel: str
    payload: str


class ListeningConnection(TellingConnection):
    """Hands every notification to `on_notification`, in order of arrival, from the moment LISTEN took effect.

    asyncpg's own add_listener sends a statement for each channel and registers the callback afterwards: under
    load it misses what comes between. So this takes them one step earlier, at a method that asyncpg's protocol
    calls for each NotificationResponse. It is not public; a test fails where a new asyncpg calls another one.
    """

    __slots__ = ("on_notification",)
    on_notification: Callable[[Notification], None] | None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.on_notification = None

    def _process_notification(self, _pid: int, channel: str, payload: str) -> None:
        if self.on_notification is not None:
            self.on_notification(Notification(channel, payload))

    async def listen(self, channels: Sequence[str]) -> None:
        """LISTEN to all of these; each thousand takes effect in one step."""
        await self._each("LISTEN", channels)

    async def unlisten(self, channels: Sequence[str]) -> None:
        await self._each("UNLISTEN", channels)

    async def _each(self, verb: str, channels: Sequence[str]) -> None:
        for start in range(0, len(channels), _STATEMENT):
            part = channels[start : start + _STATEMENT]
            await self.execute("; ".join(f"{verb} {quoted(channel)}" for channel in part))


def quoted(name: str) -> str:
    """`name` as an identifier of SQL, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
