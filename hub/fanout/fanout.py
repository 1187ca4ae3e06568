"""The fan-out: batches of events in, one write a subscriber and sweep out.

From `sink` to the socket buffer nothing awaits: a batch is either written to a session or still owed
to it, and whoever changes a session's selection finds it in one of these two states.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hub import protocol
from hub.cursor import Cursor
from hub.errors import Code, CommandError
from hub.event import Event, published_at
from hub.fanout.batches import Batch, Gap, gap
from hub.fanout.drains import Drains
from hub.fanout.framing import WEBSOCKET, Framing
from hub.fanout.groups import Groups
from hub.fanout.replays import Log, Replays
from hub.fanout.ring import Ring
from hub.fanout.sessions import NO_CHANNELS, NOWHERE, Join, Outlet, Replay, Session
from hub.fanout.sweep import Sweep
from hub.fanout.traffic import Traffic
from hub.fence import Fences
from hub.selection import EMPTY, Selection
from hub.snapshot import NOTHING

_JOINS: Final = 16  # subscribes under way of one session
_BEGINNING: Final = Cursor(0, NOTHING)
_UNSUBSCRIBED: Final = Code.CANCELLED, "The subscribe was cancelled by an unsubscribe."


@dataclass(slots=True)
class Channel:
    """A channel or pattern that somebody is subscribed to.

    `events` and, of these, `ephemeral` ones came since it has subscribers; a pattern's are not counted.
    """

    subscribers: int = 0
    events: int = 0
    ephemeral: int = 0


class Fanout:
    """Writes each event once to each session that is subscribed to its channel, in order of arrival.

    `max_buffer` is how many bytes may wait in a session's socket buffer before it is left behind,
    `max_pending` how many may wait for a group's next sweep, `max_ring` how many of the log are kept for those
    who come back, `chunk` after how many sessions a sweep lets the loop do something else. `fences` makes what finds
    those that events are inside of; without it no selection may have one.
    """

    def __init__(
        self,
        log: Log,
        *,
        max_buffer: int,
        max_pending: int = 8 << 20,
        max_ring: int = 32 << 20,
        chunk: int = 256,
        fences: Callable[[], Fences] | None = None,
    ) -> None:
        self._groups = Groups(fences)
        self._sweep = Sweep(max_buffer=max_buffer, max_pending=max_pending, chunk=chunk, on_full=self._fall_behind)
        self._replays = Replays(self, log)
        self._gaps: Counter[str] = Counter()  # by reason; those of replays are counted there
        self.drains = Drains(max_buffer, self._replays.advance)
        self._signs: tuple[Cursor, dict[Framing, bytes]] = _BEGINNING, {}  # of life, that tell the position
        self._batch = Batch(0, _BEGINNING, _BEGINNING)  # the last one
        self.position = _BEGINNING  # of the log, behind the last batch
        self.ring = Ring(max_ring, _BEGINNING)
        self.sessions: dict[Session, None] = {}
        self.channels: dict[str, Channel] = {}
        self.events_in = 0
        self.notified_in = 0  # of the events, those that came by NOTIFY
        self.traffic = Traffic()

    def __repr__(self) -> str:
        behind = sum(session.behind is not None for session in self.sessions)
        return f"<Fanout sessions={len(self.sessions)} groups={len(self._groups)} behind={behind}>"

    @property
    def deliveries(self) -> int:
        """Events written to sessions, each counted for each."""
        return self._sweep.deliveries + self._replays.deliveries

    @property
    def replayed(self) -> int:
        """Of the deliveries, those of replays."""
        return self._replays.deliveries

    @property
    def bytes_out(self) -> int:
        """Bytes of events that were written to sessions."""
        return self._sweep.bytes + self._replays.bytes

    @property
    def gaps(self) -> Counter[str]:
        """Gaps that were told, by reason: what all get is counted once, else each who is told counts."""
        return self._gaps + self._replays.gaps

    @property
    def groups(self) -> int:
        return len(self._groups)

    @property
    def sweep(self) -> Sweep:
        """What it has counted is for all to see."""
        return self._sweep

    # What comes in

    def start(self, floor: Cursor, events: Sequence[Event], position: Cursor) -> None:
        """Begin at `position` of the log, whose newest `events` are those that `floor` does not see."""
        self.position = floor
        self.ring.reset(floor)
        batch = self._next_batch(position)
        self.ring.append(batch, events)
        self._sweep.begin(batch)

    def restart(self, floor: Cursor, events: Sequence[Event], position: Cursor) -> None:
        """Begin again where the log may have lost some of what was read of it: everybody goes on from where they were.

        Whether that is still there, and from where else to go on, is found out as for who comes back with a cursor.
        """
        for session in [session for session in self.sessions if session.group is not None]:
            self._sweep.settle(session)
            if session.behind is None:
                self._fall_behind(session)
        self.start(floor, events, position)

    def sink(self, events: Sequence[Event], position: Cursor | None = None) -> None:
        """Take a batch. Writing begins at once, unless a sweep is under way: then it joins the next one.

        With a `position` it is from the log, which is seen up to there now; else it came by NOTIFY.
        """
        ephemeral = position is None
        at = time.time() if ephemeral or not events else published_at(events[0])
        batch = self._next_batch(position or self.position, at)
        if not ephemeral:
            self.ring.append(batch, events)
        self.events_in += len(events)
        self.notified_in += ephemeral * len(events)
        if events:
            self.traffic.count(events)
        for event, inside in zip(events, self._groups.around(events), strict=False):
            if channel := self.channels.get(event.channel):
                channel.events += 1
                channel.ephemeral += ephemeral
            for group in self._groups.matching(event.channel, inside, ephemeral=ephemeral):
                self._sweep.pend(group, batch, event)
        self._sweep.begin(batch)

    def gap(self, channels: Iterable[str], reason: str) -> None:
        """Announce to everyone concerned that NOTIFYs of these channels were lost, nobody knows how many."""
        lost = frozenset(channels)
        self._gaps[reason] += 1
        batch = self._next_batch(self.position)
        groups = {group: None for name in lost for group in self._groups.matching(name, ephemeral=True)}
        for group in groups:
            self._sweep.pend(group, batch, Gap(lost & group.selection.ephemeral, reason))
        for session in self.sessions:
            if session.behind:
                session.unknown |= lost & session.selection.ephemeral
        self._sweep.schedule(batch)

    def jump(self, counts: Mapping[str, int], position: Cursor) -> None:
        """Go on at `position` without the events before it, which are in the log and too many for a batch.

        Those who want some of them read them from the log, each at its own pace. `counts` says how many each channel
        has.
        """
        self.events_in += sum(counts.values())
        self.traffic.add(counts)
        for name in counts.keys() & self.channels.keys():
            self.channels[name].events += counts[name]
        groups = {group: None for name in counts for group in self._groups.wanting(name)}
        for session in [session for group in groups for session in group.members]:
            self._sweep.settle(session)
            if session.behind is None:
                self._fall_behind(session)
        self._sweep.schedule(self._next_batch(position))
        self.ring.reset(position)

    def reset(self, position: Cursor) -> None:
        """Announce that the log is another one, and that what it had lost is lost; it goes on at `position`."""
        self._gaps["reset"] += 1
        batch = self._next_batch(position)
        self.ring.reset(position)
        for group in self._groups:
            self._sweep.pend(group, batch, Gap(group.selection.names, "reset", cursor=position))
        self._sweep.schedule(batch)

    async def room(self) -> None:
        """Return once there is room for durable events, of which none may be dropped."""
        await self._sweep.room()

    def _next_batch(self, position: Cursor, at: float = 0.0) -> Batch:
        self._batch = Batch(self._batch.number + 1, self.position, position, at)
        self.position = position
        return self._batch

    # Sessions

    def open(self, outlet: Outlet, framing: Framing = WEBSOCKET) -> Session:
        session = Session(outlet, framing)
        self.sessions[session] = None
        return session

    def close(self, session: Session) -> None:
        """Forget `session`: nothing is written to it from here on. May be called twice."""
        if session not in self.sessions:
            return
        del self.sessions[session]
        self._groups.leave(session)
        for name in session.selection.names:
            self._uncount(name)
        self._replays.stop(session)
        session.selection, session.behind, session.joins = EMPTY, None, ()
        session.outlet = NOWHERE
        self.drains.forget(session)

    def subscribe(self, session: Session, join: Join) -> None:
        """Add `join` to what `session` gets, and then write `subscribed`.

        That is done before this returns, unless something has to be replayed before. Raises CommandError
        (`too_many`).
        """
        if session not in self.sessions:
            return
        if join.position is None and join.last is None:
            join.position = self.position
            if self.merge(session, join):
                return
        if len(session.joins) >= _JOINS:
            raise CommandError(Code.TOO_MANY, f"{_JOINS} subscribes are under way; wait for one to end.")
        session.joins = (*session.joins, join)
        self._replays.advance(session)

    def merge(self, session: Session, join: Join) -> bool:
        """Make `join` live and write its `subscribed`, in one step; False for a session that is behind."""
        self._sweep.settle(session)
        if session.behind is not None:
            return False
        for name in join.selection.names - session.selection.names:
            self.channels.setdefault(name, Channel()).subscribers += 1
        self._change(session, session.selection.merged(join.selection))
        wanted = join.selection.listened
        listened = [name for name in join.names if name in wanted]
        cursor = str(self.position)
        reply = protocol.subscribed(join.id, join.names, cursor, recovered=join.lossless, ephemeral=listened)
        session.write(session.framing.confirmed(reply, cursor))
        return True

    def unsubscribe(
        self, session: Session, names: Iterable[str], reply: bytes, because: tuple[Code, str] = _UNSUBSCRIBED
    ) -> None:
        """The opposite: nothing of `names` follows `reply`. A join that has one of them is given up, `because`."""
        gone = frozenset(names)
        self._cancel(session, gone, because)
        removed = session.selection.names & gone
        self._sweep.settle(session)
        self._change(session, session.selection.without(removed))
        for name in removed:
            self._uncount(name)
        session.send(reply)
        self._replays.advance(session)

    def _cancel(self, session: Session, names: frozenset[str], because: tuple[Code, str]) -> None:
        cancelled = [join for join in session.joins if names & join.selection.names]
        if not cancelled:
            return
        self._replays.stop(session)
        session.joins = tuple(join for join in session.joins if join not in cancelled)
        for join in cancelled:
            concerned = tuple(sorted(names & join.selection.names))
            refusal = CommandError(*because, command_id=join.id, channels=concerned)
            session.send(protocol.error(refusal))

    def _change(self, session: Session, selection: Selection) -> None:
        """Give a session another selection; what its group owed it has been written."""
        if selection == session.selection:
            return
        if session.behind is None:
            session.after = self._batch.number
            self._groups.move(session, selection)
            return
        session.selection = selection
        self._replays.stop(session)  # what is being read is for the selection of before
        session.behind.selection = selection
        counted = session.counted or {}
        session.counted = {name: counted[name] for name in selection.ephemeral}
        session.unknown &= selection.ephemeral

    def _uncount(self, name: str) -> None:
        channel = self.channels[name]
        channel.subscribers -= 1
        if not channel.subscribers:
            del self.channels[name]

    # Those who read too slowly

    def _fall_behind(self, session: Session) -> None:
        """Stop writing to a session whose buffer is full: from what it is owed on, it will be read to from the log.

        The log has no NOTIFYs, so these are counted.
        """
        group = session.group
        assert group is not None
        owed = group.owed(session)
        session.counted = {name: self.channels[name].ephemeral for name in session.selection.ephemeral}
        session.unknown = NO_CHANNELS
        for _, item in owed:
            if isinstance(item, Event):
                if item.ephemeral:
                    session.counted[item.channel] -= 1
            elif item.cursor is None:
                session.unknown |= item.channels
        session.behind = Replay(session.selection, owed[0][0].before if owed else self.position)
        self._groups.leave(session)
        self.drains.hold(session)

    def catch_up(self, session: Session) -> None:
        """Make a session that is behind live, with a gap for the NOTIFYs that it missed."""
        counted, session.counted = session.counted or {}, None
        missed = {name: self.channels[name].ephemeral - before for name, before in counted.items()}
        lost = session.unknown.union(name for name, count in missed.items() if count)
        if lost:
            self._gaps["overflow"] += 1
            session.send(*gap(Gap(lost, "overflow", None if session.unknown else sum(missed.values()))))
        session.unknown, session.behind = NO_CHANNELS, None
        session.after = self._batch.number
        self._groups.join(session)

    def has_room(self, session: Session) -> bool:
        """Whether the session's buffer has drained. If not, its replay goes on when it has."""
        return self.drains.has_room(session)

    def lag(self, session: Session) -> int | None:
        """About how many events the log has got since what `session` has to be read to; None for one that is live."""
        work = session.behind or (session.joins[0] if session.joins else None)
        newest = self.position.witness
        if work is None or work.position is None or newest is None:
            return None
        seen = work.position.place or work.position.witness
        return max(0, newest.id - (seen.id if seen else 0))

    # Signs of life

    def heartbeat(self, session: Session) -> bytes:
        """What a session gets that has heard nothing for a while: the cursor it has reached, if that is to be told."""
        framing = session.framing
        owed = session.group.owed(session) if session.group else True
        if owed or (session.told is self.position and not framing.repeats):
            return framing.sign(None)
        session.told = self.position
        if self._signs[0] is not self.position:
            self._signs = self.position, {}
        signs = self._signs[1]
        if framing not in signs:
            signs[framing] = framing.sign(str(self.position))
        return signs[framing]
