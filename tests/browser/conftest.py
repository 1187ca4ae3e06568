"""A real Chromium, and a page that fails its test on any error it shows."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BLANK = '<!doctype html><link rel="icon" href="/favicon.svg" />'
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "browser":
            item.add_marker(pytest.mark.browser)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        await browser.close()


@pytest.fixture
async def open_page(browser: Browser) -> AsyncIterator[Callable[..., Any]]:
    """Opens pages; at the end none of them may have complained, but for what a test expects.

    A `blank` page has the hub's origin and no script.
    """
    complaints: list[str] = []
    expected: list[str] = []

    async def open_one(url: str, *, expect: str = "", blank: bool = False, **options: Any) -> Page:
        if expect:
            expected.append(expect)
        context = await browser.new_context(**options)
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on(
            "console", lambda m: complaints.append(f"{m.type}: {m.text}") if m.type in ("error", "warning") else None
        )
        page.set_default_timeout(15_000)
        if blank:
            url = f"{url}/blank"
            await page.route(url, lambda route: route.fulfill(content_type="text/html", body=BLANK))
        await page.goto(url)
        return page

    yield open_one
    # A violated Content-Security-Policy is an error on the console too.
    assert not [text for text in complaints if not any(word in text for word in expected)]
