"""What axe-core has to say about the dashboard, and whether it can be used without a mouse.

Violations that axe calls serious or critical are failures; the others are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from hub import tokens
from tests.conftest import Hub, running

SECRET = "accessible" * 4
SEVERE = {"serious", "critical"}
PHONE = {"width": 390, "height": 844}


async def complaints(page: Page) -> list[str]:
    """Rules that are broken, with the first element that breaks each."""
    found = await Axe().run(page)
    said = [(each["impact"], f"{each['id']}: {each['nodes'][0]['html']}") for each in found.response["violations"]]
    print(*(f"{impact}: {text}" for impact, text in said if impact not in SEVERE), sep="\n")
    return [text for impact, text in said if impact in SEVERE]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_serious_is_amiss_in_any_view(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection, scheme: str
) -> None:
    await producer.execute("CREATE TABLE shop (id int PRIMARY KEY, name text); SELECT hub.watch('shop')")
    await producer.execute("INSERT INTO shop VALUES (1, 'a'), (2, NULL)")
    page = await open_page(f"{hub.url}/?channel=shop&channel=orders", color_scheme=scheme)
    for number in range(20):
        await producer.execute("SELECT hub.publish('orders', $1::int::text::jsonb)", number)
    await expect(page.locator(".event")).to_have_count(22)
    await page.locator(".event summary").first.click()
    found = {"feed": await complaints(page)}
    for tab, shown in (("History", "#past-list li"), ("Hub", "#clients-body tr"), ("public.shop", "#table-body tr")):
        await page.get_by_role("tab", name=tab).click()
        await expect(page.locator(shown).first).to_be_visible()
        found[tab] = await complaints(page)
    assert not {view: said for view, said in found.items() if said}


async def test_nothing_serious_is_amiss_on_a_phone_and_where_a_token_is_asked_for(
    database: str, open_page: Callable[..., Any]
) -> None:
    async with running(database, secret=SECRET) as hub:
        page = await open_page(f"{hub.url}/?channel=orders&view=hub", viewport=PHONE)
        await expect(page.get_by_role("dialog")).to_be_visible()
        assert not await complaints(page)
        await page.get_by_role("textbox", name="Token").fill(tokens.issue(SECRET, {"admin": True}, 60))
        await page.keyboard.press("Enter")
        await expect(page.locator("#clients-body tr")).to_have_count(1)
        assert not await complaints(page)


async def test_every_control_is_reached_by_the_tab_key_and_shows_that_it_is(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    await producer.execute("SELECT hub.publish('orders', '1')")
    page = await open_page(f"{hub.url}/?view=past")
    await expect(page.locator("#past-list li")).to_have_count(1)
    reached: list[str] = []
    for _ in range(40):
        await page.keyboard.press("Tab")
        name, outlined = await page.evaluate(
            """() => {
                const { activeElement: active } = document;
                const name = active === document.body ? "" : active.id || active.textContent;
                return [name, getComputedStyle(active).outlineStyle];
            }"""
        )
        if name == "":  # past the last, at the page itself
            break
        reached += [] if name in reached[-1:] else [name]  # the parts of a field for a moment
        assert outlined != "none", name
    wanted = ["theme", "channel", "past-tab", "past-from", "past-channels", "past-tag", "past-scroller", "past-replay"]
    assert [name for name in reached if name in wanted] == wanted
    await page.get_by_role("tab", name="History").focus()
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("tabpanel", name="Hub")).to_be_visible()
