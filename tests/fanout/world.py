"""A log in memory that behaves as Postgres does: transactions, snapshots, and a tail that reads now and then."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hub import event
from hub.cursor import Cursor, Witness
from hub.event import Event
from hub.fanout.fanout import Fanout
from hub.page import Page
from hub.patterns import matches
from hub.selection import Selection
from hub.snapshot import NOTHING, Snapshot

NOW = datetime(2026, 11, 1, tzinfo=UTC)
GENERATION = 7
ROWS = 2  # of a page


@dataclass
class Transaction:
    """`saw` has, for each of its events, the ids that were committed when it was published."""

    xid: int
    events: list[Event] = field(default_factory=list)
    saw: dict[int, frozenset[int]] = field(default_factory=dict)


class World:
    """The log, its producers, its tail. Readers of the log wait until `answer` is called."""

    def __init__(self) -> None:
        self.xid = 100
        self.id = 0
        self.open: list[Transaction] = []
        self.committed: list[Event] = []
        self.saw: dict[int, frozenset[int]] = {}
        self.horizon = 0
        self._asked: list[asyncio.Future[None]] = []

    # Producers

    def begin(self) -> None:
        self.open.append(Transaction(self.xid))
        self.xid += 1

    def publish(self, which: int, channel: str) -> None:
        if self.open:
            transaction = self.open[which % len(self.open)]
            self.id += 1
            made = event.durable(transaction.xid, self.id, channel, str(self.id), (), NOW)
            transaction.events.append(made)
            transaction.saw[self.id] = frozenset(each.id for each in self.committed)

    def end(self, which: int, *, commit: bool) -> None:
        if self.open:
            transaction = self.open.pop(which % len(self.open))
            if commit:
                self.committed += transaction.events
                self.saw |= transaction.saw

    def snapshot(self) -> Snapshot:
        xip = tuple(sorted(transaction.xid for transaction in self.open))
        return Snapshot(xip[0] if xip else self.xid, self.xid, xip)

    # Readers

    def answer(self, count: int = 1) -> None:
        for asked in self._asked[:count]:
            if not asked.done():
                asked.set_result(None)
        del self._asked[:count]

    async def asked(self) -> None:
        """Wait for an answer."""
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        await asked


class Hub:
    """One of the hubs on the world's log: a fan-out, its tail, and what its replays read."""

    def __init__(self, world: World, **room: int) -> None:
        self.world = world
        self.position = Cursor(GENERATION, NOTHING)
        self.raw = self.position.snapshot
        self.fanout = Fanout(self, **room)
        self.fanout.start(self.position, [], self.position)

    def tick(self, *, jump: bool = False) -> None:
        """One read of the tail, handed on as a batch or as a jump."""
        now = self.world.snapshot()
        new = [each for each in self.world.committed if not self.raw.sees(each.xid)]
        new.sort(key=lambda each: each.id)
        witness = max(
            [self.position.witness, *(Witness(each.xid, each.id, 0) for each in new)],
            key=lambda each: each.xid if each else 0,
        )
        self.raw = now
        self.position = Cursor(GENERATION, now.tightened(witness.xid if witness else 0), witness)
        if jump and new:
            self.fanout.jump(Counter(each.channel for each in new), self.position)
        elif new or self.position != self.fanout.position:
            self.fanout.sink(new, self.position)

    async def page(self, selection: Selection, position: Cursor, upper: Cursor) -> Page:
        await self.world.asked()
        end, behind = (position.finished, position.place.id) if position.place else (upper, 0)
        found = [
            each
            for each in self._of(selection)
            if each.id > behind and end.snapshot.sees(each.xid) and not position.snapshot.sees(each.xid)
        ]
        if len(found) > ROWS:
            return Page(found[:ROWS], position.inside(end, found[ROWS - 1].id), self.world.horizon)
        return Page(found, end, self.world.horizon)

    async def newest(self, selection: Selection, count: int, upper: Cursor) -> int:
        await self.world.asked()
        ids = [each.id for each in self._of(selection) if upper.snapshot.sees(each.xid)]
        return ids[-count] - 1 if len(ids) >= count else 0

    async def fresh(self) -> None:
        await self.world.asked()
        self.tick()

    def _of(self, selection: Selection) -> Sequence[Event]:
        named = [each for each in self.world.committed if any(matches(name, each.channel) for name in selection.names)]
        return sorted(named, key=lambda each: each.id)
