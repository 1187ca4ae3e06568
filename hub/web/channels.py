"""What goes on: the channels that somebody listens to, or on which something came."""

from __future__ import annotations

from heapq import nlargest
from typing import Any, Final

import orjson
from aiohttp import web

from hub.errors import CommandError
from hub.fanout.fanout import Fanout
from hub.fanout.traffic import Traffic
from hub.patterns import is_pattern
from hub.web.accept import agree, bare
from hub.web.authority import Authority
from hub.web.refusal import RequestError, refuse

_MOST: Final = 1_000  # channels in an answer


class Channels:
    """Tells what `fanout` counts: of the busiest channels, these first."""

    def __init__(self, fanout: Fanout, authority: Authority) -> None:
        self._fanout = fanout
        self._authority = authority

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/channels", self.busiest)]

    async def busiest(self, request: web.Request) -> web.Response:
        try:
            self._authority.check_admin(request)
            bare(request)
            kind = agree(request, "application/json")
        except (CommandError, RequestError) as error:
            return refuse(error)
        return web.Response(body=orjson.dumps({"channels": self._busiest()}), content_type=kind)

    def _busiest(self) -> list[dict[str, Any]]:
        fanout, traffic = self._fanout, self._fanout.traffic
        subscribed = {name: channel for name, channel in fanout.channels.items() if not is_pattern(name)}
        now = traffic.now
        found = [
            (
                tally.rate(now) if tally else 0.0,
                tally.events if tally else 0,
                subscribed[name].subscribers if name in subscribed else 0,
                name,
            )
            for name in subscribed.keys() | traffic.tallies.keys()
            for tally in (traffic.tallies.get(name),)
        ]
        return [_entry(traffic, *each) for each in nlargest(_MOST, found)]


def _entry(traffic: Traffic, rate: float, events: int, subscribers: int, name: str) -> dict[str, Any]:
    tally = traffic.tallies.get(name)
    last = tally.last if tally else None
    return {"channel": name, "subscribers": subscribers, "events": events, "rate": rate, "last": last}
