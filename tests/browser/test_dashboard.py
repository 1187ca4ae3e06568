"""The dashboard in a real browser, fed by a real Postgres."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Page, WebSocketRoute, expect

from tests.conftest import Hub, running

EVIL = "<img src=x onerror=alert(1)>"


async def live(page: Page, count: int = 1) -> None:
    """Wait until the page is connected and this many subscriptions are confirmed.

    To a hub that has said goodbye it comes back within 5 s, by lot.
    """
    await expect(page.locator("#state-text")).to_have_text("connected", timeout=15_000)
    await expect(page.locator("#chips li:not(.unconfirmed)")).to_have_count(count)


async def notify(producer: asyncpg.Connection, channel: str, payload: str) -> None:
    await producer.execute("SELECT pg_notify($1, $2)", channel, payload)


async def publish(producer: asyncpg.Connection, channel: str, *numbers: int) -> None:
    await producer.execute("SELECT hub.publish($1, to_jsonb(n)) FROM unnest($2::int[]) AS n", channel, list(numbers))


async def test_the_first_load_shows_what_to_do_and_the_first_event(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?channel=orders")
    await live(page)
    await expect(page.locator("#empty-code")).to_contain_text("NOTIFY orders")
    await notify(producer, "orders", '{"id": 1, "status": "paid"}')
    event = page.locator(".event")
    await expect(event).to_have_count(1)
    await expect(event.locator(".line")).to_have_text('{"id":1,"status":"paid"}')
    await expect(page.locator("#empty")).to_be_hidden()
    await event.locator("summary").click()
    await expect(event.locator(".json")).to_contain_text('"status": "paid"')
    await expect(page.locator("#clients")).to_have_text("1")


async def test_subscribe_and_unsubscribe_by_keyboard_alone(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(hub.url)
    await page.locator("#channel").focus()
    await page.keyboard.type("Größe 1")
    await page.keyboard.press("Enter")
    await live(page)
    assert "channel=Gr" in page.url
    await notify(producer, "Größe 1", "plain text")
    await expect(page.locator(".event .line")).to_have_text('"plain text"')
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator("#chips li")).to_have_count(0)
    assert "channel=" not in page.url


async def test_a_channel_that_is_refused_is_explained(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url)
    await page.fill("#channel", "hub_bell")
    await page.keyboard.press("Enter")
    await expect(page.locator("#subscribe-error")).to_contain_text("hub's own")
    await expect(page.locator("#chips li")).to_have_count(0)


async def test_pause_clear_and_search(hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection) -> None:
    page = await open_page(f"{hub.url}/?channel=orders")
    await live(page)
    for name in ("apple", "pear", "plum"):
        await notify(producer, "orders", name)
    await expect(page.locator(".event")).to_have_count(3)
    await page.keyboard.press("/")
    await page.keyboard.type("PEAR")
    await expect(page.locator(".event")).to_have_count(1)
    await expect(page.locator("#shown")).to_have_text("1 of 3 match")
    await page.fill("#search", "")
    await page.locator("#feed-tab").click()
    await page.keyboard.press("p")
    await notify(producer, "orders", "while paused")
    await expect(page.locator("#pause")).to_have_text("Resume (1)")
    await expect(page.locator(".event")).to_have_count(3)
    await page.click("#pause")
    await expect(page.locator(".event .line").first).to_have_text('"while paused"')
    await page.click("#clear")
    await expect(page.locator(".event")).to_have_count(0)


async def test_the_feed_can_be_held_to_one_channel(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?channel=orders&channel=chat")
    await live(page, 2)
    await notify(producer, "orders", "1")
    await notify(producer, "chat", "2")
    await expect(page.locator(".event")).to_have_count(2)
    await page.get_by_label("Show one channel only").select_option("chat")
    await expect(page.locator(".event .line")).to_have_text(["2"])
    await expect(page.locator("#shown")).to_have_text("1 of 2 match")
    await page.get_by_role("button", name="Unsubscribe from chat").click()
    await expect(page.locator(".event .line")).to_have_text(["2", "1"])


async def test_publishing_from_the_form_comes_back_and_bad_json_is_told(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await open_page(f"{hub.url}/?channel=chat")
    await live(page)
    await page.fill("#payload", '{"text": }')
    await page.click("#publish button")
    await expect(page.locator("#publish-result")).to_contain_text("no JSON")
    await page.fill("#payload", '{"text": "hi"}')
    await page.click("#publish button")
    await expect(page.locator("#publish-result")).to_contain_text("Published")
    await expect(page.locator("#publish-result")).to_contain_text("as #1")
    await expect(page.locator(".event .line")).to_have_text('{"text":"hi"}')
    await expect(page.locator(".event .kind")).to_have_text("#1")
    await page.get_by_label("As a NOTIFY").check()
    await page.click("#publish button")
    await expect(page.locator("#publish-result")).to_contain_text("by NOTIFY")
    await expect(page.locator(".event .kind")).to_have_text(["NOTIFY", "#1"])


async def test_what_is_durable_shows_its_id_and_the_newest_are_there_at_once(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?channel=orders")
    await live(page)
    await publish(producer, "orders", *range(1, 31))
    await expect(page.locator(".event .kind").first).to_have_text("#30")
    await notify(producer, "orders", "31")
    await expect(page.locator(".event .kind").first).to_have_text("NOTIFY")
    await page.reload()
    await expect(page.locator(".event .line")).to_have_text([str(n) for n in range(30, 10, -1)])
    await page.goto(f"{hub.url}/?channel=orders&last=2")
    await expect(page.locator(".event .kind")).to_have_text(["#30", "#29"])
    assert "last=2" in page.url


async def test_a_pattern_is_a_subscription_like_any_other(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?channel=orders.new")
    await page.fill("#channel", "orders.*")
    await page.keyboard.press("Enter")
    await live(page, 2)
    await publish(producer, "orders.new", 1)
    await publish(producer, "orders.old", 2)
    await expect(page.locator(".event .channel")).to_have_text(["orders.old", "orders.new"])
    await page.get_by_label("Show one channel only").select_option("orders.new")
    await expect(page.locator(".event .line")).to_have_text(["1"])
    await page.get_by_label("Show one channel only").select_option("orders.*")
    await expect(page.locator(".event .line")).to_have_text(["2", "1"])


async def test_after_a_restart_of_the_hub_the_page_says_what_was_replayed(
    database: str, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with running(database, port=port) as hub:
        page = await open_page(f"{hub.url}/?channel=orders.*", expect="WebSocket connection")
        await live(page)
    await expect(page.locator("#state")).to_have_attribute("data-state", "waiting")
    await publish(producer, "orders.new", *range(1, 13))
    async with running(database, port=port):
        await live(page)
        await expect(page.locator(".note")).to_have_text([re.compile("resumed: 12 events replayed, nothing lost")])
        await expect(page.locator(".event .line")).to_have_text([str(n) for n in range(12, 0, -1)])


async def test_markup_is_shown_as_text(hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection) -> None:
    page = await open_page(hub.url)
    await page.fill("#channel", EVIL)
    await page.keyboard.press("Enter")
    await live(page)
    await notify(producer, EVIL, EVIL)
    await expect(page.locator(".event .line")).to_have_text(f'"{EVIL}"')
    await page.locator(".event summary").click()
    await expect(page.locator(".event .channel")).to_have_text(EVIL)
    assert await page.locator("img").count() == 0


async def test_after_a_restart_of_the_hub_the_page_comes_back_and_says_what_it_may_have_missed(
    database: str, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with running(database, port=port) as hub:
        page = await open_page(f"{hub.url}/?channel=orders", expect="WebSocket connection")
        await live(page)
    await expect(page.locator("#state")).to_have_attribute("data-state", "waiting")
    async with running(database, port=port):
        await live(page)
        await expect(page.locator(".note").first).to_contain_text("not connected")
        await notify(producer, "orders", "again")
        await expect(page.locator(".event .line")).to_have_text('"again"')


async def test_a_flood_does_not_grow_the_page(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?channel=orders")
    await live(page)
    for start in range(0, 10_000, 500):
        await producer.execute(
            "SELECT pg_notify('orders', n::text) FROM generate_series($1::int, $2::int) AS n", start, start + 499
        )
    await expect(page.locator("#received")).to_have_text("10,000")
    await expect(page.locator(".event .line").first).to_have_text("9999")
    assert await page.locator("#feed > li").count() == 100
    await expect(page.locator("#shown")).to_have_text("the newest 1,000 of 10,000")
    await page.locator("#feed > li").last.scroll_into_view_if_needed()
    await expect(page.locator("#feed > li")).to_have_count(200)
    await expect(page.locator(".event .line").last).to_have_text("9800")


async def test_what_waits_while_paused_is_counted_in_full_and_bounded(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?channel=orders")
    await live(page)
    await page.click("#pause")
    await producer.execute("SELECT pg_notify('orders', n::text) FROM generate_series(1, 5000) AS n")
    await expect(page.locator("#pause")).to_have_text("Resume (5,000)")
    await expect(page.locator(".event")).to_have_count(0)
    await page.click("#pause")
    await expect(page.locator(".event .line").first).to_have_text("5000")
    await expect(page.locator("#shown")).to_have_text("the newest 1,000 of 5,000")


async def test_a_hub_without_its_postgres_is_told_from_one_that_works(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url, blank=True)

    def report_lost(route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        server.on_message(lambda text: route.send(str(text).replace('"listener":"connected"', '"listener":"lost"')))

    await page.route_web_socket("**/ws", report_lost)
    await page.goto(hub.url)
    await expect(page.locator("#state-text")).to_have_text("connected, but the hub has lost Postgres")


async def test_a_browser_that_stores_nothing_shows_the_page_all_the_same(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await open_page(hub.url, blank=True)
    await page.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError') } })"
    )
    await page.goto(f"{hub.url}/?channel=orders")
    await live(page)
    await page.click("#theme")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_shows_all_without_scrolling_sideways(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection, scheme: str
) -> None:
    page = await open_page(f"{hub.url}/?channel=orders", viewport={"width": 360, "height": 740}, color_scheme=scheme)
    await live(page)
    await notify(producer, "orders", "x" * 3000)
    await expect(page.locator(".event")).to_have_count(1)
    await page.locator(".event summary").click()
    assert await page.evaluate("document.documentElement.scrollWidth") == 360


async def test_dark_follows_the_system_and_the_button(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url, color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = await page.evaluate(background)
    await page.click("#theme")
    assert await page.evaluate(background) != dark
    await page.reload()
    assert await page.evaluate(background) != dark, "the choice is remembered"


async def test_every_control_has_a_name(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(f"{hub.url}/?channel=orders")
    await live(page)
    nameless = await page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea")].filter(control =>
            !control.textContent.trim() && !control.labels?.length && !control.getAttribute("aria-label")).length"""
    )
    assert nameless == 0
    for role in ("banner", "main", "complementary"):
        await expect(page.get_by_role(role)).to_have_count(1)
