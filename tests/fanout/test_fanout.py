"""The fan-out: each event once to each subscriber, in order, and every loss announced."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hub import event
from hub.cursor import Cursor
from hub.errors import Code
from hub.fanout.fanout import Fanout
from hub.fanout.framing import SERVER_SENT, WEBSOCKET
from hub.fanout.sessions import Join
from hub.selection import select
from hub.snapshot import Snapshot
from tests.fanout.outlet import Outlet, Streamed

NOW = datetime.now(UTC)
ROOM = 2_000


def make(number: int, channel: str = "a") -> event.Event:
    return event.ephemeral(channel, str(number), NOW)


def logged(number: int) -> event.Event:
    return event.durable(number, number, "a", str(number), (), NOW)


def position(number: int) -> Cursor:
    """Behind the event `logged(number)`."""
    return Cursor(1, Snapshot(number + 1, number + 1, ()))


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Unread:
    """A log that nobody has to read: what these tests are about is in no log, or in the ring."""

    async def page(self, *_: object) -> Any:
        raise AssertionError("the log was read")

    newest = fresh = page


def join(fanout: Fanout, session: Any, *names: str) -> None:
    fanout.subscribe(session, Join(1, names, select(names)))


def client(fanout: Fanout, *names: str) -> tuple[Any, Outlet]:
    outlet = Outlet()
    session = fanout.open(outlet)
    join(fanout, session, *names)
    outlet.messages()
    return session, outlet


def payloads(messages: Iterable[dict[str, Any]]) -> list[Any]:
    return [item["payload"] for message in messages if message["type"] == "events" for item in message["events"]]


async def test_an_event_reaches_those_who_are_subscribed_and_nobody_else() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM)
    (_, mine), (_, other) = client(fanout, "a", "b"), client(fanout, "b")
    fanout.sink([make(1, "a")])
    await turns()
    assert payloads(mine.messages()) == [1]
    assert other.messages() == []


async def test_what_arrives_during_a_sweep_is_one_write_of_the_next() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM, chunk=1)
    clients = [client(fanout, "a") for _ in range(3)]
    before = [outlet.writes for _, outlet in clients]
    for number in range(10):
        fanout.sink([make(number)])
    await turns(10)
    assert [outlet.writes for _, outlet in clients] == [count + 2 for count in before]
    assert [payloads(outlet.messages()) for _, outlet in clients] == [list(range(10))] * 3


async def test_a_batch_is_one_write() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM)
    _, outlet = client(fanout, "a")
    before = outlet.writes
    fanout.sink([make(number) for number in range(10)])
    assert outlet.writes == before + 1
    assert payloads(outlet.messages()) == list(range(10))


async def test_what_came_before_the_subscribe_is_not_delivered_and_what_follows_is() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM)
    client(fanout, "a")  # keeps the channel's group alive
    fanout.sink([make(1)])
    outlet = Outlet()
    session = fanout.open(outlet)
    join(fanout, session, "a")
    fanout.sink([make(2)])
    await turns()
    messages = outlet.messages()
    assert messages[0]["type"] == "subscribed"
    assert payloads(messages) == [2]


async def test_what_the_old_set_still_had_comes_before_the_reply_to_a_change() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM)
    session, outlet = client(fanout, "a")
    fanout.sink([make(1)])
    fanout.unsubscribe(session, ["a"], b'{"type":"unsubscribed"}')
    fanout.sink([make(2)])
    await turns()
    assert [message["type"] for message in outlet.messages()] == ["events", "unsubscribed"]


async def test_a_subscribe_under_way_can_be_given_up_for_a_reason() -> None:
    class Silent:
        async def page(self, *_: object) -> Any:
            await asyncio.Event().wait()

        newest = fresh = page

    fanout = Fanout(Silent(), max_buffer=ROOM)
    session, outlet = client(fanout, "b")
    fanout.subscribe(session, Join(7, ["a", "b"], select(["a", "b"]), last=5))
    fanout.unsubscribe(session, ["a"], b'{"type":"told"}', (Code.FORBIDDEN, "Not any more."))
    fanout.sink([make(1, "a"), make(2, "b")])
    await turns()
    error, told, events = outlet.messages()
    assert (error["id"], error["code"], error["channels"]) == (7, "forbidden", ["a"])
    assert (told["type"], payloads([events])) == ("told", [2])


async def test_a_sweep_over_many_yields_to_the_loop_and_skips_who_left_meanwhile() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM, chunk=2)
    clients = [client(fanout, "a") for _ in range(6)]
    fanout.sink([make(1)])
    await turns(1)
    leaver, outlet = clients[5]
    fanout.close(leaver)
    await turns(6)
    assert outlet.messages() == []
    assert [payloads(o.messages()) for _, o in clients[:5]] == [[1]] * 5


async def test_a_slow_client_costs_no_memory_and_hears_how_much_it_missed() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM)
    session, slow = client(fanout, "a", "b")
    _, quick = client(fanout, "a")
    slow.stuck = True
    for number in range(200):
        fanout.sink([make(number)])
        await turns(1)
    await turns()
    assert session.behind
    assert slow.buffered < 2 * ROOM
    assert payloads(quick.messages()) == list(range(200))
    got = payloads(slow.messages())
    slow.drain()
    fanout.drains.look()
    fanout.sink([make(999)])
    await turns()
    gap, last = slow.messages()
    assert gap == {"type": "gap", "channels": ["a"], "reason": "overflow", "dropped": 200 - len(got)}
    assert payloads([last]) == [999]


async def test_where_only_durable_events_come_less_waits_in_a_buffer_since_all_of_it_is_in_the_log() -> None:
    fanout = Fanout(Unread(), max_buffer=32 * ROOM)
    fanout.start(position(0), [], position(0))
    _, slow = client(fanout, "a")
    slow.stuck = True
    for number in range(1, 200):
        fanout.sink([logged(number)], position(number))
        await turns(1)
    assert slow.buffered < 2 * ROOM
    before = payloads(slow.messages())
    slow.drain()
    fanout.drains.look()
    await turns()
    assert before + payloads(slow.messages()) == list(range(1, 200))


async def test_a_listeners_gap_keeps_its_place_among_the_events() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM)
    _, outlet = client(fanout, "a", "b")
    fanout.sink([make(1)])
    fanout.gap(["a", "c"], "listener")
    fanout.sink([make(2)])
    await turns()
    first, gap, second = outlet.messages()
    assert (payloads([first]), payloads([second])) == ([1], [2])
    assert gap == {"type": "gap", "channels": ["a"], "reason": "listener", "dropped": None}


async def test_a_gap_that_a_slow_client_could_not_be_told_is_told_later() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM)
    session, outlet = client(fanout, "a")
    outlet.stuck, outlet.buffered = True, ROOM + 1
    fanout.sink([make(1)])
    await turns()
    fanout.gap(["a"], "listener")
    outlet.drain()
    fanout.drains.look()
    assert not session.behind
    assert outlet.messages()[-1] == {"type": "gap", "channels": ["a"], "reason": "overflow", "dropped": None}


async def test_more_than_a_group_may_have_pending_is_dropped_and_announced() -> None:
    fanout = Fanout(Unread(), max_buffer=1 << 20, max_pending=500)
    _, outlet = client(fanout, "a")
    fanout.sink([make(number) for number in range(100)])
    await turns()
    events, gap = outlet.messages()
    assert gap["dropped"] == 100 - len(payloads([events]))
    assert gap["reason"] == "overflow"


async def test_who_changes_their_set_while_a_group_overflows_hears_of_it_too() -> None:
    fanout = Fanout(Unread(), max_buffer=1 << 20, max_pending=500, chunk=1)
    _, (session, outlet) = client(fanout, "a"), client(fanout, "a")
    fanout.sink([make(0)])  # written to the first; the second's turn comes later
    fanout.sink([make(number) for number in range(1, 100)])
    join(fanout, session, "b")
    await turns(10)
    events, gap, subscribed = outlet.messages()
    assert subscribed["type"] == "subscribed"
    assert gap["dropped"] == 100 - len(payloads([events]))


async def test_who_does_not_read_is_not_read_from() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM)
    session, outlet = client(fanout, "a")
    outlet.stuck, outlet.buffered = True, ROOM + 1
    waiting = asyncio.create_task(fanout.drains.writable(session))
    await turns()
    assert not waiting.done()
    outlet.drain()
    fanout.drains.look()
    await waiting


async def test_channels_are_forgotten_with_their_last_subscriber() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM)
    (one, _), (two, _) = client(fanout, "a", "b"), client(fanout, "a")
    assert {name: channel.subscribers for name, channel in fanout.channels.items()} == {"a": 2, "b": 1}
    fanout.close(one)
    fanout.close(one)
    fanout.unsubscribe(two, ["a"], b"{}")
    assert fanout.channels == {}
    assert "groups=0" in repr(fanout)


async def test_a_closed_session_is_written_nothing_and_can_change_nothing() -> None:
    fanout = Fanout(Unread(), max_buffer=ROOM)
    session, outlet = client(fanout, "a")
    fanout.close(session)
    join(fanout, session, "b")
    session.send(b'{"type":"pong"}')
    assert outlet.messages() == []
    assert fanout.channels == {}


CLIENTS = 2
NAMES = st.sampled_from("ab")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["event", "event", "event", "gap"]), NAMES),
        st.tuples(st.sampled_from(["subscribe", "unsubscribe"]), st.integers(0, CLIENTS - 1), NAMES),
        st.tuples(st.sampled_from(["stick", "drain", "close"]), st.integers(0, CLIENTS - 1)),
        st.tuples(st.sampled_from(["turn", "look"])),
    ),
    max_size=60,
)


class Model:
    """What each of the clients has to have got: the events of each name while it was subscribed to it."""

    def __init__(self) -> None:
        self.fanout = Fanout(Unread(), max_buffer=250, max_pending=600, chunk=2)
        kinds = [(Outlet(), WEBSOCKET), (Streamed(), SERVER_SENT)] * (CLIENTS // 2)
        self.outlets = [outlet for outlet, _ in kinds]
        self.sessions = [self.fanout.open(outlet, framing) for outlet, framing in kinds]
        self.expected: list[dict[str, list[int]]] = [{} for _ in range(CLIENTS)]
        self.had: list[set[int]] = [set() for _ in range(CLIENTS)]
        self.number = 0

    async def step(self, kind: str, *rest: Any) -> None:
        match kind, *rest:
            case "event", name:
                self.number += 1
                self.fanout.sink([make(self.number, name)])
                for session, expected, had in zip(self.sessions, self.expected, self.had, strict=True):
                    if name in expected:
                        had.add(self.number)
                        if name in session.selection.names:  # who is stuck is told `subscribed` later
                            expected[name].append(self.number)
            case "gap", name:
                self.fanout.gap([name], "listener")
            case "subscribe", who, name:
                if self.sessions[who] in self.fanout.sessions:
                    join(self.fanout, self.sessions[who], name)
                    self.expected[who].setdefault(name, [])
            case "unsubscribe", who, name:
                self.fanout.unsubscribe(self.sessions[who], [name], b'{"type":"unsubscribed"}')
                self.expected[who].pop(name, None)
            case "close", who:
                self.fanout.close(self.sessions[who])
                self.expected[who] = {}
            case "stick", who:
                self.outlets[who].stuck = True
            case "drain", who:
                self.outlets[who].drain()
            case "look", *_:
                self.fanout.drains.look()
            case "turn", *_:
                await turns(1)

    async def finish(self) -> None:
        for outlet in self.outlets:
            outlet.drain()
        await turns(40)
        self.fanout.drains.look()
        await turns(40)

    def check(self) -> None:
        for outlet, expected, had in zip(self.outlets, self.expected, self.had, strict=True):
            messages = outlet.messages()
            got = payloads(messages)
            assert got == sorted(set(got)), "in order, none twice"
            assert set(got) <= had, "only while subscribed"
            announced = {name for m in messages if m["type"] == "gap" for name in m["channels"]}
            for name, numbers in expected.items():
                assert name in announced or set(numbers) <= set(got), "every loss is announced"


@settings(max_examples=500, deadline=None)
@given(STEPS)
def test_any_course_of_events_is_delivered_once_in_order_or_announced(steps: list[tuple[Any, ...]]) -> None:
    async def course() -> None:
        model = Model()
        for step in steps:
            await model.step(*step)
        await model.finish()
        model.check()

    asyncio.run(course())
