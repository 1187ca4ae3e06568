"""The dashboard's tables in a real browser: tabs, rows as they change, and what stands there when there are none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from playwright.async_api import Page, expect

from hub import service
from hub.settings import Settings
from tests.browser.conftest import fixture
from tests.browser.test_resume import free_port
from tests.conftest import Hub, running

EVIL = "<img src=x onerror=alert(1)>"


@fixture
async def orders(producer: asyncpg.Connection) -> asyncpg.Connection:
    """A producer, and a watched table of it with three rows."""
    await producer.execute(
        """
        CREATE TABLE orders (id bigint PRIMARY KEY, item text, total numeric(10,2), extra jsonb);
        SELECT hub.watch('public.orders');
        INSERT INTO orders SELECT n, 'item ' || n, n + 0.25 FROM generate_series(1, 3) AS n;
        """
    )
    return producer


async def state(page: Page, text: str = "live") -> None:
    await expect(page.locator("#table-state-text")).to_have_text(text)


async def column(page: Page, number: int, *texts: str) -> None:
    """Wait until this column of the table has these cells."""
    await expect(page.locator(f"#table-body td:nth-child({number})")).to_have_text(list(texts))


async def test_the_address_line_opens_a_table_whose_newest_rows_are_on_top_and_change(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?table=orders")
    await state(page)
    await expect(page.locator("#table-head th")).to_have_text(["id", "item", "total", "extra"])
    await column(page, 1, "3", "2", "1")
    await column(page, 3, "3.25", "2.25", "1.25")
    await expect(page.locator("#table-count")).to_have_text("3 rows")
    await orders.execute("INSERT INTO orders VALUES (20, 'new', 7, '{\"a\": [1]}'), (10, 'newer', 0.5, NULL)")
    await column(page, 1, "20", "10", "3", "2", "1")
    await column(page, 3, "7.00", "0.50", "3.25", "2.25", "1.25")
    await column(page, 4, '{"a":[1]}', "null", "null", "null", "null")
    await orders.execute("UPDATE orders SET item = 'changed' WHERE id = 2; DELETE FROM orders WHERE id IN (1, 20)")
    await column(page, 2, "newer", "item 3", "changed")
    await orders.execute("TRUNCATE orders")
    await expect(page.locator("#table-empty-text")).to_have_text("The table is empty.")
    await expect(page.locator("#table-count")).to_have_text("0 rows")
    await orders.execute("INSERT INTO orders (id) VALUES (1)")
    await expect(page.locator("#table-empty")).to_be_hidden()
    await expect(page.locator("#table-count")).to_have_text("1 row")


async def test_tabs_are_opened_by_keyboard_and_are_remembered(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    await orders.execute("CREATE TABLE b (id int PRIMARY KEY); SELECT hub.watch('public.b')")
    page = await open_page(f"{hub.url}/?channel=orders")
    tabs = page.get_by_role("tab")
    await expect(tabs).to_have_text(["Feed", "History", "Hub", "public.b", "public.orders"])
    await expect(page.get_by_role("tab", selected=True)).to_have_text("Feed")
    await expect(page.get_by_role("tabpanel")).to_have_accessible_name("Feed")
    await page.locator("#feed-tab").focus()
    for key in ("ArrowRight", "End", "ArrowRight", "ArrowLeft", "Home", "ArrowLeft"):
        await page.keyboard.press(key)
    await expect(tabs.last).to_be_focused()
    await expect(page.get_by_role("tab", selected=True)).to_have_text("Feed")
    await page.keyboard.press("Enter")
    await state(page)
    await expect(page.get_by_role("tab", selected=True)).to_have_text("public.orders")
    await expect(page.get_by_role("tabpanel")).to_have_accessible_name("public.orders")
    assert re.search(r"\?channel=orders&table=public\.orders$", page.url)
    await page.reload()
    await state(page)
    await page.locator("#feed-tab").click()
    await expect(page.locator("#table-panel")).to_be_hidden()
    assert "table=" not in page.url


async def test_the_feed_stays_beside_a_table_where_there_is_room(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?channel=orders&table=orders")
    await state(page)
    await orders.execute("DELETE FROM orders WHERE id = 3")
    await column(page, 1, "2", "1")
    await expect(page.locator(".event .line").first).to_contain_text('"op":"delete"')
    await expect(page.get_by_role("region", name="Feed")).to_be_visible()
    await page.set_viewport_size({"width": 800, "height": 600})
    await expect(page.locator("#feed-panel")).to_be_hidden()
    await expect(page.locator("#table-panel")).to_be_visible()


async def test_only_the_newest_of_many_rows_are_drawn_and_a_search_finds_the_others(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders SELECT n, 'item ' || n FROM generate_series(4, 1234) AS n")
    page = await open_page(f"{hub.url}/?table=public.orders")
    lines = page.locator("#table-body tr")
    await expect(lines).to_have_count(200)
    await expect(page.locator("#table-count")).to_have_text("the newest 200 of 1,234 rows")
    await page.keyboard.press("/")
    await page.keyboard.type("ITEM 7")
    await expect(page.locator("#table-count")).to_have_text("111 of 1,234 rows match")
    await expect(lines).to_have_count(111)
    await orders.execute("UPDATE orders SET item = 'item 7 too' WHERE id = 1")
    await expect(page.locator("#table-count")).to_have_text("112 of 1,234 rows match")
    await page.fill("#search", "nothing like it")
    await expect(page.locator("#table-empty-text")).to_have_text("No row matches.")
    await page.fill("#search", "")
    await expect(lines).to_have_count(200)


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
async def test_what_has_changed_flashes_for_who_likes_it(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection, motion: str
) -> None:
    page = await open_page(f"{hub.url}/?table=orders", reduced_motion=motion)
    flashing = """() => [...document.querySelectorAll("#table-body tr, #table-body td")]
        .filter(element => element.getAnimations().length).map(element => element.textContent)"""
    await column(page, 1, "3", "2", "1")
    assert await page.evaluate(flashing) == [], "what was there already is nothing new"
    await orders.execute("UPDATE orders SET item = 'changed' WHERE id = 2")
    await column(page, 2, "item 3", "changed", "item 1")
    assert await page.evaluate(flashing) == (["changed"] if motion != "reduce" else [])
    await orders.execute("INSERT INTO orders VALUES (4, 'new', 1.25)")
    await column(page, 1, "4", "3", "2", "1")
    assert ("4new1.25null" in await page.evaluate(flashing)) == (motion != "reduce")


async def test_markup_in_names_and_cells_is_shown_as_text(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    await producer.execute(
        f"""
        CREATE TABLE "{EVIL}" ("{EVIL}" text PRIMARY KEY, constructor text, "__proto__" text, "1" int);
        SELECT hub.watch('"{EVIL}"', channel => 'evil');
        INSERT INTO "{EVIL}" VALUES ('{EVIL}', '{EVIL}', 'x', 1);
        """
    )
    page = await open_page(hub.url)
    await page.get_by_role("tab", name="img").click()
    await state(page)
    await expect(page.locator("#table-name")).to_contain_text(EVIL)
    await expect(page.locator("#table-head th")).to_have_text([EVIL, "constructor", "__proto__", "1"])
    await expect(page.locator("#table-body td")).to_have_text([EVIL, EVIL, "x", "1"])
    await producer.execute(f"""UPDATE "{EVIL}" SET constructor = constructor || '!'""")
    await column(page, 2, f"{EVIL}!")
    assert await page.locator("img").count() == 0


async def test_a_restart_of_the_hub_is_shown_and_made_up_for(
    database: str, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    port = free_port()
    async with running(database, port=port) as hub:
        page = await open_page(f"{hub.url}/?table=orders", expect="WebSocket connection")
        await state(page)
    await state(page, "reconnecting")
    await column(page, 1, "3", "2", "1")
    await orders.execute("INSERT INTO orders VALUES (4); DELETE FROM orders WHERE id = 2")
    async with running(database, port=port):
        await page.evaluate("dispatchEvent(new Event('online'))")  # there is nobody else to spread the load for
        await state(page)
        await column(page, 1, "4", "3", "1")


async def test_what_is_shown_can_be_held(hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection) -> None:
    page = await open_page(f"{hub.url}/?channel=orders&table=orders")
    await column(page, 1, "3", "2", "1")
    await page.click("#pause")
    await orders.execute("DELETE FROM orders WHERE id = 2")
    await expect(page.locator("#pause")).to_have_text("Resume (1)")
    await column(page, 1, "3", "2", "1")
    await page.click("#pause")
    await column(page, 1, "3", "1")


async def test_a_column_that_came_is_shown(hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection) -> None:
    page = await open_page(f"{hub.url}/?table=orders")
    await column(page, 1, "3", "2", "1")
    await orders.execute("ALTER TABLE orders DROP extra, ADD colour text DEFAULT 'red'; SELECT hub.rewatch()")
    await expect(page.locator("#table-head th")).to_have_text(["id", "item", "total", "colour"])
    await column(page, 4, "red", "red", "red")


async def test_a_table_that_is_not_watched_says_how_to_watch_it(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    await producer.execute(
        "CREATE TABLE bare (n int); CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)"
    )
    page = await open_page(f"{hub.url}/?table=late")
    await expect(page.locator("#table-empty-code")).to_have_text("SELECT hub.watch('late');")
    await producer.execute("SELECT hub.watch('late'), hub.watch('bare')")
    await page.get_by_role("tab", name="late").click()
    await state(page)
    await expect(page.get_by_role("tab")).to_have_text(["Feed", "History", "Hub", "public.bare", "public.late"])
    await column(page, 1, "1")
    await page.get_by_role("tab", name="bare").click()
    await expect(page.locator("#table-empty-text")).to_contain_text("no primary key")
    await state(page, "failed")


async def test_a_flood_of_changes_is_drawn_once_a_frame(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?table=orders")
    await state(page)
    await page.evaluate(
        """() => {
            window.drawn = 0;
            new MutationObserver(() => drawn += 1).observe(document.querySelector("#table-count"), { childList: true });
        }"""
    )
    for start in range(1_000, 6_000, 500):
        await orders.execute(f"INSERT INTO orders SELECT n, 'flood' FROM generate_series({start}, {start + 499}) AS n")
    await orders.execute("UPDATE orders SET item = 'over' WHERE id >= 1000")
    await expect(page.locator("#table-count")).to_have_text("the newest 200 of 5,003 rows")
    await column(page, 2, *["over"] * 200)
    assert await page.evaluate("drawn") < 100


async def test_the_demo_opens_with_its_orders_as_events_and_as_a_table(
    database: str, open_page: Callable[..., Any]
) -> None:
    for _ in range(2):  # what makes the shop is run at each start
        async with service.hub(Settings(port=0), database, with_demo=True) as (url, _tasks):
            page = await open_page(url, expect="WebSocket connection")
            await state(page)
            assert page.url == f"{url}/?channel=orders&table=demo.orders"
            await expect(page.locator("#table-head th").first).to_have_text("id")
            await expect(page.locator("#table-body tr").first).to_be_visible()
            await expect(page.locator(".event .line").first).to_contain_text('"table":"demo.orders"')


async def test_a_phone_shows_a_table_without_scrolling_the_page_sideways(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    await orders.execute("UPDATE orders SET item = repeat('long ', 200)")
    page = await open_page(f"{hub.url}/?table=orders", viewport={"width": 360, "height": 740})
    await state(page)
    await expect(page.locator("#table-body tr")).to_have_count(3)
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    await expect(page.locator("#feed-panel")).to_be_hidden()
