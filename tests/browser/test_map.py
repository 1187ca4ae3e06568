"""The dashboard's map of places, and fences of client.js, against a hub whose database has PostGIS."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
from playwright.async_api import Page, expect

from tests.browser.conftest import fixture
from tests.browser.test_client_js import scripted
from tests.browser.test_dashboard import live, publish
from tests.conftest import Hub
from tests.geo.conftest import server as server
from tests.geo.conftest import template as template

BBOX = "-74.02,40.70,-73.93,40.82"
INSIDE, OUTSIDE = (-73.9857, 40.7484), (-74.0445, 40.6892)
# The middle of what is drawn in the very colour of the newest place, from -1 to 1 across and down.
MIDDLE = """canvas => {
    const probe = new OffscreenCanvas(1, 1).getContext("2d");
    probe.fillStyle = getComputedStyle(canvas).getPropertyValue("--accent");
    probe.fillRect(0, 0, 1, 1);
    const accent = probe.getImageData(0, 0, 1, 1).data;
    const { width, height } = canvas;
    const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, width, height);
    let [count, x, y] = [0, 0, 0];
    for (let at = 0; at < data.length; at += 4) {
        if ([0, 1, 2, 3].some(part => data[at + part] !== accent[part])) continue;
        count += 1;
        x += (at / 4) % width;
        y += Math.floor(at / 4 / width);
    }
    return count && [(2 * x) / count / width - 1, (2 * y) / count / height - 1];
}"""


@fixture
async def producer(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database, server_settings={"search_path": "gis, public"})
    yield connection
    await connection.close()


async def publish_at(producer: asyncpg.Connection, text: str) -> None:
    await producer.execute("SELECT hub.publish('fleet', '1'::jsonb, place => ST_GeomFromEWKT($1))", text)


async def publish_point(producer: asyncpg.Connection, position: tuple[float, float]) -> None:
    await publish_at(producer, "SRID=4326;POINT({} {})".format(*position))


async def middle(page: Page, *, count: int) -> Any:
    """Where the newest place is drawn, once there are so many; the label changes in the step that draws."""
    canvas = page.locator("#map")
    noun = "place" if count == 1 else "places"
    await expect(canvas).to_have_attribute("aria-label", re.compile(f"^Map of {count} {noun},"))
    return await canvas.evaluate(MIDDLE)


async def test_a_map_is_there_once_a_place_is_and_shows_where_it_is(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?channel=fleet")
    await live(page)
    await publish(producer, "fleet", 7)
    await expect(page.locator(".event")).to_have_count(1)
    await expect(page.locator("#map")).to_be_hidden()
    await publish_point(producer, INSIDE)
    x, y = await middle(page, count=1)
    assert abs(x) < 0.02
    assert abs(y) < 0.02
    await publish_point(producer, OUTSIDE)
    x, y = await middle(page, count=2)
    assert x < -0.05
    assert y > 0.3
    label = "Map of 2 places, from 74.044° W to 73.986° W and from 40.689° N to 40.748° N"
    await expect(page.locator("#map")).to_have_attribute("aria-label", label)
    await page.locator("#clear").click()
    await expect(page.locator("#map")).to_be_hidden()


async def test_lines_areas_and_collections_are_drawn_and_what_is_empty_is_not(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?channel=fleet", color_scheme="dark")
    await live(page)
    for empty in ("POINT EMPTY", "MULTIPOLYGON EMPTY", "GEOMETRYCOLLECTION EMPTY"):
        await publish_at(producer, f"SRID=4326;{empty}")
    await expect(page.locator(".event")).to_have_count(3)
    await expect(page.locator("#map")).to_be_hidden()
    shapes = [
        "MULTILINESTRING((0 0, 1 1), (1 0, 2 0))",
        "POLYGON Z((0 0 5, 3 0 5, 3 3 5, 0 0 5))",
        "GEOMETRYCOLLECTION(MULTIPOINT(1 1, 2 2), LINESTRING(0 0, 1 1))",
        "MULTIPOLYGON(((-180 -90, 180 -90, 180 90, -180 90, -180 -90)))",
    ]
    for count, shape in enumerate(shapes, 1):
        await publish_at(producer, f"SRID=4326;{shape}")
        assert await middle(page, count=count)


async def test_the_fence_of_the_address_is_drawn_kept_and_the_hubs(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(f"{hub.url}/?channel=fleet&bbox={BBOX}")
    await live(page)
    assert await middle(page, count=0) == 0
    await expect(page.locator("#map")).to_be_visible()
    await publish_point(producer, OUTSIDE)
    await publish_point(producer, INSIDE)
    x, y = await middle(page, count=1)
    assert -0.1 < x < 0 < y < 0.2
    await expect(page.locator(".event")).to_have_count(1)
    assert await page.evaluate("new URLSearchParams(location.search).get('bbox')") == BBOX


async def test_a_circle_is_a_fence_too_and_one_that_is_none_is_told(hub: Hub, open_page: Callable[..., Any]) -> None:
    page = await open_page(f"{hub.url}/?channel=fleet&near=-73.98,40.75,1112")
    await live(page)
    label = "Map of 0 places, within a fence, from 73.993° W to 73.967° W and from 40.740° N to 40.760° N"
    await expect(page.locator("#map")).to_have_attribute("aria-label", label)
    page = await open_page(f"{hub.url}/?channel=fleet&bbox=1,2")
    await expect(page.locator("#subscribe-error")).to_contain_text("bbox")
    await expect(page.locator("#map")).to_be_hidden()


async def test_a_fence_goes_along_with_each_subscribe_and_a_name_has_one(
    hub: Hub, open_page: Callable[..., Any]
) -> None:
    page = await scripted(hub, open_page)
    sent, codes = await page.evaluate(
        """async () => {
        begin();
        const follow = (name, fence) => hub.subscribe(name, () => {}, fence);
        const [bbox, near] = [[1, 2, 3, 4], { point: [5, 6], meters: 7 }];
        const all = [follow("a", { bbox }), follow("b", { near }), follow("c"), follow("d", { bbox })];
        const codes = [];
        const bad = [follow("a"), follow("a", { near }), follow("c", { bbox })];
        for (const { ready } of bad) codes.push(await outcome(ready));
        follow("a", { bbox: [1, 2, 3, 4], near: null });
        const asked = () => sockets[0].sent.map(({ channels, bbox, near }) => [channels, bbox ?? near ?? null]);
        sockets[0].welcome();
        const first = asked();
        sockets[0].onclose({ code: 1006 });
        dispatchEvent(new Event("online"));
        sockets[0].welcome();
        all[0].close();
        return [[first, asked()], codes];
    }"""
    )
    near = {"point": [5, 6], "meters": 7}
    expected = [[["a", "d"], [1, 2, 3, 4]], [["b"], near], [["c"], None]]
    assert sent == [expected, expected]
    assert codes == ["bad_place"] * 3


async def test_events_come_to_a_fenced_listener_from_inside_only(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page = await open_page(hub.url, blank=True)
    await page.evaluate(
        """async ([url, near]) => {
        const { connect } = await import(url + "/client.js");
        window.log = [];
        await connect().subscribe("fleet", event => log.push(event.place.coordinates), { near }).ready;
    }""",
        [hub.url, {"point": [-73.98, 40.75], "meters": 1500}],
    )
    await publish_point(producer, OUTSIDE)
    await publish_point(producer, INSIDE)
    await page.wait_for_function("log.length")
    assert await page.evaluate("log") == [list(INSIDE)]
