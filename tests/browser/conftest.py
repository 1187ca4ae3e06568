"""A real Chromium, and a page that fails its test on any error it shows."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.conftest import Hub, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BLANK = '<!doctype html><link rel="icon" href="/favicon.svg" />'
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
# A page that a test makes up comes from no address at all, and then may not connect to a local one.
QUIET.append("--disable-features=LocalNetworkAccessChecks")


# A browser takes longer to start than most tests here, so they share one, and with it the loop that it belongs to.
fixture = pytest_asyncio.fixture(loop_scope="session")


def pytest_collectstart(collector: pytest.Collector) -> None:
    """The loop's scope has to be known before a test is made."""
    if isinstance(collector, pytest.Module) and collector.path.parent.name == "browser":
        collector.add_marker(pytest.mark.asyncio(loop_scope="session"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "browser":
            item.add_marker(pytest.mark.browser)


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        await browser.close()


@fixture
async def hub(database: str) -> AsyncIterator[Hub]:
    async with running(database) as hub:
        yield hub


@fixture
async def producer(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@fixture
async def open_page(browser: Browser) -> AsyncIterator[Callable[..., Any]]:
    """Opens pages; at the end none of them may have complained, but for what a test expects.

    A `blank` page has the hub's origin and no script.
    """
    complaints: list[str] = []
    expected: list[str] = []
    contexts: list[BrowserContext] = []

    async def open_one(url: str, *, expect: str = "", blank: bool = False, **options: Any) -> Page:
        if expect:
            expected.append(expect)
        context = await browser.new_context(**options)
        contexts.append(context)
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
    for context in contexts:
        await context.close()
    # A violated Content-Security-Policy is an error on the console too.
    assert not [text for text in complaints if not any(word in text for word in expected)]


class Wire:
    """A TCP proxy between the browser and the hub that can be cut, at once or after so many bytes from the hub."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._open: dict[asyncio.StreamWriter, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.down = False
        """Whether nobody gets through."""
        self.rations: list[int] = []
        """After how many bytes from the hub each of the next websockets is cut."""
        self.cuts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End all connections, as a network does that is gone: in the middle of a frame, without a word."""
        for writer in self._open:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.down:
            writer.transport.abort()
            return
        hub_reader, hub_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        head = await reader.read(1 << 16)
        ration = self.rations.pop(0) if b"Upgrade: websocket" in head and self.rations else None
        hub_writer.write(head)
        self._open |= {writer: None, hub_writer: None}
        ways = [self._pass(reader, hub_writer, None), self._pass(hub_reader, writer, ration)]
        tasks = {asyncio.create_task(way) for way in ways}
        self._tasks |= tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks -= tasks
        for end in (writer, hub_writer):
            self._open.pop(end, None)
            end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ration: int | None) -> None:
        while data := await reader.read(1 << 14):
            if ration is not None:
                data, ration = data[:ration], ration - len(data)
            writer.write(data)
            await writer.drain()
            if ration is not None and ration <= 0:
                await asyncio.sleep(0.05)  # for what was sent to arrive
                self.cuts += 1
                return

    async def end(self) -> None:
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def wire(hub_url: str) -> AsyncIterator[Wire]:
    """A wire to the hub at `hub_url`."""
    between = Wire(int(hub_url.rpartition(":")[2]))
    server = await asyncio.start_server(between.accept, "127.0.0.1", 0)
    between.port = server.sockets[0].getsockname()[1]
    try:
        yield between
    finally:
        server.close()
        await between.end()
