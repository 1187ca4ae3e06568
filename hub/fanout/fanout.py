"""The fan-out: batches of events in, one write a subscriber and sweep out.

From `sink` to the socket buffer nothing awaits: a batch is either written to a session or still owed
to it, and whoever changes a session's set finds it in one of these two states.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hub import protocol
from hub.event import Event
from hub.fanout.groups import Gap, Group, Groups, pack
from hub.fanout.sessions import NOWHERE, Outlet, Session


@dataclass(slots=True)
class Channel:
    """A channel that somebody is subscribed to: how many are, and how many events it had meanwhile."""

    subscribers: int = 0
    events: int = 0


class Fanout:
    """Writes each event once to each session that is subscribed to its channel, in order of arrival.

    `max_buffer` is how many bytes may wait in a session's socket buffer before it is left behind,
    `max_pending` how many may wait for a group's next sweep, `chunk` after how many sessions a sweep lets the
    loop do something else.
    """

    def __init__(self, *, max_buffer: int, max_pending: int = 8 << 20, chunk: int = 256) -> None:
        self._max_buffer = max_buffer
        self._max_pending = max_pending
        self._chunk = chunk
        self._groups = Groups()
        self._dirty: dict[Group, None] = {}  # groups with something pending, the longest waiting first
        self._sweeping: tuple[Group, bytes, Iterator[Session]] | None = None
        self._scheduled = False
        self._watch: asyncio.TimerHandle | None = None  # armed while anybody is behind or waits to read on
        self._behind: dict[Session, None] = {}
        self._waiting: dict[Session, asyncio.Future[None]] = {}
        self.sessions: dict[Session, None] = {}
        self.channels: dict[str, Channel] = {}
        self.number = 0  # of the last batch
        self.events_in = 0
        self.deliveries = 0

    def __repr__(self) -> str:
        return f"<Fanout sessions={len(self.sessions)} groups={len(self._groups)} behind={len(self._behind)}>"

    # What comes in

    def sink(self, events: Sequence[Event]) -> None:
        """Take a batch. Writing begins at once, unless a sweep is under way: then it joins the next one."""
        self.number += 1
        self.events_in += len(events)
        for event in events:
            if channel := self.channels.get(event.channel):
                channel.events += 1
                for group in self._groups.matching(event.channel):
                    self._pend(group, event)
        if not self._scheduled:
            self._turn()

    def gap(self, channels: Iterable[str], reason: str) -> None:
        """Announce to everyone concerned that events of these channels were lost, nobody knows how many."""
        lost = frozenset(channels)
        self.number += 1
        groups = {group: None for name in lost for group in self._groups.matching(name)}
        for group in groups:
            self._pend(group, Gap(lost & group.names, reason, None))
        for session in self._behind:
            session.unknown |= lost & session.names
        self._schedule()

    def _pend(self, group: Group, item: Event | Gap) -> None:
        group.add(self.number, item, self._max_pending)
        self._dirty[group] = None

    # The sweep

    def _schedule(self) -> None:
        if (self._sweeping or self._dirty) and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        budget = self._chunk
        try:
            while budget > 0 and (self._sweeping or self._dirty):
                budget -= self._sweep(budget)
        finally:
            self._schedule()

    def _sweep(self, budget: int) -> int:
        """Write to at most `budget` members of the group whose turn it is; returns the cost."""
        group, data, members = self._sweeping or self._next()
        upto, first = group.in_sweep[-1][0], group.in_sweep[0][0]
        weight = len(group.in_sweep)
        cost = 1
        for session in members:
            if session.group is group and session.after < upto:
                if session.after >= first:  # it joined between two of these batches
                    self._settle(session)
                elif session.outlet.get_write_buffer_size() > self._max_buffer:
                    self._fall_behind(session)
                else:
                    session.write(data)
                    session.after = upto
                    self.deliveries += weight
            cost += 1
            if cost > budget:
                self._sweeping = group, data, members
                return cost
        self._sweeping = None
        group.in_sweep = []
        return cost

    def _next(self) -> tuple[Group, bytes, Iterator[Session]]:
        group = next(iter(self._dirty))
        del self._dirty[group]
        return group, group.take(self.number), iter(tuple(group.members))

    def _settle(self, session: Session) -> None:
        """Write what the session's group still owes it, or let it fall behind where there is no room."""
        group = session.group
        if group is None:
            return
        if owed := group.owed(session):
            if session.unsent > self._max_buffer:
                self._fall_behind(session)
                return
            session.write(pack(owed))
            self.deliveries += len(owed)
        session.after = self.number

    # Sessions

    def open(self, outlet: Outlet) -> Session:
        session = Session(outlet)
        self.sessions[session] = None
        return session

    def close(self, session: Session) -> None:
        """Forget `session`: nothing is written to it from here on. May be called twice."""
        if self.sessions.pop(session, self) is self:
            return
        session.outlet = NOWHERE
        self._groups.leave(session)
        self._behind.pop(session, None)
        if waiter := self._waiting.pop(session, None):
            waiter.cancel()
        for name in session.names:
            self._uncount(name)
        session.names = frozenset()

    def subscribe(self, session: Session, names: Iterable[str], reply: bytes) -> None:
        """Make `session` live on `names` too, and write `reply` in the same step.

        All that its old set had for it is written before `reply`, all that its new set brings after it. Nothing
        happens to a session that was closed meanwhile.
        """
        if session not in self.sessions:
            return
        added = frozenset(names) - session.names
        for name in added:
            self.channels.setdefault(name, Channel()).subscribers += 1
        self._change(session, session.names | added)
        if session.counted is not None:
            session.counted.update((name, self.channels[name].events) for name in added)
        session.send(reply)

    def unsubscribe(self, session: Session, names: Iterable[str], reply: bytes) -> None:
        """The opposite: nothing of `names` follows `reply`."""
        removed = session.names.intersection(names)
        self._change(session, session.names - removed)
        for name in removed:
            self._uncount(name)
            if session.counted is not None:
                session.counted.pop(name, None)
                session.unknown.discard(name)
        session.send(reply)

    def _change(self, session: Session, names: frozenset[str]) -> None:
        if names == session.names:
            return
        self._settle(session)
        self._groups.leave(session)
        session.names = names
        session.after = self.number
        if not session.behind:
            self._groups.join(session)

    def _uncount(self, name: str) -> None:
        channel = self.channels[name]
        channel.subscribers -= 1
        if not channel.subscribers:
            del self.channels[name]

    # Those who read too slowly

    def _fall_behind(self, session: Session) -> None:
        """Stop writing to a session whose buffer is full; count what it misses from what it is owed on."""
        group = session.group
        assert group is not None
        counted = {name: self.channels[name].events for name in session.names}
        for item in group.owed(session):
            if isinstance(item, Event):
                counted[item.channel] -= 1
            else:
                session.unknown |= item.channels
        session.counted = counted
        self._groups.leave(session)
        self._behind[session] = None
        self._arm()

    def _catch_up(self, session: Session) -> None:
        """Make a session live again, with a gap that says what it missed."""
        counted, session.counted = session.counted or {}, None
        missed = {name: self.channels[name].events - before for name, before in counted.items()}
        lost = {name for name, count in missed.items() if count} | session.unknown
        if lost:
            dropped = None if session.unknown else sum(missed.values())
            session.send(protocol.gap(lost, "overflow", dropped))
        session.unknown = set()
        session.after = self.number
        self._groups.join(session)

    async def writable(self, session: Session) -> None:
        """Return once the session's buffer has room: who does not read is not read from either."""
        if session.unsent <= self._max_buffer or session not in self.sessions:
            return
        waiter = self._waiting[session] = asyncio.get_running_loop().create_future()
        self._arm()
        await waiter

    def _arm(self) -> None:
        if self._watch is None and (self._behind or self._waiting):
            self._watch = asyncio.get_running_loop().call_later(0.05, self.look)

    def look(self) -> None:
        """Let those whose buffer has drained go on. One timer calls this, for all who wait."""
        self._watch = None
        ready = self._drained(self._behind)
        for session in ready:
            del self._behind[session]
            self._catch_up(session)
        for session in self._drained(self._waiting):
            if not (waiter := self._waiting.pop(session)).done():
                waiter.set_result(None)
        self._arm()

    def _drained(self, sessions: Iterable[Session]) -> list[Session]:
        return [session for session in sessions if session.unsent <= self._max_buffer // 4]
