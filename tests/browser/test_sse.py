"""An EventSource of a real browser, which knows nothing of pghub."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import asyncpg

from tests.browser.conftest import wire
from tests.conftest import Hub, running

START = """url => {
    window.got = [];
    window.opened = 0;
    window.source = new EventSource(url);
    source.onopen = () => opened++;
    source.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        got.push(...(frame.events ?? [frame]).map(({ payload, reason }) => payload ?? reason));
    };
}"""


async def publish(producer: asyncpg.Connection, first: int, last: int) -> None:
    await producer.execute(
        "SELECT count(hub.publish('orders', to_jsonb(n))) FROM generate_series($1::int, $2::int) AS n", first, last
    )


async def got(page: Any, last: int) -> list[Any]:
    """What has come, once `last` is the last of it."""
    await page.wait_for_function("last => got.at(-1) === last", arg=last, timeout=30_000)
    found: list[Any] = await page.evaluate("got")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


async def test_it_goes_on_when_the_hub_comes_back(
    database: str, producer: asyncpg.Connection, open_page: Callable[..., Any]
) -> None:
    port = free_port()
    await publish(producer, 1, 5)
    async with running(database, port=port) as hub:
        page = await open_page(hub.url, blank=True, expect="ERR_")
        await page.evaluate(START, "/events?channel=orders&last=3")
        assert await got(page, 5) == [3, 4, 5]
        await publish(producer, 6, 9)
        await got(page, 9)
    await publish(producer, 10, 2_000)
    async with running(database, port=port):
        assert await got(page, 2_000) == list(range(3, 2_001))
        await page.evaluate("source.close()")


async def test_it_goes_on_when_the_connection_is_cut(
    hub: Hub, producer: asyncpg.Connection, open_page: Callable[..., Any]
) -> None:
    async with wire(hub.url) as line:
        page = await open_page(line.url, blank=True, expect="ERR_")
        await page.evaluate(START, "/events?channel=orders")
        await page.wait_for_function("opened === 1")
        for first in range(1, 301, 100):
            await publish(producer, first, first + 49)
            line.cut()
            await publish(producer, first + 50, first + 99)
            assert await got(page, first + 99) == list(range(1, first + 100))
        assert await page.evaluate("opened") > 1
        await page.evaluate("source.close()")
