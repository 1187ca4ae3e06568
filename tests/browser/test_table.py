"""hub.table: a live copy of a watched table, in a real browser, against a real hub and a real Postgres."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import asyncpg
from playwright.async_api import Page, Route

from tests.browser.conftest import Wire, fixture, wire
from tests.browser.test_resume import free_port
from tests.conftest import Hub, running

START = """async url => {
    const { connect } = await import(url + "/client.js");
    Math.random = () => 0.001; // there is nobody else to spread the load for
    window.hub = connect();
    window.told = [];
    window.model = new Map(); // what the page was told, put together
    window.copy = (name, options) => window.table = hub.table(name, {
        onReset: rows => {
            told.push("reset");
            model = new Map(rows);
        },
        onChange: ({ op, key, row, old }) => {
            told.push(op);
            if ((op === "insert") !== (old === null) || (op === "delete") !== (row === null)) told.push("wrong");
            if (row) model.set(key, row);
            else model.delete(key);
        },
        onState: state => told.push(state),
        onError: error => told.push(error.code),
        ...options,
    });
    // Equal however the keys of an object are ordered.
    window.text = value => JSON.stringify(value, (_, each) => each && typeof each === "object" && !Array.isArray(each)
        ? Object.fromEntries(Object.entries(each).sort(([one], [other]) => one < other ? -1 : 1)) : each);
    window.sorted = rows => text([...rows].map(text).sort());
    await new Promise(resolve => hub.addEventListener("state", () => hub.state === "open" && resolve()));
}"""


@fixture
async def orders(producer: asyncpg.Connection) -> asyncpg.Connection:
    """A producer, and a watched table of it with three rows."""
    await producer.execute(
        """
        CREATE TABLE orders (id bigint PRIMARY KEY, item text, total numeric(10,2), extra jsonb, at timestamptz);
        SELECT hub.watch('public.orders');
        INSERT INTO orders SELECT n, 'item ' || n, n + 0.5, '{"a": [1, null]}', now() FROM generate_series(1, 3) AS n;
        """
    )
    return producer


async def started(url: str, open_page: Callable[..., Any], expect: str = "WebSocket connection") -> Page:
    page: Page = await open_page(url, blank=True, expect=expect)
    await page.evaluate(START, url)
    return page


async def copied(url: str, open_page: Callable[..., Any], name: str = "orders") -> Page:
    page = await started(url, open_page)
    await page.evaluate("name => copy(name).ready.then(() => {})", name)
    return page


async def same(page: Page, producer: asyncpg.Connection, table: str = "orders") -> None:
    """Wait until the copy is what Postgres says, and then what the page was told is, too."""
    rows = json.loads(
        await producer.fetchval(f"SELECT coalesce(jsonb_agg(to_jsonb(t.*)), '[]')::text FROM {table} AS t")
    )
    await page.wait_for_function("rows => sorted(table.rows.values()) === sorted(rows)", arg=rows)
    assert await page.evaluate("sorted(model.values()) === sorted(table.rows.values())")
    keys = "[...table.rows].every(([key, row]) => key === JSON.stringify(table.key.map(name => row[name])))"
    assert await page.evaluate(keys)


async def told(page: Page) -> list[str]:
    """What the page was told since the last time."""
    entries: list[str] = await page.evaluate("told.splice(0)")
    return entries


async def until_told(page: Page, entry: str) -> None:
    await page.wait_for_function("entry => told.includes(entry)", arg=entry)


async def test_a_copy_follows_every_kind_of_change(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    page = await copied(hub.url, open_page)
    await same(page, orders)
    assert await told(page) == ["reset", "live"]
    about = await page.evaluate("({ ...table, rows: null, ready: null })")
    assert about == {
        "state": "live",
        "error": None,
        "name": "orders",
        "table": "public.orders",
        "key": ["id"],
        "channel": "orders",
        "rows": None,
        "ready": None,
    }
    for statement, changes in (
        ("INSERT INTO orders (id) VALUES (4), (5)", ["insert", "insert"]),
        ("UPDATE orders SET item = 'other', extra = '[1]' WHERE id IN (1, 4)", ["update", "update"]),
        ("DELETE FROM orders WHERE id = 2", ["delete"]),
        ("UPDATE orders SET id = id + 100 WHERE id < 4", ["delete", "delete", "insert", "insert"]),
        ("UPDATE orders SET id = CASE id WHEN 4 THEN 6 ELSE 7 END WHERE id IN (4, 5)", ["delete"] * 2 + ["insert"] * 2),
        ("TRUNCATE orders", ["reset"]),
        ("INSERT INTO orders (id, item) VALUES (1, 'again')", ["insert"]),
    ):
        await orders.execute(statement)
        await same(page, orders)
        assert await told(page) == changes, statement
    await orders.execute("BEGIN; INSERT INTO orders VALUES (8); ROLLBACK; INSERT INTO orders VALUES (9)")
    await same(page, orders)
    assert await told(page) == ["insert"]


async def test_a_closed_copy_stays_as_it_was_and_its_channel_is_left(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    page = await copied(hub.url, open_page)
    await page.evaluate("window.feed = []; hub.subscribe('orders', ({ payload }) => feed.push(payload.op)).ready")
    await page.evaluate("table.close()")
    await told(page)
    await orders.execute("DELETE FROM orders")
    await page.wait_for_function("feed.length === 3")
    assert await page.evaluate("[table.state, table.rows.size]") == ["closed", 3]
    assert await told(page) == []
    early = "copy('orders').ready.catch(error => error.code)"
    assert await page.evaluate(f"{{ const failed = {early}; table.close(); failed }}") == "closed"


async def test_a_copy_ends_with_its_hub(hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection) -> None:
    page = await copied(hub.url, open_page)
    await told(page)
    await page.evaluate("hub.close()")
    assert await told(page) == ["failed", "closed"]
    assert await page.evaluate("[table.state, table.error.code, table.rows.size]") == ["failed", "closed", 3]
    assert (
        await page.evaluate("{ let code; try { hub.table('orders') } catch (error) { code = error.code } code }")
        == "closed"
    )


async def test_what_changed_while_the_hub_was_away_is_made_up_for(
    database: str, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    port = free_port()
    async with running(database, port=port) as hub:
        page = await copied(hub.url, open_page)
        await same(page, orders)
        await told(page)
    await page.wait_for_function("hub.state === 'waiting'")
    await orders.execute("INSERT INTO orders VALUES (4); DELETE FROM orders WHERE id = 1")
    await orders.execute("UPDATE orders SET item = 'changed' WHERE id = 4")
    async with running(database, port=port):
        await same(page, orders)
        assert await told(page) == ["insert", "delete", "update"], "applied one by one, and never read again"


async def test_a_hub_that_goes_while_the_table_is_read_is_asked_again(
    database: str, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    port = free_port()
    async with running(database, port=port) as hub:
        page = await started(hub.url, open_page, expect="net::ERR")
        await page.route("**/watched/orders", lambda route: route.abort())
        await page.evaluate("told.length = 0; { copy('orders') }")
    await page.wait_for_function("hub.state === 'waiting'")
    await page.unroute("**/watched/orders")
    async with running(database, port=port):
        await until_told(page, "live")
        await same(page, orders)


async def test_a_storm_of_changes_and_of_lost_connections_leaves_copies_that_are_the_table(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    chance = random.Random(11)
    async with wire(hub.url) as between:
        pages = [await copied(between.url, open_page)]

        async def write() -> None:
            turn = 0
            while len(pages) < 2 or turn < 60:
                turn += 1
                await orders.execute(";".join(change(chance) for _ in range(20)))
                if turn % 10 == 2:
                    await lose(between, pages, chance)

        writing = asyncio.create_task(write())
        pages.append(await copied(between.url, open_page))  # which is read while all of it changes
        await writing
        await orders.execute("INSERT INTO orders (id) VALUES (0)")  # the last of all
        for page in pages:
            await page.wait_for_function("table.rows.has('[0]')")
            await same(page, orders)
            assert "wrong" not in (heard := await told(page))
            assert heard.count("reset") == 1, "nothing was missed, so nothing had to be read again"


async def lose(between: Wire, pages: list[Page], chance: random.Random) -> None:
    """The connections, once at once and once in the middle of what is replayed."""
    between.rations = [chance.randrange(3_000), chance.randrange(30_000)]
    between.cut()
    for page in pages:
        await page.evaluate("dispatchEvent(new Event('online'))")


def change(chance: random.Random) -> str:
    one, other = chance.randrange(1, 60), chance.randrange(1, 60)
    return chance.choice(
        [
            f"INSERT INTO orders VALUES ({one}, 'new', {other}) ON CONFLICT (id) DO UPDATE SET item = 'upsert'",
            f"UPDATE orders SET total = total + 1, item = '{other}' WHERE id BETWEEN {one} AND {other}",
            f"UPDATE orders SET id = {one} WHERE id = {other} AND NOT EXISTS (SELECT FROM orders WHERE id = {one})",
            f"DELETE FROM orders WHERE id = {one}",
            f"DELETE FROM orders WHERE id = {one}; INSERT INTO orders VALUES ({one}, 'instead')",
        ]
    )


async def test_a_table_that_became_another_is_read_again(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    page = await copied(hub.url, open_page)
    await told(page)
    await orders.execute("ALTER TABLE orders ADD colour text DEFAULT 'red'")
    await orders.execute("SELECT hub.rewatch()")
    await same(page, orders)
    assert (await told(page))[:2] == ["loading", "reset"]


async def test_a_row_too_large_to_be_told_is_read(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    page = await copied(hub.url, open_page)
    await orders.execute("INSERT INTO orders (id, item) VALUES (4, repeat('x', 900000))")
    await same(page, orders)
    await until_told(page, "loading")
    await orders.execute("DELETE FROM orders WHERE id = 4")
    await same(page, orders)


async def test_a_log_that_begins_anew_has_the_table_read_again(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    page = await copied(hub.url, open_page)
    await told(page)
    await orders.execute("BEGIN; DELETE FROM orders WHERE id = 1; TRUNCATE hub.events; COMMIT")
    await orders.execute("INSERT INTO orders VALUES (4)")
    await same(page, orders)
    assert "loading" in await told(page)


async def test_a_table_of_many_rows_is_read_as_it_comes(
    hub: Hub, open_page: Callable[..., Any], orders: asyncpg.Connection
) -> None:
    await orders.execute("INSERT INTO orders SELECT n, 'item ' || n, n FROM generate_series(10, 5000) AS n")
    page = await copied(hub.url, open_page)
    await same(page, orders)
    await orders.execute("UPDATE orders SET total = 1")
    await same(page, orders)
    assert await page.evaluate("copy('orders', { max: 100 }).ready.catch(error => error.code)") == "too_large"


# What a hub says on a bad day, by answers made up for the page: events are published as they are, rows served as given.

HEAD = {"table": "public.t", "channel": "t", "key": ["id"]}


class Served:
    """`/watched/t` as a test has it: answers in turn, the last one for good. A list of rows stands for a good one."""

    def __init__(self, page: Page, *answers: Any) -> None:
        self._page = page
        self.answers = list(answers)
        self.asked = 0
        self._changed = asyncio.Condition()
        self.let = asyncio.Event()
        """Whether it answers at all."""
        self.let.set()

    async def until_asked(self, times: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.asked >= times)

    async def __call__(self, route: Route) -> None:
        self.asked += 1
        async with self._changed:
            self._changed.notify_all()
        await self.let.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, dict):
            await route.fulfill(**answer)
        else:
            cursor = await self._page.evaluate("anything.cursor")
            await route.fulfill(body=lines({**HEAD, "cursor": cursor}, *answer))


def lines(*values: Any) -> str:
    return "".join((value if isinstance(value, str) else json.dumps(value)) + "\n" for value in values)


async def served(
    hub: Hub, open_page: Callable[..., Any], *answers: Any, expect: str = "Failed to load resource"
) -> tuple[Page, Served]:
    page = await started(hub.url, open_page, expect=expect)
    await page.evaluate("(window.anything = hub.subscribe('t', () => {})).ready")
    answer = Served(page, *answers)
    await page.route("**/watched/t", answer)
    await page.evaluate("{ copy('t') }")
    return page, answer


async def publish(producer: asyncpg.Connection, op: str, /, **payload: Any) -> None:
    whole = {"op": op, "table": "public.t", "new": None, "old": None, "changed": None} | payload
    await producer.execute("SELECT hub.publish('t', $1)", json.dumps(whole))


async def test_a_hub_that_is_busy_is_asked_again_when_it_says(hub: Hub, open_page: Callable[..., Any]) -> None:
    busy = {"status": 503, "headers": {"Retry-After": "1"}, "json": {"error": {"code": "unavailable", "message": "…"}}}
    page, answer = await served(hub, open_page, busy, {"status": 502, "body": "<p>no JSON"}, [{"id": 1}])
    await until_told(page, "live")
    assert answer.asked == 3
    asked = "performance.getEntriesByName(new URL('/watched/t', location).href).map(entry => entry.startTime)"
    first, second, third = await page.evaluate(asked)
    assert second - first >= 1_000
    assert third - second < 1_000


async def test_a_hub_that_says_nothing_is_given_up_and_asked_again(hub: Hub, open_page: Callable[..., Any]) -> None:
    page, answer = await served(hub, open_page, [{"id": 1}])
    await until_told(page, "live")
    await page.clock.install()
    answer.let.clear()
    await page.evaluate("{ copy('t') }")
    await answer.until_asked(2)
    await page.clock.fast_forward(31_000)
    await answer.until_asked(3)
    answer.let.set()
    await page.wait_for_function("table.state === 'live'")


async def test_an_answer_that_breaks_off_is_no_table(hub: Hub, open_page: Callable[..., Any]) -> None:
    broken = {"body": lines({**HEAD, "cursor": "x"}, {"id": 1}) + '{"id":'}
    page, answer = await served(hub, open_page, broken, {"body": ""}, [{"id": 1}, {"id": 2}])
    await until_told(page, "live")
    assert answer.asked == 3
    assert await told(page) == ["reset", "live"]
    assert await page.evaluate("[...table.rows.keys()]") == ["[1]", "[2]"]


async def test_what_another_try_would_not_change_ends_the_copy(hub: Hub, open_page: Callable[..., Any]) -> None:
    unwatched = {"status": 404, "json": {"error": {"code": "not_found", "message": "SELECT hub.watch('t')"}}}
    page, answer = await served(hub, open_page, unwatched)
    for final, code in (
        (unwatched, "not_found"),
        ({"status": 403, "body": "<p>a proxy's"}, "http_403"),
        ({"body": lines({**HEAD, "key": [], "cursor": "x"})}, "no_key"),
        ({"body": lines({**HEAD, "cursor": "nonsense"})}, "bad_request"),
    ):
        answer.answers = [final]
        assert await page.evaluate("copy('t').ready.catch(error => error.code)") == code
        assert await page.evaluate("[table.state, table.error.code, told.at(-1)]") == ["failed", code, code]


async def test_a_change_that_does_not_fit_has_the_table_read_again_and_until_then_the_old_rows_stay(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page, answer = await served(hub, open_page, [{"id": 1, "n": 1}])
    await until_told(page, "live")
    for number, wrong in enumerate(
        (
            {"op": "update", "new": {"id": 2, "n": 2}},
            {"op": "insert", "new": {"id": 1, "n": 2}},
            {"op": "delete", "old": {"id": 3}},
            {"op": "insert", "new": {"id": 4}, "stub": True},
            {"op": "reload", "reason": "…"},
            {"op": "unheard-of"},
        )
    ):
        rows = [{"id": 1, "n": f"read {number}"}]
        answer.answers = [{"status": 500}, rows]
        answer.let.clear()
        await told(page)
        before = await page.evaluate("[...table.rows.values()]")
        operation = wrong.pop("op")
        await publish(producer, operation, **wrong)
        await until_told(page, "loading")
        assert await page.evaluate("[...table.rows.values()]") == before
        answer.let.set()
        await until_told(page, "live")
        assert await told(page) == ["loading", "reset", "live"], operation
        assert await page.evaluate("[...table.rows.values()]") == rows
    await publish(producer, "update", new={"id": 1, "n": "followed"})
    await page.wait_for_function("table.rows.get('[1]').n === 'followed'")


async def test_what_else_is_told_on_the_channel_is_none_of_its_business(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page, _ = await served(hub, open_page, [{"id": 1}])
    await until_told(page, "live")
    for payload in ("null", "[]", '"insert"', '{"hello": "from psql"}'):
        await producer.execute("SELECT hub.publish('t', $1)", payload)
    await publish(producer, "truncate", table="public.other")
    await producer.execute('SELECT pg_notify(\'t\', \'{"op":"truncate","table":"public.t"}\')')
    await publish(producer, "insert", new={"id": 2})
    await page.wait_for_function("table.rows.size === 2")
    assert await told(page) == ["reset", "live", "insert"]


async def test_more_rows_than_the_page_wants_end_the_copy(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page, _ = await served(hub, open_page, [{"id": 1}])
    await page.evaluate("copy('t', { max: 2 }).ready.then(() => {})")
    await publish(producer, "insert", new={"id": 2})
    await page.wait_for_function("table.rows.size === 2")
    await publish(producer, "insert", new={"id": 3})
    await until_told(page, "too_large")
    assert await page.evaluate("table.state") == "failed"


async def test_numbers_of_more_digits_than_javascript_has_are_told_apart(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    rows = ('{"id":9007199254740992,"n":1e20}', '{"id":9007199254740993,"n":0.30000000000000004}')
    page, _ = await served(hub, open_page, rows)
    await until_told(page, "live")
    await publish(producer, "update", new={"id": 9007199254740993, "n": 12345678901234567890})
    await publish(producer, "insert", new={"id": 9007199254740995, "n": 5})
    await publish(producer, "delete", old={"id": 9007199254740992})
    await page.wait_for_function("told.includes('delete')")
    assert await page.evaluate("[...table.rows.values()]") == [
        {"id": "9007199254740993", "n": "12345678901234567890"},
        {"id": "9007199254740995", "n": 5},
    ]
    assert await told(page) == ["reset", "live", "update", "insert", "delete"]
    digits = "async url => (await import(url + '/numbers.js')).parseExact('[1e400, 0.10000000000000000, 1e-400, 1e21]')"
    assert await page.evaluate(digits, hub.url) == ["1e400", 0.1, "1e-400", 1e21]


async def test_a_listener_that_throws_does_not_stop_the_copy(
    hub: Hub, open_page: Callable[..., Any], producer: asyncpg.Connection
) -> None:
    page, _ = await served(hub, open_page, [{"id": 1}], expect="on purpose")
    heard: list[str] = []
    page.on("pageerror", lambda error: heard.append(error.message))
    listeners = "onReset() { throw new Error('reset on purpose') }, onChange() { throw new Error('change on purpose') }"
    await page.evaluate(f"copy('t', {{ {listeners} }}).ready.then(() => {{}})")
    await publish(producer, "insert", new={"id": 2})
    await page.wait_for_function("table.rows.size === 2")
    assert await page.evaluate("table.state") == "live"
    assert heard == ["reset on purpose", "change on purpose"]
