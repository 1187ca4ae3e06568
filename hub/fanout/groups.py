"""Groups: all sessions with the same selection and framing get the same bytes, so these are made once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Final, TypeVar

from hub.event import Event
from hub.fanout.batches import Batch, Gap, Item, pack
from hub.fanout.framing import Framing
from hub.fanout.sessions import Session
from hub.fence import Fence, Fences
from hub.patterns import Matcher, is_pattern
from hub.selection import Selection

_OVERFLOW: Final = "overflow"
_REMEMBERED: Final = 10_000  # channels whose patterns are known without a search

K = TypeVar("K", str, Fence)


class Group:
    """Sessions with one selection and framing, and what they are still owed.

    `pending` waits for its sweep, `in_sweep` is being written; both are in order of batches. `notified` of those in the
    sweep came by NOTIFY. `lossy` says that some have: what a member misses of these it cannot get from the log.
    """

    __slots__ = (
        "_notified_pending",
        "framing",
        "in_sweep",
        "lossy",
        "members",
        "notified",
        "pending",
        "pending_bytes",
        "selection",
    )

    def __init__(self, selection: Selection, framing: Framing) -> None:
        self.selection = selection
        self.framing = framing
        self.members: dict[Session, None] = {}
        self.pending: list[Item] = []
        self.pending_bytes = 0
        self.in_sweep: list[Item] = []
        self.lossy = False
        self._notified_pending = 0
        self.notified = 0

    def add(self, batch: Batch, item: Event | Gap, room: int) -> bool:
        """Append what `batch` brought. Over `room` pending bytes a gap takes the place of ephemeral events: False."""
        if isinstance(item, Event):
            if not item.id:
                self.lossy = True
                if self.pending_bytes + len(item.json) > room and self.pending:
                    self._drop(batch, item)
                    return False
                self._notified_pending += 1
            self.pending_bytes += len(item.json)
        self.pending.append((batch, item))
        return True

    def _drop(self, batch: Batch, event: Event) -> None:
        _, last = self.pending[-1]
        if isinstance(last, Gap) and last.reason == _OVERFLOW and last.dropped is not None:
            self.pending[-1] = batch, Gap(last.channels | {event.channel}, _OVERFLOW, last.dropped + 1)
        else:
            self.pending.append((batch, Gap(frozenset((event.channel,)), _OVERFLOW, 1)))

    def take(self) -> bytes:
        """Move what is pending into the sweep and return its bytes, made once for all members."""
        self.in_sweep, self.pending, self.pending_bytes = self.pending, [], 0
        self.notified, self._notified_pending = self._notified_pending, 0
        return pack(self.in_sweep, self.framing.shared)

    def owed(self, session: Session) -> list[Item]:
        """What this group has for `session` and has not written to it."""
        if not self.pending and not self.in_sweep:
            return []
        after = session.after
        return [item for items in (self.in_sweep, self.pending) for item in items if item[0].number > after]


class Groups:
    """All groups, found by their selection, or by a channel that one of them wants.

    Where `fences` are kept is asked for when there is the first; without it there can be none.
    """

    def __init__(self, fences: Callable[[], Fences] | None = None) -> None:
        self._groups: dict[tuple[Selection, Framing], Group] = {}
        self._by_name: dict[str, dict[Group, None]] = {}  # names and patterns, of groups that want all that they mean
        self._fenced: dict[str, dict[Fence, dict[Group, None]]] = {}  # the same, of those that want what is inside
        self._make_fences = fences
        self._fences: Fences | None = None
        self._patterns = Matcher()
        self._found: dict[str, list[str]] = {}  # channel: the patterns that mean it

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def around(self, events: Sequence[Event]) -> Iterable[Collection[Fence]]:
        """For each of `events` the fences that it is inside of, for `matching`."""
        if not self._fenced or self._fences is None:
            return repeat(())
        places = [event.place for event in events]
        return self._fences.around(places) if any(place is not None for place in places) else repeat(())

    def matching(self, channel: str, inside: Collection[Fence] = (), *, ephemeral: bool) -> Iterable[Group]:
        """The groups whose members want such events of `channel`, `inside` of these fences, each once."""
        named = self._by_name.get(channel, ())
        if ephemeral:
            return [group for group in named if channel not in group.selection.durable_only]
        patterns = self._matching_patterns(channel)
        if not patterns and not inside:
            return named
        groups = dict.fromkeys(named)
        for pattern in patterns:
            groups |= self._by_name.get(pattern, {})
        if inside:
            for fenced in self._fenced_by(channel):
                for fence in inside:
                    groups |= fenced.get(fence, {})
        return groups

    def wanting(self, channel: str) -> Iterable[Group]:
        """The groups whose members may want durable events of `channel`, wherever these are."""
        groups = dict.fromkeys(self.matching(channel, ephemeral=False))
        for fenced in self._fenced_by(channel):
            for within in fenced.values():
                groups |= within
        return groups

    def _fenced_by(self, channel: str) -> list[dict[Fence, dict[Group, None]]]:
        return [found for name in (channel, *self._matching_patterns(channel)) if (found := self._fenced.get(name))]

    def _matching_patterns(self, channel: str) -> list[str]:
        found = self._found.get(channel)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._found[channel] = self._patterns.find(channel)
        return found

    def join(self, session: Session) -> None:
        """Put `session` into the group of its selection; with an empty one it needs none."""
        selection = session.selection
        if not selection.names:
            return
        key = selection, session.framing
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(selection, session.framing)
            for name in selection.names:
                self._learn(name, selection.fence_of(name), group)
        group.members[session] = None
        session.group = group
        session.selection = group.selection  # one value for all of them

    def move(self, session: Session, selection: Selection) -> None:
        """Give `session`, to whom its group owes nothing, another selection.

        A group that it has to itself goes with it, so one name more costs one entry and not one for each name.
        """
        group, key = session.group, (selection, session.framing)
        if group is None or len(group.members) > 1 or key in self._groups or not selection.names:
            self.leave(session)
            session.selection = selection
            self.join(session)
            return
        before = group.selection
        self._groups[key] = self._groups.pop((before, group.framing))
        group.selection = session.selection = selection
        if selection.fences or before.fences:
            now, then = _entries(selection), _entries(before)
        else:
            now, then = dict.fromkeys(selection.names - before.names), dict.fromkeys(before.names - selection.names)
        for name, fence in now.items() - then.items():
            self._learn(name, fence, group)
        for name, fence in then.items() - now.items():
            self._forget(name, fence, group)

    def leave(self, session: Session) -> None:
        """Take `session` out of its group, and forget a group that nobody is in."""
        group, session.group = session.group, None
        if group is None:
            return
        group.members.pop(session, None)
        if not group.members:
            del self._groups[group.selection, group.framing]
            for name in group.selection.names:
                self._forget(name, group.selection.fence_of(name), group)

    def _learn(self, name: str, fence: Fence | None, group: Group) -> None:
        if is_pattern(name) and name not in self._by_name and name not in self._fenced:
            self._patterns.add(name)
            self._found.clear()
        if fence is None:
            self._by_name.setdefault(name, {})[group] = None
        else:
            if self._fences is None:
                assert self._make_fences is not None
                self._fences = self._make_fences()
            self._fences.add(fence)
            self._fenced.setdefault(name, {}).setdefault(fence, {})[group] = None

    def _forget(self, name: str, fence: Fence | None, group: Group) -> None:
        if fence is None:
            _remove(self._by_name, name, group)
        else:
            assert self._fences is not None
            self._fences.remove(fence)
            _remove(self._fenced[name], fence, group)
            if not self._fenced[name]:
                del self._fenced[name]
        if is_pattern(name) and name not in self._by_name and name not in self._fenced:
            self._patterns.remove(name)
            self._found.clear()


def _entries(selection: Selection) -> dict[str, Fence | None]:
    return {name: selection.fence_of(name) for name in selection.names}


def _remove(groups: dict[K, dict[Group, None]], key: K, group: Group) -> None:
    del groups[key][group]
    if not groups[key]:
        del groups[key]
