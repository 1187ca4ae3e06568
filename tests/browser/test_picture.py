"""The picture of the dashboard that README shows. HUB_PICTURE=1 writes it anew, beside this file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.async_api import expect

from hub import service
from hub.settings import Settings

PICTURE = Path(__file__).with_name("dashboard.png")
SIZE = {"width": 1280, "height": 800}
MOST = 300_000  # bytes


async def test_the_picture_in_the_readme_is_of_the_demo_and_small(database: str, open_page: Callable[..., Any]) -> None:
    events = 60 if os.environ.get("HUB_PICTURE") else 2
    async with service.hub(Settings(port=0), database, with_demo=True) as (url, _tasks):
        page = await open_page(url, expect="WebSocket connection", viewport=SIZE, color_scheme="light")
        await expect(page.locator("#table-state")).to_have_attribute("data-state", "open")
        await page.wait_for_function(
            "events => document.querySelectorAll('.event').length >= events", arg=events, timeout=90_000
        )
        picture = await page.screenshot(animations="disabled")
    if os.environ.get("HUB_PICTURE"):
        PICTURE.write_bytes(picture)
    assert max(len(picture), PICTURE.stat().st_size) < MOST
