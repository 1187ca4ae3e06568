"""From the log to live without a seam: each committed event once, and none before what its producer had seen."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from hub import cursor, event, protocol
from hub.fanout import ring
from hub.fanout.framing import SERVER_SENT
from hub.fanout.sessions import Join
from hub.patterns import matches
from hub.selection import select
from tests.fanout.outlet import Outlet, Streamed
from tests.fanout.world import NOW, Hub, World, number_of

NAMES = [["a"], ["b.c"], ["b.*"], ["**"], ["a", "b.*"], ["a", "b.c", "b.d"], ["**"]]
CHANNELS = ["a", "b.c", "b.d"]


Began = frozenset[int]
"""Where a subscription began: the numbers of the events that came before."""


class Client:
    """Follows the rules of the wire: one cursor for what is confirmed, one for each subscribe that is not yet."""

    def __init__(self, world: World, hub: Hub) -> None:
        self.world, self.fanout = world, hub.fanout
        self.following: dict[str, Began] = {}  # confirmed: name and where it began
        self.asked: dict[int, dict[str, Began | None]] = {}  # by subscribe: names, and where they began if known
        self.cursors: dict[int, str | None] = {}
        self.confirmed: str | None = None
        self.story: list[int] = []
        self.number = 0
        self.mixed = False  # had a subscribe beside others: replays run beside what is live, in no order to it
        self.told = False  # that commits were lost: then some events may come again
        self.heard: dict[int, Began] = {}  # by subscribe: what its confirmation lies behind
        self.overlapping = False  # the same with names that mean the same channel: then a replay may repeat what came
        self.connect()

    def connect(self) -> None:
        self.outlet = Outlet()
        self.session = self.fanout.open(self.outlet)
        self.inbox: list[dict[str, Any]] = []

    def subscribe(self, names: list[str], began: dict[str, Began | None], since: str | None) -> None:
        others = {*self.following, *(name for began in self.asked.values() for name in began)}
        self.mixed |= bool(others)
        self.overlapping |= any(
            matches(one, c) and matches(two, c) for one in names for two in others for c in CHANNELS
        )
        self.number += 1
        self.asked[self.number], self.cursors[self.number] = began, since
        position = None if since is None else cursor.parse(since)
        self.fanout.subscribe(self.session, Join(self.number, names, select(names), position))

    def follow(self, names: list[str]) -> None:
        new = [n for n in names if n not in self.following and not any(n in began for began in self.asked.values())]
        if new:
            self.subscribe(new, dict.fromkeys(new), None)

    def unfollow(self, name: str) -> None:
        """Take what is there, then leave: from here on nothing of it may come."""
        if any(name in began for began in self.asked.values()):
            return
        self.read(None)
        self.fanout.unsubscribe(self.session, [name], b'{"type":"unsubscribed"}')
        self.read(None)
        self.following.pop(name, None)

    def drop(self, read: int, hub: Hub) -> None:
        """Lose the connection when only some of what was sent had come; then resume, with whichever hub."""
        self.read(read)
        self.fanout.close(self.session)
        self.fanout = hub.fanout
        self.connect()
        unconfirmed = [(began, self.cursors[number]) for number, began in self.asked.items()]
        self.asked, self.cursors = {}, {}
        resumed, self.following = self.following, {}
        if resumed:
            self.subscribe(list(resumed), dict(resumed), self.confirmed)
        for began, since in unconfirmed:
            self.subscribe(list(began), began, since)

    def hear(self) -> None:
        """Note what arrives, which is read later or never: what is confirmed is so from now on."""
        fresh = self.outlet.messages()
        self.inbox += fresh
        for message in fresh:
            if message["type"] == "subscribed":
                here = cursor.parse(message["cursor"]).snapshot
                self.heard[message["id"]] = frozenset(
                    number_of(each) for each in self.world.committed if here.sees(each.xid)
                )

    def read(self, count: int | None) -> None:
        self.hear()
        taken = self.inbox if count is None else self.inbox[:count]
        self.inbox = self.inbox[len(taken) :]
        for message in taken:
            self.take(message)

    def take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "events":
                self.story += [item["payload"] for item in message["events"] if item["id"] is not None]
                if "for" in message:
                    self.cursors[message["for"]] = message["cursor"]
                elif "cursor" in message:
                    self.confirmed = message["cursor"]
            case "subscribed":
                assert message["recovered"] or self.told
                for name, began in self.asked.pop(message["id"]).items():
                    self.following[name] = self.heard[message["id"]] if began is None else began
                self.confirmed = message["cursor"]
            case "cursor":
                self.confirmed = message.get("cursor", self.confirmed)
            case "gap":
                assert message["reason"] in ("overflow", "listener", *(["failover"] * self.world.crashes)), message
                self.told |= message["reason"] == "failover"
                if "for" in message:
                    self.cursors[message["for"]] = message["cursor"]
                elif "cursor" in message:
                    self.confirmed = message["cursor"]

    def wanted(self) -> set[int]:
        """The numbers that have to be in the story by now."""
        return {
            number_of(each)
            for each in self.world.committed
            for name, began in self.following.items()
            if matches(name, each.channel) and number_of(each) not in began
        }


class EventSource(Client):
    """Subscribes once, by its URL, and has one cursor: the id of what it got last, by which it resumes."""

    def __init__(self, world: World, hub: Hub) -> None:
        self.names: list[str] = []
        self.id = ""
        self.places: dict[str, Began] = {}
        super().__init__(world, hub)

    def connect(self) -> None:
        self.outlet = Streamed()
        self.session = self.fanout.open(self.outlet, SERVER_SENT)
        self.inbox: list[tuple[dict[str, Any] | None, str]] = []
        self.known = ""

    def follow(self, names: list[str]) -> None:
        if not self.names:
            self.names = names
            self.ask()

    def ask(self) -> None:
        position = cursor.parse(self.id) if self.id else None
        self.fanout.subscribe(self.session, Join(0, self.names, select(self.names), position))

    def drop(self, read: int, hub: Hub) -> None:
        self.read(read)
        self.fanout.close(self.session)
        self.fanout = hub.fanout
        self.connect()
        self.ask()

    def hear(self) -> None:
        received = self.outlet.received
        fresh = [(frame, known) for frame, (_, known) in zip(received.frames, received.messages, strict=True)]
        received.messages = []
        if received.id != (fresh[-1][1] if fresh else self.known):
            fresh.append((None, received.id))
        self.known = received.id
        self.inbox += fresh
        for _, known in fresh:
            here = cursor.parse(known).snapshot
            self.places[known] = frozenset(number_of(each) for each in self.world.committed if here.sees(each.xid))

    def take(self, item: tuple[dict[str, Any] | None, str]) -> None:
        frame, self.id = item
        for name in self.names:
            self.following.setdefault(name, self.places[self.id])
        if frame is not None:
            super().take(frame)


KINDS = [Client, Client, EventSource]
CLIENTS = len(KINDS)
WHO = st.integers(0, CLIENTS - 1)
WHICH = st.integers(0, 3)
HUB = st.integers(0, 1)
EVENT = st.tuples(st.just("event"), st.sampled_from(CHANNELS))
SLOW = [
    st.tuples(st.just("begin")),
    st.tuples(st.just("publish"), WHICH, st.sampled_from(CHANNELS)),
    st.tuples(st.just("publish"), WHICH, st.sampled_from(CHANNELS)),
    st.tuples(st.just("end"), WHICH, st.booleans()),
]
STEP = st.one_of(
    EVENT,
    EVENT,
    EVENT,
    *SLOW,
    st.tuples(st.just("tick"), HUB, st.just(False)),
    st.tuples(st.just("tick"), HUB, st.just(False)),
    st.tuples(st.just("tick"), HUB, st.booleans()),
    st.tuples(st.just("notify"), HUB, st.sampled_from(CHANNELS)),
    st.tuples(st.just("follow"), WHO, st.sampled_from(NAMES)),
    st.tuples(st.just("drop"), WHO, st.integers(0, 9), HUB),
    st.tuples(st.just("drop"), WHO, st.integers(0, 9), HUB),
    st.tuples(st.just("beat"), WHO),
    st.tuples(st.just("stick"), WHO),
    st.tuples(st.just("drain"), WHO),
    st.just(("look",)),
    st.tuples(st.just("answer"), WHICH),
    st.just(("turn", 1)),
    st.just(("turn", 3)),
)


class Course:
    """A world, a fan-out with little room, and clients."""

    def __init__(self, first: list[list[str]]) -> None:
        self.world = World()
        self.hubs = [Hub(self.world, max_buffer=150, max_pending=400, max_ring=1_500, chunk=1) for _ in range(2)]
        self.clients = [kind(self.world, self.hubs[0]) for kind in KINDS]
        for client, names in zip(self.clients, first, strict=True):
            client.follow(names)
            client.read(None)

    async def step(self, kind: str, *rest: Any) -> None:
        world = self.world
        match kind, *rest:
            case "event", channel:
                world.begin()
                world.publish(-1, channel)
                world.end(-1, commit=True)
            case "begin", *_:
                world.begin()
            case "publish", which, channel:
                world.publish(which, channel)
            case "end", which, commit:
                world.end(which, commit=commit)
            case "tick", hub, jump:
                self.hubs[hub].tick(jump=jump)
            case "notify", hub, channel:
                self.hubs[hub].fanout.sink([event.ephemeral(channel, '"x"', NOW)])
            case "follow", who, names:
                self.clients[who].follow(names)
            case "drop", who, read, hub:
                self.clients[who].drop(read, self.hubs[hub])
            case "beat", who:
                client = self.clients[who]
                client.session.write(client.fanout.heartbeat(client.session))
            case "stick", who:
                self.clients[who].outlet.stuck = True
            case "drain", who:
                self.clients[who].outlet.drain()
            case "look", *_:
                for hub in self.hubs:
                    hub.fanout.drains.look()
            case "answer", which:
                world.answer(which + 1)
            case "flush", *_:
                world.flush()
            case "floor", hub:
                self.hubs[hub].set_floor()
            case "crash", *_:
                world.crash()
            case "turn", count:
                await turns(count)
        for client in self.clients:
            client.hear()

    async def finish(self) -> None:
        while self.world.open:
            self.world.end(0, commit=True)
        for hub in self.hubs:
            hub.tick()
        for _ in range(300):
            for client in self.clients:
                client.outlet.drain()
            self.world.answer(10)
            for hub in self.hubs:
                hub.fanout.drains.look()
            await turns(2)
        for client in self.clients:
            client.read(None)

    def check(self) -> None:
        for client in self.clients:
            assert not client.asked, "every subscribe is answered"
            assert not client.session.joins
            assert client.session.behind is None
            assert set(client.story) >= client.wanted(), "nothing is lost"
            if client.told:
                continue
            if not client.overlapping:
                assert len(client.story) == len(set(client.story)), "nothing comes twice"
            if client.mixed:
                continue
            had: set[int] = set()
            for number in client.story:
                later = set(client.story) - had
                assert not (self.world.saw[number] & later), "nothing comes before what its producer had seen"
                had.add(number)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


CRASHING = st.one_of(
    STEP,
    STEP,
    st.just(("flush",)),
    st.tuples(st.just("floor"), HUB),
    st.just(("crash",)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=CLIENTS, max_size=CLIENTS), st.lists(STEP, min_size=20, max_size=100))
def test_any_course_of_events_gives_each_client_each_event_once_in_causal_order(
    first: list[list[str]], steps: list[tuple[Any, ...]]
) -> None:
    play(first, steps)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(NAMES), min_size=CLIENTS, max_size=CLIENTS), st.lists(CRASHING, min_size=20, max_size=100)
)
def test_whatever_crashes_take_back_nothing_is_missing_and_who_may_get_something_again_is_told(
    first: list[list[str]], steps: list[tuple[Any, ...]]
) -> None:
    play(first, steps)


def test_an_event_that_a_crash_takes_back_is_kept_where_one_of_a_later_transaction_survives() -> None:
    """One too many, and none too few, as README says; and nothing comes before it that its producer had not seen."""
    late = [("begin",), ("event", "a"), ("publish", 0, "a"), ("flush",), ("tick", 0, False), ("end", 0, True)]
    play([["a"]] * CLIENTS, [*late, ("tick", 0, False), ("crash",), ("event", "a")])


def play(first: list[list[str]], steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        course = Course(first)
        for step in steps:
            await course.step(*step)
        await course.finish()
        course.check()

    with patch.object(ring, "ROOM", 250), patch.object(protocol, "MAX_MESSAGE", protocol.MARGIN + 120):
        asyncio.run(run())
