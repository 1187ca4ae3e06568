"""A log in memory that behaves as Postgres does: transactions, snapshots, and a tail that reads now and then."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

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
    """`saw` has, for each of its events, the numbers of those that were committed when it was published."""

    xid: int
    events: list[Event] = field(default_factory=list)
    saw: dict[int, frozenset[int]] = field(default_factory=dict)


class World:
    """The log and its producers. Readers of the log wait until `answer` is called.

    The payload of an event is its number, which is never given twice; its xid and id are, after a crash. `saw` keeps
    what a crash took back, too: who has it may keep it where an event of a later transaction survives.
    """

    def __init__(self) -> None:
        self.xid = 100
        self.id = 0
        self.number = 0
        self.open: list[Transaction] = []
        self.committed: list[Event] = []
        self.saw: dict[int, frozenset[int]] = {}
        self.horizon = 0
        self.era = self.eras = self.crashes = 0
        self.floors: dict[int, tuple[Snapshot, Witness | None]] = {}
        self.floor: tuple[Snapshot, Witness | None] = NOTHING, None
        self._disk = self._state()  # what a crash leaves
        self._asked: list[asyncio.Future[None]] = []

    # Producers

    def begin(self) -> None:
        self.open.append(Transaction(self.xid))
        self.xid += 1

    def publish(self, which: int, channel: str) -> None:
        if self.open:
            transaction = self.open[which % len(self.open)]
            self.id += 1
            self.number += 1
            made = event.durable(transaction.xid, self.id, channel, str(self.number), (), NOW)
            transaction.events.append(made)
            transaction.saw[self.number] = frozenset(map(number_of, self.committed))

    def end(self, which: int, *, commit: bool) -> None:
        if self.open:
            transaction = self.open.pop(which % len(self.open))
            if commit:
                self.committed += transaction.events
                self.saw |= transaction.saw

    def snapshot(self) -> Snapshot:
        xip = tuple(sorted(transaction.xid for transaction in self.open))
        return Snapshot(xip[0] if xip else self.xid, self.xid, xip)

    # Crashes

    def _state(self) -> tuple[Any, ...]:
        return self.xid, self.id, list(self.committed), self.era, dict(self.floors), self.floor

    def flush(self) -> None:
        """All that is committed is on the disk."""
        self._disk = self._state()

    def crash(self) -> None:
        """Take back what was not flushed: its xids and ids are given out again. What is open is gone."""
        self.open = []
        self.xid, self.id, committed, self.era, floors, self.floor = self._disk
        self.committed, self.floors = list(committed), dict(floors)
        self.crashes += 1

    def arrive(self) -> int:
        """Begin an era, as each hub does that connects."""
        self.floors[self.era] = self.floor
        self.eras += 1
        self.era = self.eras
        self.flush()
        return self.era

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
        self.crashes = 0  # those that the connection has not survived

    def arrive(self) -> None:
        """Connect anew: go on where the hub was, if all that it has seen is still there."""
        world, seen = self.world, self.position.witness
        self.crashes, era = world.crashes, world.arrive()
        if seen is None or any(_witness(each) == seen for each in world.committed):
            self.raw, self.position = self.position.snapshot, self.position.of(era)
            return
        self.raw = world.snapshot()
        witness = max(map(_witness, world.committed), key=lambda each: each.xid, default=None)
        tight = self.raw.tightened(witness.xid if witness else 0)
        self.position = Cursor(GENERATION, tight, witness, era=era)
        self.fanout.restart(self.position, [], self.position)

    def set_floor(self) -> None:
        """Note how far the log was read, on the connection on which it was."""
        if self.crashes == self.world.crashes:
            self.world.floor = self.position.snapshot, self.position.witness

    def tick(self, *, jump: bool = False) -> None:
        """One read of the tail, handed on as a batch or as a jump; before it a new connection, if need be."""
        if self.crashes != self.world.crashes:
            self.arrive()
        now = self.world.snapshot()
        new = [each for each in self.world.committed if not self.raw.sees(each.xid)]
        new.sort(key=lambda each: each.id)
        witness = max(
            [self.position.witness, *map(_witness, new)],
            key=lambda each: each.xid if each else 0,
        )
        self.raw = now
        self.position = Cursor(GENERATION, now.tightened(witness.xid if witness else 0), witness, era=self.world.era)
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

    async def verify(self, position: Cursor, era: int) -> Page:
        await self.world.asked()
        world, seen = self.world, position.witness
        if seen is None or any(_witness(each) == seen for each in world.committed):
            return Page([], position.of(era))
        if position.era not in world.floors and position.era != world.era:
            return Page([], position.fallen_back(NOTHING, None, era), gap="reset")
        return Page([], position.fallen_back(*world.floors.get(position.era, world.floor), era), gap="failover")

    async def fresh(self) -> None:
        await self.world.asked()
        self.tick()

    def _of(self, selection: Selection) -> Sequence[Event]:
        named = [each for each in self.world.committed if any(matches(name, each.channel) for name in selection.names)]
        return sorted(named, key=lambda each: each.id)


def number_of(made: Event) -> int:
    """The number that is the event's payload."""
    found: int = orjson.loads(made.json)["payload"]
    return found


def _witness(made: Event) -> Witness:
    return Witness(made.xid, made.id, number_of(made))
