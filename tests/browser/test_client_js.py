"""client.js, as a page of somebody else's would use it: inside a browser, against a real hub."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import asyncpg

from hub.errors import CLOSE_CODES
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
            const { id, channels } = this.sent.at(-1);
            this.say({ type: "subscribed", id, channels });
        }
    };
    window.connect = connect;
    window.log = [];
    // A promise that nobody keeps is to fail a test, not to hold it up.
    window.outcome = promise => Promise.race([
        promise.catch(error => error.code ?? error.name),
        new Promise(resolve => setTimeout(resolve, 2000, "pending")),
    ]);
    window.begin = () => {
        window.hub = connect("ws://localhost/ws");
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
    assert await page.evaluate(f"hub.publish('a', 1).catch({refused})") == ["HubError", "unsupported"]
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
    expected = [[close.code, "waiting" if close.reconnect else "closed"] for close in CLOSE_CODES]
    assert await page.evaluate(after, [close.code for close in CLOSE_CODES]) == expected


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
        return [log, sockets[0].sent.map(command => command.channels)];
    }"""
    said, asked = await page.evaluate(log)
    assert said == ["open", "waiting", "connecting", "open", "forbidden", "a reconnect", "c reconnect"]
    assert asked == [["a", "bad", "c", "new"], ["a", "c", "new"]]


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


async def test_an_address_that_is_none_is_told_at_once(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url, blank=True)
    name = """async url => {
        const { connect } = await import(url + "/client.js");
        try { connect("ftp://nowhere"); } catch (error) { return error.name; }
    }"""
    assert await page.evaluate(name, hub.url) == "SyntaxError"
