"""Who a request comes from, where proxies stand between."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from aiohttp import hdrs, web

from hub.errors import SetupError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SITE: Final = 64  # bits of an IPv6 address that a provider gives to one customer, who has all behind them
_MAPPED: Final = 96  # bits of an IPv6 address before the IPv4 address that it means (RFC 4291, 2.5.5.2)
_SCHEMES: Final = ("http", "https")


def networks(text: str) -> tuple[Network, ...]:
    """Addresses and networks, separated by commas. Raises SetupError."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(_unmapped(ipaddress.ip_network(part)))
        except ValueError as error:
            raise SetupError(
                f"HUB_TRUSTED_PROXIES has {part!r}: {error}. Write addresses or networks, as 10.0.0.7 or 10.0.0.0/8."
            ) from None
    return tuple(found)


def _unmapped(network: Network) -> Network:
    """The IPv4 network that `network` means, if it does, since addresses are compared in that form."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED:
        return network
    return ipaddress.ip_network((mapped, network.prefixlen - _MAPPED))


def parse(text: str) -> Address | None:
    """The address that proxies write, perhaps with a port; None where it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])  # behind it is an interface of whoever wrote it
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def household(address: Address) -> str:
    """What is counted as one address: with IPv6 everybody has more of them than can be counted."""
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, _SITE), strict=False))


class Proxies:
    """Believes what `trusted` proxies say of whom they speak for, and nobody else."""

    def __init__(self, trusted: Iterable[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def client(self, request: web.Request) -> Address | None:
        """Where `request` comes from; None where that is no address, but a Unix socket, say."""
        peer = parse(request.remote or "")
        if peer is None or not self._trusted:
            return peer
        return self.origin(peer, request.headers.getall(hdrs.X_FORWARDED_FOR, ()))

    def origin(self, peer: Address, forwarded: Sequence[str]) -> Address:
        """The last that no trusted proxy is, in `forwarded` and then `peer`, which each have added who came to them.

        What stands further to the left, or behind something that is no address, anybody may have written.
        """
        for part in reversed(",".join(forwarded).split(",")):
            if not self._trusts(peer) or (before := parse(part)) is None:
                break
            peer = before
        return peer

    def scheme(self, request: web.Request) -> str | None:
        """`https` or `http`, as the client spoke it; None where only a proxy could know that does not say."""
        if request.secure:
            return "https"
        peer = parse(request.remote or "")
        if peer is None or not self._trusts(peer):
            return None
        said = request.headers.get(hdrs.X_FORWARDED_PROTO, "").rpartition(",")[2].strip().lower()
        return said if said in _SCHEMES else None

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


DIRECT: Final = Proxies()
"""Nobody stands between."""
