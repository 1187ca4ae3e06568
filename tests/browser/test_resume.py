"""client.js and the durable log: what was published comes once and in order, however often the connection goes."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Any

import asyncpg

from tests.browser.conftest import wire
from tests.conftest import Hub, running

START = """async url => {
    const { connect } = await import(url + "/client.js");
    Math.random = () => 0.01; // there is nobody else to spread the load for
    window.hub = connect();
    window.states = [];
    window.resumed = [];
    window.gaps = [];
    window.got = {};
    hub.addEventListener("state", ({ detail }) => states.push(detail.state));
    hub.addEventListener("resumed", ({ detail }) => resumed.push(detail));
    window.follow = (label, channel, options) => {
        got[label] = [];
        return hub.subscribe(channel, ({ payload }) => got[label].push(payload.n ?? payload), {
            onGap: ({ reason, channels }) => gaps.push([label, reason, channels]),
            ...options,
        });
    };
    await new Promise(resolve => hub.addEventListener("state", () => hub.state === "open" && resolve()));
}"""


PADDING = "x" * 1_000
"""So that a long replay takes many frames, since the cursor moves with whole ones."""


async def publish(producer: asyncpg.Connection, channel: str, first: int, last: int) -> None:
    """The numbers from `first` to `last`, durably."""
    numbers = "SELECT count(hub.publish($1, to_jsonb(n))) FROM generate_series($2::int, $3::int) AS n"
    await producer.execute(numbers, channel, first, last)


async def started(url: str, open_page: Callable[..., Any]) -> Any:
    page = await open_page(url, blank=True, expect="WebSocket connection")
    await page.evaluate(START, url)
    return page


async def got(page: Any, label: str, payload: Any) -> list[Any]:
    """What the subscription `label` has got, once `payload` is the last of it."""
    await page.wait_for_function("([label, payload]) => got[label].at(-1) === payload", arg=[label, payload])
    found: list[Any] = await page.evaluate("label => got[label]", label)
    return found


async def publish_padded(producer: asyncpg.Connection, channel: str, first: int, last: int) -> None:
    numbers = """
        SELECT count(hub.publish($1, jsonb_build_object('n', n, 'padding', $4::text)))
        FROM generate_series($2::int, $3::int) AS n
    """
    await producer.execute(numbers, channel, first, last, PADDING)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


async def test_what_was_published_while_the_hub_was_away_is_replayed_and_told(
    database: str, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    port = free_port()
    async with running(database, port=port) as hub:
        page = await started(hub.url, open_page)
        await page.evaluate(
            """() => Promise.all([
                follow("a", "a"), follow("durable", "b", { ephemeral: false }), follow("pattern", "p.*"),
            ].map(each => each.ready))"""
        )
        await publish(producer, "a", 1, 3)
        await got(page, "a", 3)
    await page.wait_for_function("() => states.includes('waiting')")
    await publish(producer, "a", 4, 10)
    await publish(producer, "b", 1, 2)
    await publish(producer, "p.x", 1, 3)
    await producer.execute("SELECT pg_notify('a', 'nobody hears it')")
    async with running(database, port=port):
        await page.wait_for_function("() => resumed.length === 2")
        assert sorted(await page.evaluate("resumed"), key=lambda told: told["replayed"]) == [
            {"channels": ["b"], "replayed": 2, "recovered": True},
            {"channels": ["a", "p.*"], "replayed": 10, "recovered": True},
        ]
        await publish(producer, "a", 11, 11)
        await publish(producer, "b", 3, 3)
        await publish(producer, "p.x", 4, 4)
        assert await got(page, "a", 11) == list(range(1, 12))
        assert await got(page, "durable", 3) == [1, 2, 3]
        assert await got(page, "pattern", 4) == [1, 2, 3, 4]
        assert await page.evaluate("gaps") == [["a", "reconnect", ["a"]]], "only NOTIFYs can be lost"


async def test_a_connection_that_is_cut_inside_a_long_replay_goes_on_there(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    async with wire(hub.url) as between:
        page = await started(between.url, open_page)
        await page.evaluate("window.first = follow('early', 'a'); first.ready")
        await publish(producer, "a", 1, 1)
        await got(page, "early", 1)
        between.rations = [0, 10_000, 1_000_000, 100_000, 1_500_000, 600_000]
        between.down = True
        between.cut()
        await publish_padded(producer, "a", 2, 5_000)
        between.down = False
        await page.wait_for_function("() => resumed.length")
        assert between.cuts >= 5, "it was cut inside the replay"
        told = await page.evaluate("resumed")
        assert told == [{"channels": ["a"], "replayed": 4_999, "recovered": True}]
        await publish(producer, "a", 5_001, 5_001)
        assert await got(page, "early", 5_001) == list(range(1, 5_002))


async def test_every_kind_of_subscription_gets_all_once_while_the_connection_is_cut_again_and_again(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    chance = random.Random(7)
    async with wire(hub.url) as between:
        page = await started(between.url, open_page)
        await page.evaluate(
            """() => Promise.all([
                follow("channel", "w.a"), follow("pattern", "w.*"), follow("durable", "w.a", { ephemeral: false }),
            ].map(each => each.ready))"""
        )
        start = await page.evaluate("hub.cursor")

        async def cut() -> None:
            for turn in range(8):
                await asyncio.sleep(chance.uniform(0.1, 0.5))
                between.rations = [chance.randrange(2_000_000)]
                between.cut()
                await page.evaluate("dispatchEvent(new Event('online'))")
                if turn == 2:  # in the midst of it all, and with nothing confirmed
                    await page.evaluate("since => { follow('late', 'w.**', { since }) }", start)

        cutting = asyncio.create_task(cut())
        for first in range(1, 4_001, 50):
            await publish_padded(producer, "w.a", first, first + 49)
            await asyncio.sleep(0.02)
        await cutting
        await publish(producer, "w.a", 4_001, 4_001)
        for label in ("channel", "pattern", "durable", "late"):
            assert await got(page, label, 4_001) == list(range(1, 4_002)), label
        assert all(told["recovered"] for told in await page.evaluate("resumed"))


async def test_last_begins_with_the_newest_and_each_subscription_has_its_own(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await started(hub.url, open_page)
    await page.evaluate("follow('all', '**').ready")
    await publish(producer, "a", 1, 10)
    await got(page, "all", 10)  # the newest are those that the hub has heard of
    await page.evaluate("follow('three', 'a', { last: 3 }).ready")
    assert await page.evaluate("got.three") == [8, 9, 10]
    await page.evaluate("Promise.all([follow('plain', 'a'), follow('two', 'a', { last: 2 })].map(each => each.ready))")
    await publish(producer, "a", 11, 11)
    assert await got(page, "three", 11) == [8, 9, 10, 11]
    assert await got(page, "two", 11) == [9, 10, 11]
    assert await got(page, "plain", 11) == [11]


async def test_more_replays_than_the_hub_does_at_a_time_wait_their_turn(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await started(hub.url, open_page)
    await page.evaluate("follow('all', '**').ready")
    for n in range(40):
        await publish(producer, f"c{n}", n, n)
    await got(page, "all", 39)
    ready = "Promise.all(Array.from({ length: 40 }, (_, n) => follow(n, `c${n}`, { last: 1 }).ready))"
    await page.evaluate(ready)
    assert await page.evaluate("Array.from({ length: 40 }, (_, n) => got[n]).flat()") == list(range(40))


async def test_patterns_and_ephemeral_false_mean_durable_events_only(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await started(hub.url, open_page)
    await page.evaluate(
        """() => Promise.all([
            follow("durable", "a.b", { ephemeral: false }), follow("all", "a.b"), follow("one", "a.*"),
            follow("more", "a.**"), follow("any", "**"), follow("other", "b.*"),
        ].map(each => each.ready))"""
    )
    await producer.execute("""SELECT pg_notify('a.b', '"notified"')""")
    await got(page, "all", "notified")
    await publish(producer, "a.b", 1, 1)
    await publish(producer, "a.b.c", 2, 2)
    await publish(producer, "b.c", 3, 3)
    await got(page, "any", 3)
    assert await page.evaluate("got") == {
        "durable": [1],
        "all": ["notified", 1],
        "one": [1],
        "more": [1, 2],
        "any": [1, 2, 3],
        "other": [3],
    }


async def test_a_cursor_that_a_page_stored_is_where_the_next_one_goes_on(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await started(hub.url, open_page)
    assert await page.evaluate("hub.cursor") is None
    await page.evaluate("follow('a', 'a').ready")
    await publish(producer, "a", 1, 5)
    await got(page, "a", 5)
    stored = await page.evaluate("hub.cursor")
    await page.close()
    await publish(producer, "a", 6, 9)
    page = await started(hub.url, open_page)
    await page.evaluate("since => follow('a', 'a', { since }).ready", stored)
    assert await page.evaluate("got.a") == [6, 7, 8, 9]
    assert await page.evaluate("follow('new', 'b', { since: null }).ready") is None
    refused = "follow('bad', 'a', { since: 'yesterday' }).ready.catch(error => error.code)"
    assert await page.evaluate(refused) == "bad_request"
    await publish(producer, "a", 10, 10)
    assert (await got(page, "a", 10))[-2:] == [9, 10], "the refusal concerns its own subscription only"


async def test_a_publish_says_its_id_and_with_a_key_it_happens_once(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await started(hub.url, open_page)
    await page.evaluate("follow('a', 'a').ready")
    ids = await page.evaluate("Promise.all([1, 2].map(() => hub.publish('a', 'once', { key: 'k', tags: ['t'] })))")
    assert ids[0] == ids[1] > 0
    assert await page.evaluate("hub.publish('a', 'twice')") > ids[0]
    assert await got(page, "a", "twice") == ["once", "twice"]


async def test_leaving_one_channel_takes_nothing_from_the_others_of_its_replay(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    async with wire(hub.url) as between:
        page = await started(between.url, open_page)
        await page.evaluate("Promise.all([follow('a', 'a').ready, (window.b = follow('b', 'b')).ready])")
        between.down = True
        between.cut()
        await publish_padded(producer, "a", 1, 2_500)
        await publish(producer, "b", 1, 100)
        await publish_padded(producer, "a", 2_501, 5_000)
        await page.evaluate("hub.addEventListener('events', () => b.close())")
        between.down = False
        await publish(producer, "a", 5_001, 5_001)
        assert await got(page, "a", 5_001) == list(range(1, 5_002))
        assert await page.evaluate("got.b") == []
