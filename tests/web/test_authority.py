"""Who asks, and what they may: by the header of a request, and by the first frame of a websocket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from hub import event
from hub.errors import Code, CommandError
from hub.grants import LEEWAY, Grants

ALICE = Grants("alice", subscribe=("orders.*", "news"), claims='{"sub":"alice"}')
BOB = Grants("bob", publish=("chat", "rooms.**"), claims='{"sub":"bob"}')
ROOT = Grants("root", admin=True)
NOBODY = Grants("nobody")
NOW = datetime.now(UTC)


class Tokens:
    """Knows some tokens by heart."""

    def __init__(self, **known: Grants) -> None:
        self.known = {"alice": ALICE, "bob": BOB, "root": ROOT, "nobody": NOBODY} | known

    def verify(self, text: str) -> Grants:
        if text not in self.known:
            raise CommandError(Code.UNAUTHENTICATED, "The token is made up.")
        return self.known[text]


class Authorizing:
    """Refuses channels of these names."""

    def __init__(self, *refused: str, error: CommandError | None = None) -> None:
        self._refused = refused
        self._error = error
        self.asked: list[tuple[str, str, list[str]]] = []

    async def refused(self, claims: str, action: str, names: Sequence[str]) -> list[str]:
        self.asked.append((claims, action, list(names)))
        if self._error is not None and action == "subscribe":
            raise self._error
        return [name for name in names if name in self._refused]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def lasting(grants: Grants, seconds: float) -> Grants:
    """The same, over in so many seconds."""
    return replace(grants, expires=time.time() - LEEWAY + seconds)


@pytest.fixture
async def guarded(start: Callable[..., Any]) -> Any:
    return await start(tokens=Tokens())


async def welcomed(site: Any, path: str = "/ws", **options: Any) -> tuple[Any, dict[str, Any]]:
    peer = await site.connect(path, **options)
    return peer, await peer.receive()


async def peer_of(site: Any, token: str) -> Any:
    peer, _ = await welcomed(site)
    assert (await peer.ask(type="auth", id=1, token=token))["type"] == "authenticated"
    return peer


# Websockets: the first frame


async def test_a_client_is_told_that_it_has_to_say_who_it_is(guarded: Any) -> None:
    _, welcome = await welcomed(guarded)
    assert welcome["auth"] == "required"


@pytest.mark.parametrize(
    "command",
    [
        {"type": "subscribe", "channels": ["news"]},
        {"type": "unsubscribe", "channels": ["news"]},
        {"type": "publish", "channel": "chat", "payload": 1},
    ],
    ids=lambda command: command["type"],
)
async def test_until_then_it_may_ping_and_nothing_else(guarded: Any, command: dict[str, Any]) -> None:
    peer, _ = await welcomed(guarded)
    answer = await peer.ask(id=1, **command)
    assert (answer["type"], answer["id"], answer["code"]) == ("error", 1, "unauthenticated")
    assert await peer.ask(type="ping", id=2) == {"type": "pong", "id": 2}


async def test_auth_is_answered_with_who_it_is_and_until_when(start: Callable[..., Any]) -> None:
    site = await start(tokens=Tokens(late=replace(ALICE, expires=4_102_444_800.0)))
    peer, _ = await welcomed(site)
    answer = await peer.ask(type="auth", id=1, token="late")
    assert answer == {"type": "authenticated", "id": 1, "subject": "alice", "expires": "2100-01-01T00:00:00Z"}


async def test_a_subscribe_in_the_url_waits_for_it(guarded: Any) -> None:
    peer, _ = await welcomed(guarded, "/ws?channel=orders.eu")
    await peer.send(type="auth", id=1, token="made up")
    await peer.send(type="auth", id=2, token="alice")
    kinds = [(await peer.receive())["type"] for _ in range(3)]
    assert kinds == ["error", "authenticated", "subscribed"]


async def test_a_bad_token_is_refused_and_the_connection_stays(guarded: Any) -> None:
    peer, _ = await welcomed(guarded)
    answer = await peer.ask(type="auth", id=1, token="made up")
    assert (answer["code"], answer["message"]) == ("unauthenticated", "The token is made up.")
    assert (await peer.ask(type="auth", id=2, token="alice"))["subject"] == "alice"


async def test_bad_tokens_count_as_errors(guarded: Any) -> None:
    peer, _ = await welcomed(guarded)
    for number in range(1, 11):
        await peer.send(type="auth", id=number, token="made up")
    assert await peer.closed() == 1008


async def test_who_sends_no_good_token_in_time_is_closed_with_4401(start: Callable[..., Any]) -> None:
    site = await start(tokens=Tokens(), auth_timeout=0.05)
    peer, _ = await welcomed(site)
    await peer.send(type="auth", id=1, token="made up")
    assert await peer.closed() == 4401


async def test_who_does_is_not(start: Callable[..., Any]) -> None:
    site = await start(tokens=Tokens(brief=lasting(ALICE, 0.1)), auth_timeout=0.05)
    peer = await peer_of(site, "brief")
    assert await peer.closed() == 4440


async def test_a_token_that_grants_nothing_closes_with_4403(guarded: Any) -> None:
    peer, _ = await welcomed(guarded)
    await peer.send(type="auth", id=1, token="nobody")
    assert await peer.closed() == 4403


async def test_an_open_hub_asks_for_no_token(site: Any) -> None:
    peer, welcome = await welcomed(site, headers=bearer("of a proxy's"))
    assert welcome["auth"] == "none"
    assert (await peer.ask(type="auth", id=1, token="alice"))["code"] == "unsupported"


# Websockets: the header


async def test_a_token_in_the_header_holds_from_the_start(guarded: Any) -> None:
    peer, welcome = await welcomed(guarded, "/ws?channel=news", headers=bearer("alice"))
    assert welcome["auth"] == "none"
    assert (await peer.receive())["type"] == "subscribed"


@pytest.mark.parametrize(("token", "status"), [("made up", 401), ("", 401), ("nobody", 403)])
async def test_a_bad_one_is_refused_before_the_upgrade(guarded: Any, token: str, status: int) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as failure:
        await guarded.connect(headers=bearer(token))
    assert failure.value.status == status
    challenge = failure.value.headers.get("WWW-Authenticate") if failure.value.headers else None
    assert challenge == ('Bearer error="invalid_token"' if status == 401 else None)


async def test_a_header_of_another_scheme_is_not_meant_for_the_hub(guarded: Any) -> None:
    _, welcome = await welcomed(guarded, headers={"Authorization": "Basic Ym9iOng="})
    assert welcome["auth"] == "required"


# Websockets: what is granted


async def test_a_subscribe_that_is_not_granted_names_the_channels_and_does_nothing(guarded: Any) -> None:
    peer = await peer_of(guarded, "alice")
    answer = await peer.ask(type="subscribe", id=2, channels=["news", "chat", "orders.**"])
    assert (answer["code"], answer["channels"]) == ("forbidden", ["chat", "orders.**"])
    assert not guarded.listener.held.total()
    assert not guarded.ports.fanout.channels


async def test_a_pattern_is_granted_by_one_that_covers_it(guarded: Any) -> None:
    peer = await peer_of(guarded, "alice")
    assert (await peer.ask(type="subscribe", id=2, channels=["orders.*"]))["type"] == "subscribed"


async def test_publishing_is_granted_apart_from_that(guarded: Any) -> None:
    peer = await peer_of(guarded, "bob")
    await peer.send(type="publish", id=2, channel="news", payload=1)
    await peer.send(type="publish", id=3, channel="rooms.a.b", payload=1)
    await peer.send(type="publish", id=4, channel="chat", payload=1, durable=False)
    answers = [await peer.receive() for _ in range(3)]
    assert (answers[0]["code"], answers[0]["channels"]) == ("forbidden", ["news"])
    assert [answer["type"] for answer in answers[1:]] == ["published", "published"]
    assert [call[0] for call in guarded.publisher.published] == ["rooms.a.b"]


async def test_the_hubs_own_report_is_for_admins(guarded: Any) -> None:
    peer = await peer_of(guarded, "alice")
    assert (await peer.ask(type="subscribe", id=2, channels=["$hub"]))["code"] == "forbidden"
    peer = await peer_of(guarded, "root")
    assert (await peer.ask(type="subscribe", id=2, channels=["$hub"]))["type"] == "subscribed"


# Websockets: another token


async def test_what_another_token_does_not_grant_is_over_before_it_is_acknowledged(start: Callable[..., Any]) -> None:
    site = await start(tokens=Tokens(less=replace(ALICE, subscribe=("news",))))
    peer = await peer_of(site, "alice")
    await peer.ask(type="subscribe", id=2, channels=["news", "orders.eu", "orders.*"])
    lost = await peer.ask(type="auth", id=3, token="less")
    assert lost == {
        "type": "error",
        "id": None,
        "code": "forbidden",
        "message": "The new token does not grant this.",
        "channels": ["orders.*", "orders.eu"],
    }
    assert (await peer.receive())["type"] == "authenticated"
    site.ports.fanout.sink([event.ephemeral(name, "1", NOW) for name in ("orders.eu", "news")])
    assert [each["channel"] for each in (await peer.receive())["events"]] == ["news"]
    assert +site.listener.held == {"news": 1}


async def test_another_token_that_is_bad_changes_nothing(guarded: Any) -> None:
    peer = await peer_of(guarded, "alice")
    await peer.ask(type="subscribe", id=2, channels=["news"])
    assert (await peer.ask(type="auth", id=3, token="made up"))["code"] == "unauthenticated"
    guarded.ports.fanout.sink([event.ephemeral("news", "1", NOW)])
    assert (await peer.receive())["type"] == "events"


async def test_an_expired_token_closes_with_4440(start: Callable[..., Any]) -> None:
    site = await start(tokens=Tokens(brief=lasting(ALICE, 0.05)))
    peer, _ = await welcomed(site, headers=bearer("brief"))
    assert await peer.closed() == 4440


async def test_one_that_was_renewed_does_not(start: Callable[..., Any]) -> None:
    later = lasting(ALICE, 0.15)
    site = await start(tokens=Tokens(brief=lasting(ALICE, 0.05), later=later))
    peer = await peer_of(site, "brief")
    assert (await peer.ask(type="auth", id=2, token="later"))["type"] == "authenticated"
    assert await peer.closed() == 4440
    assert later.expires is not None
    assert time.time() >= later.expires + LEEWAY


# Requests

CLOSED = ["/events", "/events?channel=news", "/watched", "/watched/orders", "/channels", "/sessions", "/metrics"]


@pytest.mark.parametrize("path", CLOSED)
async def test_a_request_without_a_token_is_refused(guarded: Any, path: str) -> None:
    answer = await guarded.http.get(guarded.url + path)
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (await answer.json())["error"]["code"] == "unauthenticated"


@pytest.mark.parametrize("path", CLOSED)
async def test_a_request_with_a_bad_one_is_told_why(guarded: Any, path: str) -> None:
    answer = await guarded.http.get(guarded.url + path, headers=bearer("made up"))
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')
    assert (await answer.json())["error"]["message"] == "The token is made up."


async def test_nothing_of_a_body_is_read_before(guarded: Any) -> None:
    answer = await guarded.http.post(guarded.url + "/events", data=b"no json")
    assert answer.status == 401


@pytest.mark.parametrize("path", ["/", "/client.js", "/openapi.json", "/healthz", "/readyz"])
async def test_what_holds_no_data_is_open(guarded: Any, path: str) -> None:
    assert (await guarded.http.get(guarded.url + path)).status == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, {"status": "not ready"}),
        (bearer("alice"), {"status": "not ready"}),
        (bearer("made up"), {"status": "not ready"}),
        (bearer("root"), {"status": "not ready", "reasons": ["No."]}),
    ],
    ids=["nobody", "alice", "made up", "root"],
)
async def test_why_the_hub_is_not_ready_is_for_admins(
    guarded: Any, headers: dict[str, str], expected: dict[str, Any]
) -> None:
    guarded.reasons.append("No.")
    answer = await guarded.http.get(guarded.url + "/readyz", headers=headers)
    assert (answer.status, await answer.json()) == (503, expected)


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [
        ("/events?channel=news&channel=orders.*", "alice", 200),
        ("/events?channel=news&channel=chat", "alice", 403),
        ("/events", "alice", 403),
        ("/events", "root", 200),
        ("/channels", "alice", 403),
        ("/channels", "root", 200),
        ("/watched/orders", "alice", 404),
        ("/watched/news", "nobody", 404),
        ("/watched/nowhere", "alice", 404),
        ("/watched/orders", "root", 200),
    ],
)
async def test_reading_needs_a_grant_for_all_that_is_read(guarded: Any, path: str, token: str, status: int) -> None:
    answer = await guarded.http.get(guarded.url + path, headers=bearer(token))
    await answer.read()
    assert answer.status == status
    assert guarded.watched.opened == 0


async def test_a_table_that_may_not_be_read_is_as_one_that_is_not_there(guarded: Any) -> None:
    for table in ("orders", "nowhere"):
        answer = await guarded.http.get(f"{guarded.url}/watched/{table}", headers=bearer("alice"))
        message = f"No table '{table}' is watched that this token lets you read."
        expected = {"code": "not_found", "message": message, "field": None}
        assert (await answer.json())["error"] == expected


async def test_a_refusal_names_the_channels(guarded: Any) -> None:
    answer = await guarded.http.get(guarded.url + "/events?channel=news&channel=chat", headers=bearer("alice"))
    assert (await answer.json())["error"] == {
        "code": "forbidden",
        "message": "The token does not let you read 'chat'.",
        "field": "channel",
        "channels": ["chat"],
    }


@pytest.mark.parametrize(("token", "expected"), [("alice", 0), ("root", 1)])
async def test_the_list_has_the_tables_that_may_be_read(guarded: Any, token: str, expected: int) -> None:
    answer = await guarded.http.get(guarded.url + "/watched", headers=bearer(token))
    assert len((await answer.json())["tables"]) == expected


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channel": "news", "payload": 1}, "channel"),
        ([{"channel": "chat", "payload": 1}, {"channel": "news", "payload": 1}], "[1].channel"),
    ],
)
async def test_one_channel_that_is_not_granted_keeps_all_from_being_published(
    guarded: Any, body: Any, field: str
) -> None:
    answer = await guarded.http.post(guarded.url + "/events", json=body, headers=bearer("bob"))
    error = (await answer.json())["error"]
    assert (answer.status, error["field"], error["channels"]) == (403, field, ["news"])
    assert not guarded.items.published
    assert not guarded.publisher.published


async def test_each_by_itself_is_refused_by_itself(guarded: Any) -> None:
    body = [{"channel": name, "payload": 1} for name in ("news", "chat")]
    answer = await guarded.http.post(guarded.url + "/events?atomic=false", json=body, headers=bearer("bob"))
    assert [each["status"] for each in (await answer.json())["results"]] == [403, 201]
    assert [item.channel for item in guarded.items.published] == ["chat"]


# Streams


@pytest.mark.parametrize(("query", "headers", "status"), [("news", {}, 401), ("chat", bearer("alice"), 403)])
async def test_a_stream_is_refused_before_it_begins(
    guarded: Any, query: str, headers: dict[str, str], status: int
) -> None:
    accept = {"Accept": "text/event-stream"}
    answer = await guarded.http.get(f"{guarded.url}/events?channel={query}", headers=headers | accept)
    assert answer.status == status
    assert not guarded.listener.held.total()


async def test_a_stream_ends_with_its_token(start: Callable[..., Any]) -> None:
    site = await start(tokens=Tokens(brief=lasting(ALICE, 0.05)))
    headers = bearer("brief") | {"Accept": "text/event-stream"}
    async with site.http.get(site.url + "/events?channel=news", headers=headers) as answer, asyncio.timeout(5):
        assert answer.status == 200
        await answer.read()
    assert not site.ports.fanout.sessions


# hub.authorize


async def test_it_is_asked_for_what_the_token_grants(start: Callable[..., Any]) -> None:
    authorizing = Authorizing("orders.us")
    site = await start(tokens=Tokens(), authorizing=authorizing)
    peer = await peer_of(site, "alice")
    assert (await peer.ask(type="subscribe", id=2, channels=["orders.eu"]))["type"] == "subscribed"
    answer = await peer.ask(type="subscribe", id=3, channels=["orders.eu", "orders.us"])
    assert (answer["code"], answer["channels"]) == ("forbidden", ["orders.us"])
    assert answer["message"] == "hub.authorize does not let you read 'orders.us'."
    assert (await peer.ask(type="subscribe", id=4, channels=["chat"]))["code"] == "forbidden"
    asked = [("subscribe", ["orders.eu"]), ("subscribe", ["orders.eu", "orders.us"])]
    assert authorizing.asked == [(ALICE.claims, *each) for each in asked]


async def test_it_is_asked_again_for_another_token(start: Callable[..., Any]) -> None:
    authorizing = Authorizing()
    site = await start(tokens=Tokens(), authorizing=authorizing)
    peer = await peer_of(site, "alice")
    await peer.ask(type="subscribe", id=2, channels=["news", "orders.eu"])
    authorizing._refused = ("news",)
    assert (await peer.ask(type="auth", id=3, token="alice"))["channels"] == ["news"]
    assert (await peer.receive())["type"] == "authenticated"


async def test_it_is_not_asked_what_an_admin_may(start: Callable[..., Any]) -> None:
    authorizing = Authorizing("news")
    site = await start(tokens=Tokens(), authorizing=authorizing)
    peer = await peer_of(site, "root")
    assert (await peer.ask(type="subscribe", id=2, channels=["news"]))["type"] == "subscribed"
    assert not authorizing.asked


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.FORBIDDEN])
async def test_its_failure_refuses_what_was_asked_and_nothing_else(start: Callable[..., Any], code: Code) -> None:
    both = Grants("both", subscribe=("news",), publish=("chat",))
    site = await start(tokens=Tokens(both=both), authorizing=Authorizing(error=CommandError(code, "It fails.")))
    peer = await peer_of(site, "both")
    await peer.send(type="subscribe", id=2, channels=["news"])
    await peer.send(type="publish", id=3, channel="chat", payload=1)
    answers = [await peer.receive() for _ in range(2)]
    assert answers[0] == {"type": "error", "id": 2, "code": code, "message": "It fails."}
    assert answers[1]["type"] == "published"


async def test_publishes_keep_their_order_while_it_thinks(start: Callable[..., Any]) -> None:
    thinking: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    class Slow:
        async def refused(self, _claims: str, _action: str, names: Sequence[str]) -> list[str]:
            return await thinking if names == ["chat"] else []

    site = await start(tokens=Tokens(), authorizing=Slow())
    peer = await peer_of(site, "bob")
    for number, name in enumerate(("chat", "rooms.a"), 2):
        await peer.send(type="publish", id=number, channel=name, payload=1)
    thinking.set_result([])
    assert [(await peer.receive())["id"] for _ in range(2)] == [2, 3]
    assert [call[0] for call in site.publisher.published] == ["chat", "rooms.a"]


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
@pytest.mark.parametrize("pause", [60.0, 0.0], ids=["stops", "goes on and on"])
async def test_a_body_does_not_outlast_its_token(start: Callable[..., Any], kind: str, pause: float) -> None:
    site = await start(tokens=Tokens(short=lasting(BOB, 0.2)), stall_timeout=30.0)

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 1024
            await asyncio.sleep(pause or 0.001)  # what it is about

    headers = bearer("short") | {"Content-Type": kind}
    answer = await asyncio.wait_for(site.http.post(site.url + "/events", data=chunks(), headers=headers), 10)
    assert (answer.status, (await answer.json())["error"]["code"]) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
