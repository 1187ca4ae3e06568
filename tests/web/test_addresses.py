"""Who a request comes from."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import SetupError
from hub.web.addresses import Address, Proxies, household, networks, parse

TRUSTED = networks("10.0.0.0/8, ::1,fd00::/8")
PROXIES = Proxies(TRUSTED)
HOPS = st.one_of(st.ip_addresses(v=4, network="10.0.0.0/8"), st.ip_addresses(v=6, network="fd00::/8"))
CLIENTS = st.ip_addresses().filter(
    lambda address: address == parse(str(address)) and not any(address in network for network in TRUSTED)
)


def address(text: str) -> Address:
    found = parse(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1:4711 ", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("unknown", None),
        ("_hidden", None),
        ("192.0.2", None),
        ("", None),
        ("[", None),
        ("192.0.2.1:80:80", None),
    ],
)
def test_an_address_is_read_as_proxies_write_it(text: str, expected: str | None) -> None:
    assert parse(text) == (expected and ipaddress.ip_address(expected))


@given(st.text())
def test_what_is_no_address_is_none_whatever_it_is(text: str) -> None:
    parse(text)


@given(CLIENTS, st.lists(HOPS, min_size=1), st.lists(st.text("0123456789abcdef.:[], xyz")))
def test_the_client_is_who_came_to_the_first_trusted_proxy_whatever_it_said(
    client: Address, hops: list[Address], said: list[str]
) -> None:
    """Each proxy appends who came to it; all before that is the client's word."""
    header = ", ".join([*said, str(client), *map(str, hops[:-1])])
    assert PROXIES.origin(hops[-1], [header]) == client


@given(CLIENTS, st.lists(st.text(max_size=20)))
def test_who_is_no_trusted_proxy_speaks_for_itself_only(client: Address, said: list[str]) -> None:
    assert PROXIES.origin(client, said) == client


@given(st.lists(HOPS, min_size=1), st.text("ghijk:.", max_size=9).filter(lambda text: parse(text) is None))
def test_behind_nonsense_nothing_is_believed(hops: list[Address], nonsense: str) -> None:
    """Who sent it is the last that is known: a trusted proxy, then."""
    header = ["192.0.2.1", nonsense or "-", *map(str, hops[:-1])]
    assert PROXIES.origin(hops[-1], header) == hops[0]


@pytest.mark.parametrize(
    ("trusted", "headers", "expected"),
    [
        ("", {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}, ("127.0.0.1", None)),
        ("127.0.0.0/8", {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}, ("192.0.2.1", "https")),
        ("127.0.0.1", {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https, HTTP"}, ("192.0.2.1", "http")),
        ("::ffff:127.0.0.1", {"X-Forwarded-For": "192.0.2.1"}, ("192.0.2.1", None)),
        ("::ffff:127.0.0.0/104", {"X-Forwarded-For": "192.0.2.1"}, ("192.0.2.1", None)),
        ("127.0.0.1", {"X-Forwarded-Proto": "gopher"}, ("127.0.0.1", None)),
        ("127.0.0.1", {}, ("127.0.0.1", None)),
    ],
)
def test_headers_count_from_trusted_proxies_only(trusted: str, headers: Any, expected: tuple[str, str | None]) -> None:
    proxies, request = Proxies(networks(trusted)), make_mocked_request("GET", "/", headers).clone(remote="127.0.0.1")
    assert (str(proxies.client(request)), proxies.scheme(request)) == expected


@pytest.mark.parametrize("text", ["10.0.0.1/8", "hub.example", "10.0.0.0/33", "10.0.0.1 10.0.0.2"])
def test_what_is_no_network_is_a_sentence(text: str) -> None:
    with pytest.raises(SetupError, match="HUB_TRUSTED_PROXIES has"):
        networks(f"127.0.0.1,{text}")


def test_an_ipv6_customer_is_one_address() -> None:
    assert household(address("2001:db8::1")) == household(address("2001:db8::ffff:2")) == "2001:db8::/64"
    assert household(address("192.0.2.1")) == "192.0.2.1"
