"""client.js, as a page of somebody else's would use it: inside a browser, against a real hub."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import asyncpg

from hub.errors import CLOSE_CODES
from hub.patterns import is_pattern, matches
from tests.conftest import Hub, running

START = """async url => {
    const { connect } = await import(url + "/client.js");
    window.log = [];
    window.hub = connect();
    hub.addEventListener("state", ({ detail }) => log.push(detail.state));
    window.one = hub.subscribe("a", event => log.push(event.payload), { onGap: gap => log.push(gap.reason) });
    await one.ready;
}"""


# A hub that says what a test has it say: for answers that a real one gives only on a bad day.
SCRIPTED = """async url => {
    const { connect } = await import(url + "/client.js");
    Math.random = () => 1;
    window.sockets = [];
    window.WebSocket = class {
        static CLOSING = 2;
        readyState = 1;
        sent = [];
        constructor() { sockets.unshift(this); }
        send(text) { this.sent.push(JSON.parse(text)); }
        close() { this.readyState = 3; }
        say(message) { this.onmessage({ data: JSON.stringify(message) }); }
        welcome(heartbeat = 25) { this.say({ type: "welcome", protocol: 1, heartbeat }); }
        confirm() {
            const { id, channels } = this.sent.findLast(command => command.type === "subscribe");
            this.say({ type: "subscribed", id, channels, cursor: `${id}`, recovered: true, ephemeral: channels });
        }
    };
    window.connect = connect;
    window.log = [];
    // A promise that nobody keeps is to fail a test, not to hold it up.
    window.outcome = promise => Promise.race([
        promise.catch(error => error.code ?? error.name),
        new Promise(resolve => setTimeout(resolve, 2000, "pending")),
    ]);
    window.begin = token => {
        window.hub = connect("ws://localhost/ws", { token });
        hub.addEventListener("state", ({ detail }) => log.push(detail.state));
        return hub;
    };
}"""


async def scripted(hub: Hub, open_page: Callable[..., Any]) -> Any:
    page = await open_page(hub.url, blank=True)
    await page.evaluate(SCRIPTED, hub.url)
    return page


async def notify(dsn: str, channel: str, payload: str) -> None:
    producer = await asyncpg.connect(dsn)
    await producer.execute("SELECT pg_notify($1, $2)", channel, payload)
    await producer.close()


async def logged(page: Any, entry: Any) -> list[Any]:
    """The page's log, once `entry` is in it."""
    await page.wait_for_function("entry => log.includes(entry)", arg=entry)
    found: list[Any] = await page.evaluate("log")
    return found


async def test_the_one_liner_of_the_readme_works(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url)
    await page.evaluate(
        """url => new Promise(resolve => {
            window.log = [];
            const socket = new WebSocket(url + "?channel=orders");
            socket.onmessage = ({ data }) => {
                const message = JSON.parse(data);
                if (message.type === "subscribed") resolve();
                for (const event of message.events ?? []) log.push(event.payload);
            };
        })""",
        hub.ws,
    )
    await notify(hub.dsn, "orders", "7")
    assert await logged(page, 7) == [7]


async def test_it_subscribes_publishes_and_shares_a_channel(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url)
    await page.evaluate(START, hub.url)
    await page.evaluate("window.two = hub.subscribe('a', event => log.push('two: ' + event.payload)); two.ready")
    assert await page.evaluate("hub.publish('a', 1, { durable: false })") is None
    assert await logged(page, "two: 1") == ["open", 1, "two: 1"]
    await page.evaluate("one.close(); two.close(); hub.subscribe('b', event => log.push(event.payload)).ready")
    await notify(hub.dsn, "a", "nobody")
    await notify(hub.dsn, "b", "last")
    assert (await logged(page, "last"))[3:] == ["last"]


async def test_a_refusal_is_an_error_with_the_hubs_code(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url)
    await page.evaluate(START, hub.url)
    refused = "error => [error.name, error.code]"
    assert await page.evaluate(f"hub.publish('hub_x', 1).catch({refused})") == ["HubError", "forbidden"]
    assert await page.evaluate(f"hub.subscribe('hub_x', () => {{}}).ready.catch({refused})") == [
        "HubError",
        "forbidden",
    ]
    many = "Promise.all(['x', '', 'y'].map(name => hub.subscribe(name, () => {}).ready.then(() => 1, e => e.code)))"
    assert await page.evaluate(many) == [1, "bad_channel", 1]


async def test_a_listener_that_throws_harms_no_other(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url, expect="on purpose")
    await page.evaluate(START, hub.url)
    await page.evaluate("hub.subscribe('a', () => { throw new Error('on purpose') }).ready")
    await page.evaluate("hub.subscribe('a', event => log.push('third')).ready")
    await notify(hub.dsn, "a", "1")
    assert await logged(page, "third") == ["open", 1, "third"]


async def test_it_comes_back_to_a_hub_that_was_restarted_and_tells_of_the_gap(
    database: str, open_page: Callable[..., Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with running(database, port=port) as hub:
        page = await open_page(hub.url, expect="WebSocket connection")
        await page.evaluate(START, hub.url)
        await page.evaluate("window.late = hub.publish('hub_x', 1).catch(() => 0)")
    await logged(page, "waiting")
    assert await page.evaluate("hub.publish('a', 1).catch(error => error.code)") == "disconnected"
    async with running(database, port=port):
        await logged(page, "reconnect")
        await notify(database, "a", "99")
        log = await logged(page, 99)
        assert log[-2:] == ["reconnect", 99]


async def test_closed_is_closed(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url)
    await page.evaluate(START, hub.url)
    await page.evaluate("hub.close()")
    assert await page.evaluate("hub.state") == "closed"
    assert await page.evaluate("hub.publish('a', 1).catch(error => error.code)") == "disconnected"


async def test_delays_double_up_to_half_a_minute(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url)
    delays = """async url => {
        const { delayBefore } = await import(url + "/client.js");
        return [0, 1, 2, 3, 4, 5, 50].map(attempt => delayBefore(attempt, () => 1));
    }"""
    assert await page.evaluate(delays, hub.url) == [1000, 2000, 4000, 8000, 16000, 30000, 30000]


async def test_it_comes_back_after_those_close_codes_that_the_hub_says(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await scripted(hub, open_page)
    after = """codes => codes.map(code => {
        begin();
        sockets[0].welcome();
        sockets[0].onclose({ code });
        const { state } = hub;
        hub.close();
        return [code, state];
    })"""
    about_tokens = {4401, 4403, 4440}
    codes = {close.code: close.reconnect for close in CLOSE_CODES if close.code not in about_tokens}
    expected = [[code, "waiting" if reconnect else "closed"] for code, reconnect in codes.items()]
    assert await page.evaluate(after, list(codes)) == expected
    assert await page.evaluate(after, list(about_tokens)) == [[code, "closed"] for code in about_tokens]
    with_tokens = after.replace("begin()", "begin(() => 'another')")
    assert await page.evaluate(with_tokens, list(about_tokens)) == [[code, "waiting"] for code in about_tokens]


async def test_a_hub_that_falls_silent_is_left_and_what_was_outstanding_is_told(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await scripted(hub, open_page)
    await page.evaluate("begin(); sockets[0].welcome(0.05)")
    assert await page.evaluate("outcome(hub.publish('a', 1))") == "disconnected"
    assert await page.evaluate("[hub.state, sockets[0].readyState]") == ["waiting", 3]


async def test_a_hub_that_turns_away_is_asked_ever_more_rarely_but_at_once_when_the_network_is_back(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await scripted(hub, open_page)
    delays = """() => {
        const delays = [];
        begin().addEventListener("state", ({ detail }) => detail.delay && delays.push(detail.delay));
        hub.subscribe("a", () => {});
        for (let round = 0; round < 3; round++) {
            sockets[0].welcome();
            const { id } = sockets[0].sent.at(-1);
            sockets[0].say({ type: "error", id, code: "unavailable", message: "No Postgres.", channels: [] });
            dispatchEvent(new Event("online"));
        }
        return [sockets.length, ...delays];
    }"""
    assert await page.evaluate(delays) == [4, 1000, 2000, 4000]


async def test_after_a_partial_refusal_the_others_come_back_and_hear_of_the_gap(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await scripted(hub, open_page)
    log = """() => {
        begin();
        const listen = name => hub.subscribe(name, () => {}, { onGap: gap => log.push(`${name} ${gap.reason}`) });
        hub.addEventListener("error", ({ detail }) => log.push(detail.code));
        ["a", "bad", "c"].forEach(listen);
        sockets[0].welcome();
        sockets[0].confirm();
        sockets[0].onclose({ code: 1006 });
        listen("new");
        dispatchEvent(new Event("online"));
        sockets[0].welcome();
        const { id } = sockets[0].sent[0];
        sockets[0].say({ type: "error", id, code: "forbidden", message: "No.", channels: ["bad"] });
        sockets[0].confirm();
        return [log, sockets[0].sent.map(command => [command.since, command.channels])];
    }"""
    said, asked = await page.evaluate(log)
    assert said == ["open", "waiting", "connecting", "open", "forbidden", "a reconnect", "c reconnect"]
    assert asked == [["1", ["a", "bad", "c"]], [None, ["new"]], ["1", ["a", "c"]]]


async def test_publishes_over_the_limit_wait_and_one_that_is_no_json_takes_no_place(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await scripted(hub, open_page)
    counts = """async () => {
        begin();
        sockets[0].welcome();
        const round = {};
        round.self = round;
        const refused = Array.from({ length: 300 }, () => outcome(hub.publish("a", round)));
        const names = [...new Set(await Promise.all(refused))];
        const published = Array.from({ length: 3000 }, (_, n) => outcome(hub.publish("a", n)));
        const before = sockets[0].sent.length;
        sockets[0].say({ type: "published", id: sockets[0].sent[0].id, event: 42 });
        return [names, before, sockets[0].sent.length, await published[0], await published.at(-1)];
    }"""
    assert await page.evaluate(counts) == [["TypeError"], 256, 257, 42, "too_many"]


async def test_a_subscription_made_while_the_connection_opens_is_asked_for_once(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await scripted(hub, open_page)
    asked = """() => {
        begin().addEventListener("state", () => hub.state === "open" && hub.subscribe("late", () => {}));
        hub.subscribe("early", () => {});
        sockets[0].welcome();
        return sockets[0].sent.map(command => command.channels);
    }"""
    assert await page.evaluate(asked) == [["early"], ["late"]]


async def test_what_is_closed_before_it_was_confirmed_says_so(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await scripted(hub, open_page)
    closed = """async () => {
        begin();
        const subscription = hub.subscribe("a", () => {});
        subscription.close();
        sockets[0].welcome();
        return [await outcome(subscription.ready), sockets[0].sent];
    }"""
    assert await page.evaluate(closed) == ["closed", []]


async def test_what_an_older_client_does_not_know_is_passed_over(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await scripted(hub, open_page)
    payload = """() => {
        begin();
        hub.subscribe("a", event => log.push(event.payload));
        sockets[0].welcome();
        sockets[0].confirm();
        sockets[0].say({ type: "novelty", of: "tomorrow" });
        sockets[0].say(null);
        sockets[0].say({ type: "events", novel: 1, events: [{ channel: "a", payload: 7, novel: 2 }] });
        return log;
    }"""
    assert await page.evaluate(payload) == ["open", 7]


async def test_each_cursor_is_moved_by_its_own_frames_and_kept_through_a_lost_connection(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await scripted(hub, open_page)
    log = """() => {
        const events = (cursor, channel, ask, id = 1) =>
            sockets[0].say({ type: "events", for: ask, events: [{ channel, id, payload: cursor }], cursor });
        const follow = (name, options) => hub.subscribe(name, event => log.push(`${name} ${event.payload}`), options);
        begin();
        follow("a");
        sockets[0].welcome();
        sockets[0].confirm();
        const b = follow("b.*", { since: "b0" });
        const c = follow("c", { last: 3 });
        const d = follow("d");
        const ids = sockets[0].sent.map(({ id }) => id);
        events("live", "a");
        events("b1", "b.x", ids[1]);
        events("unasked", "a", ids[1]);
        events("too early", "b.x");
        events("nobody's", "a", 999);
        events(undefined, "a", undefined, null);
        sockets[0].say({ type: "cursor" });
        const before = [hub.cursor, b.cursor, c.cursor, d.cursor];
        sockets[0].say({ type: "cursor", cursor: "beat" });
        sockets[0].say({ type: "gap", for: ids[1], channels: ["b.*"], reason: "expired", dropped: null, cursor: "b2" });
        sockets[0].onclose({ code: 1006 });
        dispatchEvent(new Event("online"));
        sockets[0].welcome();
        const asked = sockets[0].sent.map(({ channels, since, last }) => [channels[0], since, last]);
        return [log.filter(text => text.includes(" ")), before, asked];
    }"""
    told, before, asked = await page.evaluate(log)
    assert told == ["a live", "b.* b1", "a undefined"]
    assert before == ["too early", "unasked", None, None]
    assert asked == [["a", "beat", None], ["b.*", "b2", None], ["c", None, 3], ["d", None, None]]


async def test_what_a_resume_replayed_is_counted_through_a_second_loss(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await scripted(hub, open_page)
    resumed = """() => {
        const resumed = [];
        begin().addEventListener("resumed", ({ detail }) => resumed.push(detail));
        hub.subscribe("a", () => {});
        const again = () => {
            sockets[0].onclose({ code: 1006 });
            dispatchEvent(new Event("online"));
            sockets[0].welcome();
        };
        const events = cursor => sockets[0].say({
            type: "events", for: sockets[0].sent[0].id, events: [1, 2].map(id => ({ channel: "a", id })), cursor,
        });
        sockets[0].welcome();
        sockets[0].confirm();
        again();
        events("x");
        again();
        events("y");
        sockets[0].confirm();
        again();
        sockets[0].confirm();
        return resumed;
    }"""
    assert await page.evaluate(resumed) == [
        {"channels": ["a"], "replayed": 4, "recovered": True},
        {"channels": ["a"], "replayed": 0, "recovered": True},
    ]


async def test_gaps_of_what_came_by_notify_are_told_to_those_who_want_it(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await scripted(hub, open_page)
    gaps = """() => {
        begin();
        const listen = (label, name, options) =>
            hub.subscribe(name, () => {}, { ...options, onGap: ({ reason }) => log.push(`${label} ${reason}`) });
        listen("all", "a");
        listen("durable", "a", { ephemeral: false });
        sockets[0].welcome();
        const asked = sockets[0].sent.map(({ channels, ephemeral }) => [channels, ephemeral]);
        sockets[0].confirm();
        sockets[0].say({ type: "gap", channels: ["a"], reason: "listener", dropped: null });
        sockets[0].say({ type: "gap", channels: ["a"], reason: "reset", dropped: null, cursor: "r" });
        return [asked, log, hub.cursor];
    }"""
    assert await page.evaluate(gaps) == [
        [[["a"], None]],
        ["open", "all listener", "all reset", "durable reset"],
        "r",
    ]


async def test_one_who_wants_notifies_asks_for_a_channel_again_that_was_durable_only(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await scripted(hub, open_page)
    asked = """() => {
        begin();
        hub.subscribe("a", () => {}, { ephemeral: false });
        sockets[0].welcome();
        sockets[0].confirm();
        for (const ephemeral of [false, true, true]) hub.subscribe("a", () => {}, { ephemeral });
        sockets[0].confirm();
        hub.subscribe("a", () => {});
        return sockets[0].sent.map(({ channels, ephemeral }) => [channels, ephemeral]);
    }"""
    assert await page.evaluate(asked) == [[["a"], False], [["a"], None]]


async def test_no_more_than_sixteen_subscribes_are_under_way(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await scripted(hub, open_page)
    counts = """() => {
        begin();
        const all = Array.from({ length: 20 }, (_, n) => hub.subscribe(`c${n}`, () => {}, { last: 1 }));
        sockets[0].welcome();
        const first = sockets[0].sent.length;
        all[16].close();
        sockets[0].confirm();
        const names = sockets[0].sent.filter(({ type }) => type === "subscribe").map(({ channels }) => channels[0]);
        return [first, names.length, names.at(-1)];
    }"""
    assert await page.evaluate(counts) == [16, 17, "c17"]


async def test_a_replay_that_an_unsubscribe_cancelled_goes_on_without_that_channel(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await scripted(hub, open_page)
    asked = """() => {
        begin().addEventListener("error", ({ detail }) => log.push(detail.code));
        const [a] = ["a", "b"].map(name => hub.subscribe(name, () => {}, { since: "0" }));
        sockets[0].welcome();
        const { id } = sockets[0].sent[0];
        sockets[0].say({ type: "events", for: id, events: [], cursor: "1" });
        a.close();
        hub.subscribe("a", () => {});
        sockets[0].say({ type: "error", id, code: "cancelled", message: "It was.", channels: ["a"] });
        return [log, sockets[0].sent.map(({ type, channels, since }) => [type, channels, since])];
    }"""
    assert await page.evaluate(asked) == [
        ["open"],
        [
            ["subscribe", ["a", "b"], "0"],
            ["unsubscribe", ["a"], None],
            ["subscribe", ["a"], None],
            ["subscribe", ["b"], "1"],
        ],
    ]


async def test_patterns_mean_what_they_mean_to_the_hub(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url, blank=True)
    patterns = ["*", "**", "a.*", "a.**", "*.b", "a.*.c", "a+.*", "ü.x y.**", ".*", "a.", "$.*"]
    channels = ["a", "a.b", "a.b.c", "a.", ".b", "a+.b", "aa.b", "ü.x y.z", "$hub", "hub_bell", "hub_a.b", "axb", "$.a"]
    table = """async ([url, patterns, channels]) => {
        const { matcher } = await import(url + "/client.js");
        return patterns.map(pattern => channels.filter(matcher(pattern)));
    }"""
    expected = [
        [name for name in channels if (matches(pattern, name) if is_pattern(pattern) else pattern == name)]
        for pattern in patterns
    ]
    assert await page.evaluate(table, [hub.url, patterns, channels]) == expected


async def test_an_address_that_is_none_is_told_at_once(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url, blank=True)
    name = """async url => {
        const { connect } = await import(url + "/client.js");
        try { connect("ftp://nowhere"); } catch (error) { return error.name; }
    }"""
    assert await page.evaluate(name, hub.url) == "SyntaxError"
