"""Grants: what is granted by name, by pattern, and to admins."""

from __future__ import annotations

import pytest

from hub.grants import ALL, EVERYTHING, Action, Grants

ALICE = Grants("alice", subscribe=("orders.*", "audit.**", "news"), publish=("chat",))


@pytest.mark.parametrize("name", ["orders.eu", "orders.*", "audit.a.b", "audit.a.**", "audit.**", "news"])
def test_what_a_name_or_a_pattern_covers_is_granted(name: str) -> None:
    assert ALICE.refused("subscribe", [name]) == []


@pytest.mark.parametrize("name", ["orders", "orders.**", "orders.eu.new", "audit", "*", "news.*", "chat", ALL, "$hub"])
def test_what_nothing_covers_is_refused(name: str) -> None:
    assert ALICE.refused("subscribe", [name]) == [name]


def test_publishing_is_granted_apart_from_reading() -> None:
    assert ALICE.refused("publish", ["chat", "news"]) == ["news"]


def test_those_that_are_refused_are_named_in_order() -> None:
    assert ALICE.refused("subscribe", ["b", "news", "a"]) == ["b", "a"]


def test_two_grants_do_not_add_up_to_a_pattern() -> None:
    assert Grants(subscribe=("a.b", "a.c")).refused("subscribe", ["a.*"]) == ["a.*"]


@pytest.mark.parametrize("action", ["subscribe", "publish"])
def test_an_admin_may_do_everything(action: Action) -> None:
    assert EVERYTHING.refused(action, ["orders", "**", "$hub"]) == []


def test_the_hubs_own_channels_are_granted_by_name_alone() -> None:
    assert Grants(subscribe=("**",)).refused("subscribe", ["$hub"]) == ["$hub"]
    assert Grants(subscribe=("$hub",)).refused("subscribe", ["$hub"]) == []


@pytest.mark.parametrize(
    ("grants", "expected"),
    [
        (Grants("alice"), True),
        (Grants(subscribe=("a",)), False),
        (Grants(publish=("a",)), False),
        (EVERYTHING, False),
    ],
)
def test_grants_may_be_empty(grants: Grants, expected: bool) -> None:
    assert grants.empty is expected


def test_claims_stay_out_of_the_repr() -> None:
    assert "secret" not in repr(Grants("alice", claims='{"card":"secret"}'))
