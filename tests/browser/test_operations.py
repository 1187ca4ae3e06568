"""The hub at work, in the dashboard: its numbers, its channels and clients, and what happened to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import asyncpg
import pytest
from playwright.async_api import Page, Route, WebSocketRoute, expect

from hub import tokens
from tests.conftest import Hub, running

SECRET = "operations" * 4
EVIL = "<img src=x onerror=alert(1)>"
FULL = {
    "groups": 2,
    "behind": 1,
    "asleep": False,
    "lag_ms": 2.4,
    "loop_lag_ms": 0.31,
    "p50_ms": 2.2,
    "p99_ms": 1_234.5,
    "pool": {"size": 4, "used": 3, "max": 10, "waiting": 2},
    "memory_mb": 84.2,
    "tasks": 37,
    "draining": False,
}


async def told(page: Page, change: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> None:
    """Make of each of the hub's reports what `change` makes of it."""

    def connect(route: WebSocketRoute) -> None:
        def pass_on(text: str | bytes) -> None:
            message = json.loads(text)
            events = message.get("events", [])
            if events and events[0]["channel"] == "$hub":
                payloads = [made for event in events for made in change(event["payload"])]
                message["events"] = [events[0] | {"payload": payload} for payload in payloads]
            route.send(json.dumps(message))

        route.connect_to_server().on_message(pass_on)

    await page.route_web_socket("**/ws", connect)


def tile(page: Page, name: str) -> Any:
    return page.locator(".tile", has=page.get_by_text(name, exact=True))


async def test_the_numbers_of_the_hub_are_shown_and_those_to_worry_about_stand_out(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(hub.url, blank=True)
    await told(page, lambda report: [report | FULL])
    await page.goto(f"{hub.url}/?channel=orders&view=hub")
    await expect(tile(page, "Clients")).to_contain_text("1 subscription in 2 groups")
    await expect(tile(page, "Delivery, p50")).to_contain_text("2.2 ms")
    await expect(tile(page, "Delivery, p99")).to_contain_text("1.2 s")
    await expect(tile(page, "Pool")).to_contain_text("3 of 10")
    await expect(tile(page, "Memory")).to_contain_text("84 MB")
    worries = page.locator(".tile.worry dt")
    await expect(worries).to_have_text(["Behind", "Delivery, p99", "Pool"])
    await expect(page.get_by_label("Search what is shown")).to_be_hidden()
    await producer.execute("SELECT hub.publish($1, to_jsonb(n)) FROM generate_series(1, 1234) AS n", EVIL)
    line = page.locator("#traffic-body tr", has_text="orders")
    await expect(line.locator("td").nth(2)).to_have_text("1")
    await expect(tile(page, "Events in")).to_contain_text("since the start")
    assert await page.locator("img").count() == 0
    assert "view=hub" in page.url


async def test_all_comes_from_the_hub_to_an_admin_who_shows_a_token(
    database: str, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    await producer.execute(
        """CREATE FUNCTION grumble() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RAISE WARNING 'low'; RETURN NULL; END $$;
           CREATE TRIGGER grumble AFTER INSERT ON hub.events EXECUTE FUNCTION grumble()"""
    )
    async with running(database, secret=SECRET) as hub:
        page = await open_page(f"{hub.url}/?channel=orders&view=hub")
        await page.get_by_role("textbox", name="Token").fill(tokens.issue(SECRET, {"admin": True}, 60))
        await page.keyboard.press("Enter")
        await expect(page.locator("#clients-body tr")).to_contain_text("this page")
        await expect(page.locator("#chips li")).not_to_have_class("unconfirmed")  # a replay has no delivery time
        await page.get_by_role("button", name="Publish").click()
        await expect(page.locator("#timeline .kind").first).to_have_text("Postgres")
        await expect(page.locator("#timeline .text").first).to_have_text("low")
        await expect(page.locator("#traffic-body tr", has_text="orders")).to_contain_text("ago")
        for name in ("Clients", "Behind", "Deliveries", "Delivery, p50", "Delivery, p99", "Tail lag", "Memory"):
            await expect(tile(page, name)).not_to_contain_text("–")
        await page.get_by_role("tab", name="History").click()
        await expect(page.locator("#past-list li")).to_have_count(1)


async def test_a_plot_is_read_with_the_arrow_keys_and_with_the_mouse(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url, blank=True)
    await told(page, lambda report: [report | FULL])
    await page.goto(f"{hub.url}/?view=hub")
    plot = page.get_by_role("slider", name="Clients, the last ten minutes")
    readout = page.locator("figure", has=plot).locator(".readout")
    await expect(readout).to_have_text("now 1, at most 1")
    await plot.focus()
    await page.keyboard.press("ArrowLeft")
    await expect(plot).to_have_attribute("aria-valuenow", "-5")
    await page.keyboard.press("End")
    await expect(plot).to_have_attribute("aria-valuetext", "0 s ago: 1")
    await page.keyboard.press("Escape")
    await expect(plot).to_have_attribute("aria-valuetext", "now 1, at most 1")
    await plot.hover()
    await expect(readout).to_have_text(re.compile("^3[0-9]{2} s ago: –$"))  # in the middle
    drawn = "plot => plot.getContext('2d').getImageData(0, 0, plot.width, plot.height).data.some(value => value)"
    assert await plot.evaluate(drawn)


async def test_an_older_hub_that_tells_less_is_shown_with_dashes(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url, blank=True, expect="404 (Not Found)")
    await told(page, lambda report: [{name: report[name] for name in ("clients", "listener")}])

    async def absent(route: Route) -> None:
        error = {"code": "not_found", "message": "There is no '/sessions' here.", "field": None}
        await route.fulfill(status=404, json={"error": error})

    await page.route("**/sessions?*", absent)
    await page.goto(f"{hub.url}/?view=hub")
    await expect(tile(page, "Clients").locator("dd").first).to_have_text("1")
    for name in ("Behind", "Events in", "Delivery, p99", "Tail lag", "Memory"):
        await expect(tile(page, name).locator("dd").first).to_have_text("–")
    await expect(tile(page, "Pool").locator("dd").first).to_have_text("– of –")
    await expect(page.locator("#clients-state")).to_have_text("There is no '/sessions' here.")


async def test_a_client_is_disconnected_by_keyboard_alone_once_that_is_confirmed(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await open_page(f"{hub.url}/?channel=orders&view=hub")
    async with aiohttp.ClientSession() as http:
        other = await http.ws_connect(f"{hub.ws}?channel=chat", autoclose=False, autoping=False)
        line = page.locator("#clients-body tr", has_text="chat")
        await expect(line).to_contain_text("live")
        await expect(page.locator("#clients-body tr", has_text="orders")).to_contain_text("this page")
        await line.get_by_role("button").focus()
        await page.keyboard.press("Enter")
        await expect(line.get_by_role("button", name="Keep")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(line.get_by_role("button")).to_have_text(["Disconnect"])
        await page.keyboard.press("Enter")
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        while (message := await other.receive()).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING):
            pass
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
        await expect(line).to_have_count(0)
        await expect(page.locator("#clients-state")).to_have_text("1 client")


async def test_what_happened_is_a_timeline_and_its_texts_are_text(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url, blank=True)
    now = datetime.now(UTC).isoformat()
    moments = [
        {"kind": "slow_query", "at": now, "text": EVIL, "ms": 1234},
        {"kind": "notice", "at": now, "text": "from a trigger"},
        *({"kind": "gap", "at": now, "text": str(n)} for n in range(250)),
    ]

    def once(report: dict[str, Any]) -> list[dict[str, Any]]:
        found = [*moments, report]
        moments.clear()
        return found

    await told(page, once)
    await page.goto(f"{hub.url}/?view=hub")
    happened = page.locator("#timeline > li")
    await expect(happened).to_have_count(200)
    await expect(happened.first.locator(".text")).to_have_text("249")
    moments.extend({"kind": kind, "at": now, "text": EVIL, "ms": 1234} for kind in ("slow_query", EVIL))
    await expect(happened.first.locator(".kind")).to_have_text(EVIL)
    await expect(happened.nth(1).locator(".text")).to_have_text(EVIL)
    await happened.nth(1).locator("summary").click()
    await expect(happened.nth(1).locator(".json")).to_contain_text('"ms": 1234')
    assert await page.locator("img").count() == 0


@pytest.mark.parametrize("view", ["hub", "past"])
async def test_a_phone_shows_them_without_scrolling_sideways(
    hub: Hub, open_page: Callable[..., Any], view: str
) -> None:
    page = await open_page(f"{hub.url}/?channel=orders&view={view}", viewport={"width": 360, "height": 740})
    await expect(page.locator("#chips li:not(.unconfirmed)")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    assert await page.locator(f"#{view}-panel").evaluate("panel => panel.scrollWidth <= panel.clientWidth")
