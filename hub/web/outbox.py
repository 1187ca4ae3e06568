"""What one websocket client publishes: handed over in order, each answered after its commit."""

from __future__ import annotations

import asyncio
from typing import Any

from hub import fence, protocol
from hub.errors import Code, CommandError
from hub.fanout.sessions import Session
from hub.web.ports import Geography, Publishing, no_geography


class Outbox:
    """Publishes through `publisher`, and answers to `session`; at most `most` are under way at a time."""

    __slots__ = ("_fewer", "_geometry", "_most", "_outstanding", "_publisher", "_session")

    def __init__(self, publisher: Publishing, session: Session, most: int, geometry: Geography = no_geography) -> None:
        self._geometry = geometry
        self._publisher = publisher
        self._session = session
        self._most = most
        self._outstanding = 0
        self._fewer: asyncio.Future[None] | None = None  # done when one of them has ended, where that is waited for

    async def put(self, command: protocol.Publish, payload: str) -> None:
        """Hand the event over; the reply comes after the commit, while the next commands are read."""
        place = fence.placed(command.place, self._geometry())
        while self._outstanding >= self._most:
            self._fewer = asyncio.get_running_loop().create_future()
            await self._fewer
        await self._publisher.room()
        future: asyncio.Future[Any]
        if command.durable:
            future = self._publisher.publish(command.channel, payload, command.tags, command.key, place=place)
        else:
            future = self._publisher.notify(command.channel, payload)
        self._outstanding += 1
        future.add_done_callback(lambda done: self._published(command.id, done))

    def _published(self, command_id: int, done: asyncio.Future[Any]) -> None:
        self._outstanding -= 1
        if self._fewer is not None and not self._fewer.done():
            self._fewer.set_result(None)
        if done.cancelled():
            error: BaseException | None = CommandError(Code.UNAVAILABLE, "The hub is going away.")
        else:
            error = done.exception()
        if error is None:
            self._session.send(protocol.published(command_id, done.result()))
            return
        if not isinstance(error, CommandError):
            error = CommandError(Code.INTERNAL, "The event was not published, for a reason inside the hub.")
        # A copy: one failure may be the answer to many publishes.
        self._session.send(protocol.error(CommandError(error.code, error.message, command_id=command_id)))
