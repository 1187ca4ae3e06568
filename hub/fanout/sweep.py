"""The sweep: writes to the members of a group what the group has for them, a few hundred at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from hub import channels
from hub.event import Event
from hub.fanout.batches import Batch, Gap, pack
from hub.fanout.groups import Group
from hub.fanout.sessions import Session
from hub.histogram import Histogram

_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)  # events


class Sweep:
    """Takes what groups have pending, the longest waiting first; between two turns of the loop others get theirs.

    A session with too much in its buffer is not written to but handed to `on_full`, which takes it out of its group.
    Too much is `max_buffer` bytes where NOTIFYs come, which nothing else keeps, and a 32nd of it where all is in the
    log: the kernel's buffer is full by then, and each write in ours costs 0.8 KB more. A group with over `max_pending`
    bytes pending loses NOTIFYs; what is durable is kept, and `room` holds back whoever brings it.
    """

    def __init__(self, *, max_buffer: int, max_pending: int, chunk: int, on_full: Callable[[Session], None]) -> None:
        self._max_buffer = max_buffer
        self._enough = max_buffer // 32
        self._max_pending = max_pending
        self._chunk = chunk
        self._on_full = on_full
        self._dirty: dict[Group, None] = {}  # groups with something pending
        self._crowded: set[Group] = set()  # those of them that have more pending than they should
        self._room: asyncio.Future[None] | None = None  # done when none is crowded, where that is waited for
        self._under_way: tuple[Group, bytes, Iterator[Session]] | None = None
        self._scheduled = False
        self._last = 0  # number of the last batch
        self.deliveries = 0
        self.notified = 0
        """Of the deliveries, those of NOTIFYs."""
        self.bytes = 0
        """Bytes that were written."""
        self.dropped = 0
        """NOTIFYs that a group had no room for."""
        self.durable_ages, self.ephemeral_ages = Histogram(), Histogram()
        """Seconds from an event's publishing, for a NOTIFY from its arrival, to the write, counted for each write.

        It is taken where a group's part of a sweep ends, of the oldest event there.
        """
        self.sizes = Histogram(_SIZES)
        """Events that were written at once, counted for each group and sweep."""

    def pend(self, group: Group, batch: Batch, item: Event | Gap) -> None:
        """Have `item` written to the members of `group`; to be followed by `begin` or `schedule`."""
        if not group.add(batch, item, self._max_pending):
            self.dropped += 1
        self._dirty[group] = None
        if group.pending_bytes > self._max_pending:
            self._crowded.add(group)

    def begin(self, batch: Batch) -> None:
        """Write what is pending up to `batch`, at once unless a sweep is under way."""
        self._last = batch.number
        if not self._scheduled:
            self._turn()

    def schedule(self, batch: Batch) -> None:
        """The same, in the next turn of the loop."""
        self._last = batch.number
        self._go_on()

    async def room(self) -> None:
        """Return once no group is crowded."""
        if self._crowded:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def settle(self, session: Session) -> None:
        """Write what the session's group still owes it; where there is no room, it is full."""
        group = session.group
        if group is None:
            return
        if owed := group.owed(session):
            if self._is_full(session, group):
                self._on_full(session)
                return
            data = pack(owed, session.framing.own)
            session.write(data)
            session.deliveries += len(owed)
            self.deliveries += len(owed)
            self.notified += sum(isinstance(item, Event) and item.ephemeral for _, item in owed)
            self.bytes += len(data)
        session.after = self._last

    def _go_on(self) -> None:
        if (self._under_way or self._dirty) and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _is_full(self, session: Session, group: Group) -> bool:
        return session.unsent > (self._max_buffer if group.lossy else self._enough)

    def _turn(self) -> None:
        self._scheduled = False
        budget = self._chunk
        try:
            while budget > 0 and (self._under_way or self._dirty):
                budget -= self._write(budget)
        finally:
            self._go_on()

    def _write(self, budget: int) -> int:
        """Write to at most `budget` members of the group whose turn it is; returns how many they were, at least one.

        What stands in the loop is done for each client, so it calls nothing that it need not.
        """
        group, data, members = self._under_way or self._next()
        upto, first = group.in_sweep[-1][0].number, group.in_sweep[0][0].number
        enough, count = self._enough, len(group.in_sweep)
        written = 0
        visited = tuple(islice(members, budget))
        for session in visited:
            if session.group is not group:
                continue
            if session.after >= first:  # it joined between two of these batches, or was settled
                if session.after < upto:
                    self.settle(session)
                continue
            outlet = session.outlet
            if outlet.get_write_buffer_size() > enough and self._is_full(session, group):
                self._on_full(session)
                continue
            session.after = upto
            session.deliveries += count
            written += 1
            try:  # noqa: SIM105 - as in Session.write, which would be one call more
                outlet.write(data)
            except RuntimeError:
                pass
        self._count(group, written, len(data))
        if len(visited) == budget:
            self._under_way = group, data, members
        else:
            self._under_way = None
            self.sizes.observe(count)
            group.in_sweep = []
        return max(len(visited), 1)

    def _count(self, group: Group, written: int, size: int) -> None:
        self.deliveries += written * len(group.in_sweep)
        self.notified += written * group.notified
        self.bytes += written * size
        oldest, item = group.in_sweep[0]
        if isinstance(item, Event) and item.channel != channels.STATS:  # whoever watches the hub is no client of it
            ages = self.ephemeral_ages if item.ephemeral else self.durable_ages
            ages.observe(max(0.0, time.time() - oldest.at), written)

    def _next(self) -> tuple[Group, bytes, Iterator[Session]]:
        group = next(iter(self._dirty))
        del self._dirty[group]
        data = group.take()
        self._crowded.discard(group)
        if self._room is not None and not self._crowded:
            self._room.set_result(None)
            self._room = None
        return group, data, iter(tuple(group.members))
