"""Seats for those who stay, websockets and live streams: one address may not have all of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Final

import structlog
from aiohttp import hdrs, web

from hub.errors import Code
from hub.web.addresses import Proxies, household
from hub.web.refusal import RequestError

_NOWHERE: Final = ""  # who comes by no address is counted by nobody
_LATER: Final[Mapping[str, str]] = {hdrs.RETRY_AFTER: "10"}  # seconds: seats become free when somebody goes

log = structlog.get_logger()


class Seats:
    """Counts those who stay by where they come from, at most `most` an address, until it is closed."""

    def __init__(self, proxies: Proxies, most: int) -> None:
        self._proxies = proxies
        self._most = most
        self._closed = False
        self.taken: dict[str, int] = {}

    def take(self, request: web.Request) -> Seat:
        """A seat for the client of `request`, as long as it is entered. Raises RequestError."""
        if self._closed:
            raise RequestError(503, Code.UNAVAILABLE, "This hub is going away; another one may be there.")
        address = self._proxies.client(request)
        place = _NOWHERE if address is None else household(address)
        taken = self.taken.get(place, 0)
        if place != _NOWHERE and taken >= self._most:
            log.debug("refused", address=str(address), reason="too many connections")
            message = (
                f"{place} has {taken} connections here, as many as it may have. Close some; of a proxy's clients, "
                "HUB_TRUSTED_PROXIES tells the addresses."
            )
            raise RequestError(429, Code.TOO_MANY, message, headers=_LATER)
        return Seat(self, place)

    def close(self) -> None:
        """Let nobody else in."""
        self._closed = True


class Seat:
    """One of `seats`, for a client of `place`."""

    __slots__ = ("_place", "_seats")

    def __init__(self, seats: Seats, place: str) -> None:
        self._seats = seats
        self._place = place

    def __enter__(self) -> None:
        self._seats.taken[self._place] = self._seats.taken.get(self._place, 0) + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = self._seats.taken.pop(self._place) - 1
        if left:
            self._seats.taken[self._place] = left
