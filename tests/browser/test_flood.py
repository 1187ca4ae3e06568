"""A flood of events: the page goes on being drawn, and does not grow.

HUB_FLOOD is for how many seconds 5,000 events a second come; a minute is worth it now and then.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import asyncpg
from playwright.async_api import expect

from tests.conftest import Hub

SECONDS = int(os.environ.get("HUB_FLOOD", "3"))
RATE = 5_000
# A producer that keeps to its rate, by itself.
FLOOD = """DO $$ DECLARE begun timestamptz := clock_timestamp(); BEGIN FOR round IN 1..{rounds} LOOP
    INSERT INTO hub.events (channel, payload) SELECT 'orders', jsonb_build_object('n', n, 'text', repeat('x', 100))
      FROM generate_series(1, {each}) AS n;
    COMMIT;
    PERFORM pg_sleep_until(begun + round * interval '0.1 s');
END LOOP; END $$"""
# How many events come from one frame to the next: a page that freezes gets many at once.
WATCH = """() => {
    window.drawn = { frames: 0, most: 0 };
    let before = 0;
    const look = () => {
        const now = Number(document.getElementById("received").textContent.replaceAll(",", ""));
        drawn.frames += 1;
        drawn.most = Math.max(drawn.most, now - before);
        before = now;
        requestAnimationFrame(look);
    };
    look();
}"""


async def test_a_page_under_5000_events_a_second_is_drawn_all_the_time_and_does_not_grow(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?channel=orders&view=hub")
    inside = await page.context.new_cdp_session(page)

    async def size() -> tuple[int, int]:
        """Bytes of JavaScript's heap that are in use, and nodes, once all that is not needed is gone."""
        await inside.send("HeapProfiler.collectGarbage")
        heap, counters = await inside.send("Runtime.getHeapUsage"), await inside.send("Memory.getDOMCounters")
        return heap["usedSize"], counters["nodes"]

    await expect(page.locator("#chips li:not(.unconfirmed)")).to_have_count(1)
    await page.get_by_role("tab", name="Feed").click()
    await page.evaluate(WATCH)
    # After the first second all that is bounded is full.
    await producer.execute(FLOOD.format(rounds=10, each=RATE // 10))
    await expect(page.locator("#received")).to_have_text(f"{RATE:,}")
    heap, nodes = await size()
    flood = asyncio.create_task(producer.execute(FLOOD.format(rounds=10 * SECONDS, each=RATE // 10)))
    await page.get_by_label("Search what is shown").fill("xxx")  # the page answers meanwhile
    await expect(page.locator("#shown")).to_contain_text("match")
    await page.get_by_label("Search what is shown").fill("")
    await flood
    await expect(page.locator("#received")).to_have_text(f"{RATE * (SECONDS + 1):,}", timeout=30_000)
    drawn = await page.evaluate("drawn")
    grown, more = await size()
    print(f"{drawn['frames']} frames, at most {drawn['most']} events between two; {heap} to {grown} bytes")
    assert drawn["most"] < RATE
    assert grown < heap + 3_000_000
    assert more < nodes + 2_000
    assert await page.locator("#feed > li").count() == 100
