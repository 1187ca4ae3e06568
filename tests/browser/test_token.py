"""Tokens in the browser: client.js shows and renews them, its stream too, and the dashboard asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from hub import tokens
from hub.web import sse
from tests.browser.conftest import fixture
from tests.browser.test_client_js import scripted
from tests.conftest import Hub, running

SECRET = "a secret of the tests, long enough"

# A hub of the test's own making that asks for a token, and what it has been shown.
ASKED = """async source => {
    window.given = [];
    window.tokens = () => { const next = source[given.length]; given.push(next ?? null); return next; };
    window.hub = begin(tokens);
    sockets[0].say({ type: "welcome", protocol: 1, heartbeat: 25, auth: "required" });
    window.shown = () => sockets[0].sent.filter(({ type }) => type === "auth").map(({ token }) => token);
    window.accept = expires => {
        const { id } = sockets[0].sent.findLast(({ type }) => type === "auth");
        sockets[0].say({ type: "authenticated", id, subject: "alice", expires });
    };
    window.refuse = code => {
        const { id } = sockets[0].sent.findLast(({ type }) => type === "auth");
        sockets[0].say({ type: "error", id, code, message: "No." });
    };
}"""
LATER = "2999-01-01T00:00:00Z"


@fixture
async def page(hub: Hub, open_page: Callable[..., Any]) -> Any:
    return await scripted(hub, open_page)


async def test_the_token_goes_first_and_subscriptions_follow_once_it_was_taken(page: Any) -> None:
    await page.evaluate(ASKED, ["one"])
    await page.evaluate("hub.subscribe('a', () => {})")
    await page.wait_for_function("shown().length")
    assert await page.evaluate("[hub.state, sockets[0].sent.length, ...shown()]") == ["connecting", 1, "one"]
    await page.evaluate("later => accept(later)", LATER)
    assert await page.evaluate("[hub.state, sockets[0].sent.at(-1).type]") == ["open", "subscribe"]


async def test_a_refused_token_is_told_of_and_another_one_shown(page: Any) -> None:
    await page.evaluate(ASKED, ["one", "two"])
    await page.wait_for_function("shown().length === 1")
    await page.evaluate("refuse('unauthenticated')")
    await page.wait_for_function("shown().length === 2")
    assert await page.evaluate("shown()") == ["one", "two"]


async def test_one_refusal_after_another_is_waited_upon_ever_longer(page: Any) -> None:
    await page.evaluate(ASKED, ["one", "two", "three"])
    await page.evaluate("Math.random = () => 0.999")
    await page.wait_for_function("shown().length === 1")
    await page.evaluate("refuse('unauthenticated')")
    await page.wait_for_function("shown().length === 2")
    assert await page.evaluate("(refuse('unauthenticated'), [hub.state, given.length])") == ["waiting", 2]
    await page.wait_for_function("sockets.length === 2")
    await page.evaluate("""() => {
        sockets[0].say({ type: "welcome", protocol: 1, heartbeat: 25, auth: "required" });
        window.waits = [];
        window.real = setTimeout;
        window.setTimeout = (call, wait) => (waits.push(wait), real(call, wait));
    }""")
    await page.wait_for_function("shown().length === 1")
    await page.evaluate("refuse('unauthenticated')")
    assert await page.evaluate("[hub.state, given.length, Math.round(waits.at(-1))]") == ["waiting", 3, 1998]


@pytest.mark.parametrize("source", [[], ["one", "one"]], ids=["none", "the same again"])
async def test_where_there_is_no_other_token_the_connection_ends(page: Any, source: list[str]) -> None:
    await page.evaluate(ASKED, source)
    if source:
        await page.wait_for_function("shown().length === 1")
        await page.evaluate("refuse('unauthenticated')")
    await page.wait_for_function("hub.state === 'closed'")


async def test_a_token_is_renewed_on_the_same_connection_before_it_runs_out(page: Any) -> None:
    await page.evaluate(ASKED, ["one", "two"])
    await page.wait_for_function("shown().length === 1")
    # Only what is asked for is called early: the timer that renews.
    await page.evaluate(
        "window.real = setTimeout, window.setTimeout = (call, wait) => real(call, wait > 1e5 ? 0 : wait)"
    )
    await page.evaluate("accept(new Date(Date.now() + 1e6).toISOString())")
    await page.wait_for_function("shown().length === 2")
    assert await page.evaluate("[hub.state, sockets.length, ...shown()]") == ["open", 1, "one", "two"]


async def test_what_a_new_token_grants_no_longer_ends_and_the_rest_goes_on(page: Any) -> None:
    await page.evaluate(ASKED, ["one"])
    await page.wait_for_function("shown().length === 1")
    await page.evaluate("later => accept(later)", LATER)
    await page.evaluate("""() => {
        window.ends = [];
        window.got = [];
        for (const name of ["a", "b"]) {
            hub.subscribe(name, event => got.push(event.channel), { onEnd: error => ends.push([name, error.code]) });
            sockets[0].confirm();
        }
        sockets[0].say({ type: "error", id: null, code: "forbidden", message: "Gone.", channels: ["a"] });
        for (const channel of ["a", "b"]) sockets[0].say({ type: "events", events: [{ channel, id: null }] });
    }""")
    assert await page.evaluate("[ends, got]") == [[["a", "forbidden"]], ["b"]]


async def test_while_a_person_looks_for_a_token_the_hub_is_left_alone(page: Any) -> None:
    await page.evaluate("""() => {
        window.hub = begin(() => new Promise(resolve => (window.give = resolve)));
        sockets[0].say({ type: "welcome", protocol: 1, heartbeat: 25, auth: "required" });
        sockets[0].onclose({ code: 4401 });
    }""")
    assert await page.evaluate("[hub.state, sockets.length]") == ["waiting", 1]
    await page.evaluate("give('one')")
    await page.wait_for_function("sockets.length === 2")
    await page.evaluate("sockets[0].say({ type: 'welcome', protocol: 1, heartbeat: 25, auth: 'required' })")
    await page.wait_for_function("sockets[0].sent.length === 1")
    assert await page.evaluate("sockets[0].sent[0].token") == "one"


# Against a real hub


@fixture
async def guarded(database: str) -> AsyncIterator[Hub]:
    async with running(database, secret=SECRET) as hub:
        yield hub


def token(seconds: float = 3600, **claims: object) -> str:
    return tokens.issue(SECRET, claims, seconds)


async def publish(dsn: str, channel: str, *payloads: str) -> None:
    producer = await asyncpg.connect(dsn)
    for payload in payloads:
        await producer.execute("SELECT hub.publish($1, $2::jsonb)", channel, payload)
    await producer.close()


async def test_the_dashboard_asks_for_a_token_until_it_has_one_of_an_admin(
    guarded: Hub, open_page: Callable[..., Any]
) -> None:
    page = await open_page(f"{guarded.url}/?channel=orders")
    await page.wait_for_selector("#gate[open]")
    await page.fill("#gate-token", "nonsense")
    await page.press("#gate-token", "Enter")
    await page.wait_for_selector("text=This is no token")
    await page.fill("#gate-token", token(subscribe=["orders"]))
    await page.press("#gate-token", "Enter")
    await page.wait_for_selector("text=needs a token that grants")
    await page.fill("#gate-token", token(admin=True))
    await page.press("#gate-token", "Enter")
    await page.wait_for_selector("#state[data-state=open]")
    assert not await page.is_visible("#gate")
    await publish(guarded.dsn, "orders", '"<b>let in</b>"')
    await page.wait_for_selector("#feed >> text=<b>let in</b>")
    await page.reload()
    await page.wait_for_selector("#state[data-state=open]")
    assert not await page.is_visible("#gate")


async def test_events_and_tables_come_to_who_shows_a_token(guarded: Hub, open_page: Callable[..., Any]) -> None:
    owner = await asyncpg.connect(guarded.dsn)
    await owner.execute("CREATE TABLE public.t (id int PRIMARY KEY)")
    await owner.execute("SELECT hub.watch('public.t', channel => 'orders')")
    await owner.execute("INSERT INTO public.t VALUES (1)")
    await owner.close()
    page = await open_page(guarded.url, blank=True, expect="403 (Forbidden)")
    await page.evaluate(
        """async ([url, token]) => {
            const { connect } = await import(url + "/client.js");
            window.hub = connect(undefined, { token });
            window.denied = hub.subscribe("secret", () => {}).ready.catch(({ code }) => code);
            window.table = await hub.table("t").ready;
        }""",
        [guarded.url, token(subscribe=["orders"])],
    )
    assert await page.evaluate("denied") == "forbidden"
    assert await page.evaluate("[...table.rows.keys()]") == ["[1]"]
    asked = "path => hub.fetch(path).then(({ status }) => status, ({ code }) => code)"
    assert await page.evaluate(asked, "events?channel=orders") == 200
    assert await page.evaluate(asked, "sessions") == "forbidden"


async def test_a_stream_goes_on_with_the_next_token_and_misses_nothing(
    guarded: Hub, open_page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first token has expired before it is shown; the second expires while the stream is live."""
    for each in (tokens, sse):
        monkeypatch.setattr(each, "LEEWAY", 0.0)
    page = await open_page(guarded.url, blank=True, expect="401")
    await page.evaluate(
        """async ([url, list]) => {
            const { stream } = await import(url + "/client.js");
            Math.random = () => 0;
            window.got = [];
            window.why = [];
            const token = refused => { why.push(refused?.code ?? null); return list.shift(); };
            const onError = ({ code }) => got.push(code);
            window.following = stream(["orders"], ({ payload }) => got.push(payload), { token, onError });
        }""",
        [guarded.url, [token(-60, subscribe=["orders"]), token(3, subscribe=["orders"]), token(subscribe=["orders"])]],
    )
    await page.wait_for_function("following.cursor")
    await publish(guarded.dsn, "orders", "1")
    await page.wait_for_function("got.length === 1")
    await page.wait_for_function("why.length === 3")
    await publish(guarded.dsn, "orders", "2", "3")
    await page.wait_for_function("got.length === 3")
    assert await page.evaluate("[got, why]") == [[1, 2, 3], [None, "unauthenticated", "unauthenticated"]]
    await page.evaluate("following.close()")
