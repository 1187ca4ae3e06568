"""A subscriber's place in the stream: what it is subscribed to and how far it has been written to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from hub.cursor import Cursor
from hub.fanout.framing import WEBSOCKET, Framing
from hub.selection import EMPTY, Selection

if TYPE_CHECKING:
    from hub.fanout.groups import Group


class Outlet(Protocol):
    """Where a session's bytes go. `asyncio.Transport` is one."""

    def write(self, data: bytes, /) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def abort(self) -> None: ...


class Nowhere:
    """The outlet of a session that was closed: nothing may follow a close frame."""

    def write(self, data: bytes, /) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        pass


NOWHERE: Final = Nowhere()


NO_CHANNELS: Final[frozenset[str]] = frozenset()  # one for all: Python makes a new one, of 216 bytes, each time


class Replay:
    """Something that a session has to get from the log before it is live.

    `position` is how far it got; None while `last`, the number of newest events to begin with, is to be looked up.
    """

    __slots__ = ("awaited", "last", "lossless", "position", "selection", "unannounced")

    def __init__(self, selection: Selection, position: Cursor | None, last: int | None = None) -> None:
        self.selection = selection
        self.position = position
        self.last = last
        self.lossless = True
        self.awaited = False  # the tail was asked to look, since the position lies ahead of it
        self.unannounced = last is not None  # where the log begins is no loss here: nobody asked for all of it

    @property
    def asked_by(self) -> int | None:
        """The id of the subscribe that asked for it, if one did."""
        return None


class Join(Replay):
    """A subscribe under way: command `id`, with its names in the order in which they came."""

    __slots__ = ("id", "names")

    def __init__(
        self,
        command_id: int,
        names: Sequence[str],
        selection: Selection,
        position: Cursor | None = None,
        last: int | None = None,
    ) -> None:
        super().__init__(selection, position, last)
        self.id = command_id
        self.names = names

    @property
    def asked_by(self) -> int | None:
        return self.id


class Session:
    """One connection as the fan-out sees it.

    Live, it is in the group of its selection. Behind, since its buffer was full, it is in none, and has a replay.
    """

    __slots__ = (
        "after",
        "behind",
        "counted",
        "deliveries",
        "ended",
        "framing",
        "group",
        "joins",
        "outlet",
        "pulse",
        "reading",
        "selection",
        "told",
        "unknown",
    )

    def __init__(self, outlet: Outlet, framing: Framing = WEBSOCKET) -> None:
        self.outlet: Outlet = outlet
        self.framing = framing
        self.selection: Selection = EMPTY
        self.group: Group | None = None
        self.after = 0  # number of the last batch that it has been written, or had nothing to get from
        self.behind: Replay | None = None
        self.counted: dict[str, int] | None = None  # behind: NOTIFYs of each channel, when it was last written to
        self.unknown = NO_CHANNELS  # behind: channels that lost NOTIFYs nobody counted
        self.joins: Sequence[Join] = ()  # in the order in which they came
        self.reading: asyncio.Task[Any] | None = None  # a look into the log under way, for the first thing to catch up
        self.deliveries = 0  # events that were written to it
        self.ended: int | None = None  # the close code that the pulse ended it with
        self.told: Cursor | None = None  # by the last heartbeat
        self.pulse: object = None  # belongs to the pulse that watches over it

    def __repr__(self) -> str:
        place = "behind" if self.behind else "live"
        return f"<Session {place} after={self.after} names={len(self.selection.names)} unsent={self.unsent}>"

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet; the kernel's own buffer does not count."""
        return self.outlet.get_write_buffer_size()

    def send(self, message: bytes, cursor: str | None = None) -> None:
        """Write one message of its own, behind all that was written before; `cursor` is the one in it."""
        self.write(self.framing.own(message, cursor))

    def write(self, data: bytes) -> None:
        """Write what is whole in its framing. Nothing happens on a connection that is closed already."""
        try:  # not contextlib.suppress, which costs as much again as the call  # noqa: SIM105
            self.outlet.write(data)
        except RuntimeError:  # uvloop: the handle is closed, and its reader is about to notice
            pass
