"""Tokens in the browser: client.js shows and renews them, its stream too, and the dashboard asks for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.test_client_js import scripted
from tests.conftest import Hub

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


@pytest.fixture
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
