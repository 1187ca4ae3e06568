"""Groups: all sessions with the same set of names get the same bytes, so these are made once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hub import protocol
from hub.event import Event
from hub.fanout import frames
from hub.fanout.sessions import Session


@dataclass(frozen=True, slots=True)
class Gap:
    """Word of a loss, in its place among the events. `dropped` is None where nobody counted."""

    channels: frozenset[str]
    reason: str
    dropped: int | None


Item = tuple[int, Event | Gap]
"""What a group has to write, and the number of the batch that brought it."""


class Group:
    """Sessions with one set of names, and what they are still owed.

    `pending` waits for its sweep, `in_sweep` is being written; both are in order of batches.
    """

    __slots__ = ("in_sweep", "lost", "members", "names", "pending", "pending_bytes")

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names
        self.members: dict[Session, None] = {}
        self.pending: list[Item] = []
        self.pending_bytes = 0
        self.in_sweep: list[Item] = []
        self.lost: dict[str, int] = {}  # ephemeral events dropped since pending was full, by channel

    def add(self, number: int, item: Event | Gap, room: int) -> None:
        """Append what batch `number` brought. Over `room` pending bytes an event is dropped and counted."""
        if isinstance(item, Event):
            if self.pending_bytes + len(item.json) > room and self.pending:
                self.lost[item.channel] = self.lost.get(item.channel, 0) + 1
                return
            self.pending_bytes += len(item.json)
        self.pending.append((number, item))

    def take(self, number: int) -> bytes:
        """Move what is pending into the sweep and return its frames, made once for all members."""
        if self.lost:
            gap = Gap(frozenset(self.lost), "overflow", sum(self.lost.values()))
            self.pending.append((number, gap))
            self.lost = {}
        self.in_sweep, self.pending, self.pending_bytes = self.pending, [], 0
        return pack([item for _, item in self.in_sweep])

    def owed(self, session: Session) -> list[Event | Gap]:
        """What this group has for `session` and has not written to it."""
        after = session.after
        return [item for items in (self.in_sweep, self.pending) for number, item in items if number > after]


def pack(items: Iterable[Event | Gap]) -> bytes:
    """The frames for `items`: neighbouring events share a message, a gap is one of its own."""
    messages: list[bytes] = []
    run: list[bytes] = []
    for item in items:
        if isinstance(item, Event):
            run.append(item.json)
            continue
        if run:
            messages += protocol.events(run)
            run = []
        messages.append(protocol.gap(item.channels, item.reason, item.dropped))
    if run:
        messages += protocol.events(run)
    return b"".join([frames.text(message) for message in messages])


class Groups:
    """All groups, found by their set of names or by a channel that one of them has."""

    def __init__(self) -> None:
        self._by_names: dict[frozenset[str], Group] = {}
        self._by_channel: dict[str, dict[Group, None]] = {}

    def __len__(self) -> int:
        return len(self._by_names)

    def matching(self, channel: str) -> Iterable[Group]:
        """The groups whose members want events of `channel`."""
        return self._by_channel.get(channel, ())

    def join(self, session: Session) -> None:
        """Put `session` into the group of its names; without names it needs none."""
        if not session.names:
            return
        group = self._by_names.get(session.names)
        if group is None:
            group = self._by_names[session.names] = Group(session.names)
            for name in session.names:
                self._by_channel.setdefault(name, {})[group] = None
        group.members[session] = None
        session.group = group

    def leave(self, session: Session) -> None:
        """Take `session` out of its group, and forget a group that nobody is in."""
        group, session.group = session.group, None
        if group is None:
            return
        group.members.pop(session, None)
        if not group.members:
            del self._by_names[group.names]
            for name in group.names:
                self._forget(name, group)

    def _forget(self, name: str, group: Group) -> None:
        groups = self._by_channel[name]
        del groups[group]
        if not groups:
            del self._by_channel[name]
