"""client.js, as a page of somebody else's would use it: inside a browser, against a real hub."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import asyncpg

from tests.conftest import Hub, running

START = """async url => {
    const { connect } = await import(url + "/client.js");
    window.log = [];
    window.hub = connect();
    hub.addEventListener("state", ({ detail }) => log.push(detail.state));
    window.one = hub.subscribe("a", event => log.push(event.payload), { onGap: gap => log.push(gap.reason) });
    await one.ready;
}"""


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
