"""A subscriber's place in the stream: what it is subscribed to and how far it has been written to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from hub.fanout import frames

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


class Session:
    """One connection as the fan-out sees it.

    Live, it is in the group of its names. Behind, since its buffer is full, it is in none, and `counted`
    remembers for each name how many events there had been when it was last written to.
    """

    __slots__ = ("after", "counted", "group", "names", "outlet", "pulse", "unknown")

    def __init__(self, outlet: Outlet) -> None:
        self.outlet: Outlet = outlet
        self.names: frozenset[str] = frozenset()
        self.group: Group | None = None
        self.after = 0  # number of the last batch that it has been written, or had nothing to get from
        self.counted: dict[str, int] | None = None  # not None: behind
        self.unknown: set[str] = set()  # behind: names that lost events nobody counted
        self.pulse: object = None  # belongs to the pulse that watches over it

    def __repr__(self) -> str:
        place = "behind" if self.behind else "live"
        return f"<Session {place} after={self.after} names={len(self.names)} unsent={self.unsent}>"

    @property
    def behind(self) -> bool:
        return self.counted is not None

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet; the kernel's own buffer does not count."""
        return self.outlet.get_write_buffer_size()

    def send(self, message: bytes) -> None:
        """Write one message of its own, behind all that was written before."""
        self.write(frames.text(message))

    def write(self, data: bytes) -> None:
        """Write whole frames. Nothing happens on a connection that is closed already."""
        try:  # not contextlib.suppress, which costs as much again as the call  # noqa: SIM105
            self.outlet.write(data)
        except RuntimeError:  # uvloop: the handle is closed, and its reader is about to notice
            pass
