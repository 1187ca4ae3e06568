"""The history in the dashboard: what was published at a moment, page by page, once more in the feed, or as a file."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from playwright.async_api import Page, Route, expect

from tests.conftest import Hub

EVIL = "<img src=x onerror=alert(1)>"


def at(moment: datetime) -> str:
    """A moment as the page's fields have it: UTC, to the second."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}"


async def published(producer: asyncpg.Connection, moment: datetime, channel: str, *payloads: object) -> None:
    """Events of the past, a millisecond apart."""
    await producer.execute(
        """INSERT INTO hub.events (channel, payload, tags, published_at)
           SELECT $1, p::jsonb, CASE WHEN n % 2 = 0 THEN '{even}' ELSE '{odd}' END::text[],
                  $3::timestamptz + n * interval '1 ms'
             FROM unnest($2::text[]) WITH ORDINALITY AS each (p, n)""",
        channel,
        [json.dumps(payload) for payload in payloads],
        moment,
    )


async def search(page: Page, moment: datetime, **fields: str) -> None:
    await page.fill("#past-from", at(moment))
    for name, value in fields.items():
        await page.fill(f"#past-{name}", value)
    await page.get_by_role("button", name="Search", exact=True).click()


async def test_a_moment_of_the_past_is_seen_page_by_page(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    day = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    await published(producer, day, "orders", *range(1, 251))
    await published(producer, day + timedelta(hours=1), "orders", "later")
    page = await open_page(f"{hub.url}/?view=past")
    lines = page.locator("#past-list .line")
    await expect(page.locator("#past-empty")).to_have_text(re.compile("^Nothing was published"))
    await search(page, day, to=at(day + timedelta(minutes=1)))
    await expect(lines).to_have_text([str(n) for n in range(1, 101)])
    await expect(page.locator("#past-state")).to_have_text(f"1 to 100, 0 seconds from {day:%Y-%m-%d %H:%M:%S} UTC")
    back, on = page.get_by_role("button", name="Back"), page.get_by_role("button", name="Next")
    await expect(back).to_be_disabled()
    await on.click()
    await on.click()
    await expect(lines).to_have_text([str(n) for n in range(201, 251)])
    await expect(on).to_be_disabled()
    await back.click()
    await expect(page.locator("#past-state")).to_contain_text("101 to 200")
    await expect(lines.first).to_have_text("101")
    assert "view=past" in page.url


async def test_the_past_is_searched_by_channel_and_tag_and_what_is_wrong_is_said(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    day = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    await published(producer, day, "orders.new", EVIL, 2, 3)
    await published(producer, day, "chat, loud", 4, 5)
    await published(producer, day, "other", 6)
    page = await open_page(f"{hub.url}/?view=past", expect="400 (Bad Request)")
    lines = page.locator("#past-list .line")
    await search(page, day, channels="orders.*\nchat, loud\n")
    await expect(lines).to_have_text([f'"{EVIL}"', "2", "3", "4", "5"])
    assert await page.locator("img").count() == 0
    await search(page, day, tag="even")
    await expect(lines).to_have_text(["2", "5"])
    await search(page, day, channels="hub_bell*")
    await expect(page.locator("#past-state")).to_contain_text("'hub_bell*'")
    await expect(lines).to_have_count(0)
    await search(page, day, channels="", tag="", to=at(day - timedelta(days=1)))
    await expect(page.locator("#past-state")).to_have_text("`to` is before `from`.")


async def test_the_past_is_replayed_into_the_feed_and_a_replay_can_be_stopped(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    day = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    await published(producer, day, "orders", *range(1, 151))
    await published(producer, day + timedelta(hours=1), "orders", "an hour later")
    page = await open_page(f"{hub.url}/?view=past")
    await search(page, day)
    await expect(page.locator("#past-list .line")).to_have_count(100)
    await page.get_by_role("button", name="Replay").click()
    await expect(page.get_by_role("tab", selected=True)).to_have_text("Feed")
    await expect(page.locator("#feed .event.again .line").first).to_have_text('"an hour later"')
    await expect(page.locator("#shown")).to_have_text("151 events")
    await page.get_by_role("tab", name="History").click()
    await expect(page.locator("#past-result")).to_have_text("replayed 151 events")
    await page.get_by_label("How fast to replay").select_option("100 times as fast")
    await page.get_by_role("button", name="Next").click()
    await expect(page.locator("#past-state")).to_contain_text("101 to 151")
    await page.get_by_role("button", name="Replay").click()
    await expect(page.locator("#shown")).to_have_text("201 events")
    await page.get_by_role("tab", name="History").click()
    await page.get_by_role("button", name="Stop").click()  # the last one is still waited for
    await expect(page.locator("#past-result")).to_have_text("replayed 50 events")


async def test_a_selection_is_saved_as_a_file(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection, tmp_path: Path
) -> None:
    day = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    await published(producer, day, "orders", *({"n": n} for n in range(300)))
    await published(producer, day, "chat", "not this")
    page = await open_page(f"{hub.url}/?view=past")
    await search(page, day, channels="orders")
    await expect(page.locator("#past-list .line")).to_have_count(100)
    found: dict[str, list[Any]] = {}
    for name in ("CSV", "NDJSON"):
        async with page.expect_download() as saving:
            await page.get_by_role("button", name=name, exact=True).click()
        download = await saving.value
        assert re.fullmatch(rf"events-[\dT-]+\.{name.lower()}", download.suggested_filename)
        await download.save_as(tmp_path / name)
        await expect(page.locator("#past-result")).to_have_text(re.compile(r"^saved \d+ KB$"))
    with (tmp_path / "CSV").open(newline="") as file:
        found["CSV"] = [json.loads(row["payload"])["n"] for row in csv.DictReader(file)]
    found["NDJSON"] = [json.loads(line)["payload"]["n"] for line in (tmp_path / "NDJSON").read_text().splitlines()]
    assert found == {"CSV": list(range(300)), "NDJSON": list(range(300))}


async def test_a_gap_and_a_hub_that_is_busy_are_told_of(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(hub.url, expect="503 (Service Unavailable)")
    event = {"channel": "orders", "id": 7, "at": "2026-11-22T09:00:00Z", "payload": 1, "tags": []}
    answers = [
        (200, {"events": [event], "cursor": "a", "gap": "expired"}),
        (503, {"error": {"code": "unavailable", "message": "All connections are in use.", "field": None}}),
    ]

    async def answer(route: Route) -> None:
        status, body = answers.pop(0)
        await route.fulfill(status=status, json=body)

    await page.route("**/events?*", answer)
    await page.get_by_role("tab", name="History").click()
    await expect(page.locator("#past-gap")).to_contain_text("no longer kept")
    await page.get_by_role("button", name="Search", exact=True).click()
    await expect(page.locator("#past-state")).to_have_text("All connections are in use.")
