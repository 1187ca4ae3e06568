"""The hub's report on itself: one event a second on `$hub`, while somebody is subscribed to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from heapq import nlargest
from importlib.metadata import version
from typing import Any, Final, NoReturn

import orjson

from hub import channels, event
from hub.fanout.fanout import Fanout
from hub.postgres.listener import Listener

_BUSIEST: Final = 50


async def run(fanout: Fanout, listener: Listener) -> NoReturn:
    """Publish a report every second, until cancelled."""
    while True:
        await asyncio.sleep(1)
        if channels.STATS in fanout.channels:
            payload = orjson.dumps(report(fanout, connected=listener.connected)).decode()
            fanout.sink([event.ephemeral(channels.STATS, payload, datetime.now(UTC))])


def report(fanout: Fanout, *, connected: bool) -> Mapping[str, Any]:
    """The numbers: totals since the start, and the busiest channels that have subscribers now."""
    ours = [(name, channel) for name, channel in fanout.channels.items() if not channels.is_own(name)]
    busiest = nlargest(_BUSIEST, ours, key=lambda item: (item[1].events, item[1].subscribers))
    return {
        "clients": len(fanout.sessions),
        "subscriptions": sum(channel.subscribers for _, channel in ours),
        "channels": {name: {"subscribers": c.subscribers, "events": c.events} for name, c in busiest},
        "events_in": fanout.events_in,
        "deliveries": fanout.deliveries,
        "listener": "connected" if connected else "lost",
        "version": version("pghub"),
    }
