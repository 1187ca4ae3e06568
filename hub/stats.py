"""The hub's report on itself on `$hub`, while somebody is subscribed to it: numbers once a second, and what changed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nlargest
from importlib.metadata import version
from typing import Any, Final, NoReturn

from hub import channels
from hub.journal import Journal
from hub.vitals import Vitals

_BUSIEST: Final = 50
_GAPS: Final = {
    "listener": "NOTIFYs were lost while the hub heard nothing",
    "overflow": "clients read too slowly and missed NOTIFYs",
    "expired": "clients came back for what retention had taken",
    "reset": "the log is another one, or a cursor was of another",
    "failover": "Postgres may have lost what clients had seen",
}


async def run(vitals: Vitals, journal: Journal) -> NoReturn:
    """Report every second, until cancelled."""
    before = _Seen.of(vitals)
    while True:
        await asyncio.sleep(1)
        now = _Seen.of(vitals)
        if journal.is_read:
            journal.write(report(vitals), datetime.now(UTC))
            _tell(journal, before, now)
        before = now


def report(vitals: Vitals) -> Mapping[str, Any]:
    """The numbers: totals since the start, the busiest channels that have subscribers now, how the hub is."""
    fanout, pool = vitals.fanout, vitals.pool
    ours = [(name, channel) for name, channel in fanout.channels.items() if not channels.is_own(name)]
    busiest = nlargest(_BUSIEST, ours, key=lambda item: (item[1].events, item[1].subscribers))
    return {
        "clients": len(fanout.sessions),
        "subscriptions": sum(channel.subscribers for _, channel in ours),
        "channels": {name: {"subscribers": c.subscribers, "events": c.events} for name, c in busiest},
        "groups": fanout.groups,
        "behind": vitals.behind,
        "events_in": fanout.events_in,
        "deliveries": fanout.deliveries,
        "bytes_out": fanout.bytes_out,
        "listener": "connected" if vitals.listener.connected else "lost",
        "asleep": vitals.tail.asleep,
        "lag_ms": _ms(vitals.tail_lag),
        "loop_lag_ms": _ms(vitals.loop_lag_now),
        "p50_ms": _ms(vitals.age(0.5)),
        "p99_ms": _ms(vitals.age(0.99)),
        "pool": {
            "size": pool.get_size(),
            "used": vitals.pool_used,
            "max": pool.get_max_size(),
            "waiting": pool.waiting,
        },
        "memory_mb": round(vitals.memory / 1_000_000, 1),
        "tasks": vitals.tasks,
        "draining": vitals.roster.draining,
        "version": version("pghub"),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 2)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is compared from one second to the next: so each change is told once, however often it happens."""

    connected: bool
    losses: int
    blind: float
    rings: int
    gaps: Counter[str]

    @classmethod
    def of(cls, vitals: Vitals) -> _Seen:
        listener = vitals.listener
        return cls(
            listener.connected, listener.losses, listener.blind_seconds, vitals.tail.rings, vitals.fanout.gaps.copy()
        )


def _tell(journal: Journal, before: _Seen, now: _Seen) -> None:
    if now.losses > before.losses:
        journal.tell("listener", "The listening connection was lost.", {"state": "lost"})
    if now.connected and (not before.connected or now.losses > before.losses):
        seconds = round(now.blind - before.blind, 3)
        journal.tell("listener", "The hub hears again.", {"state": "connected", "seconds": seconds})
    if rung := now.rings - before.rings:
        journal.tell("bell", "A producer rang while the hub slept.", {"count": rung})
    for reason, count in (now.gaps - before.gaps).items():
        text = f"A gap: {_GAPS.get(reason, reason)}."
        journal.tell("gap", text, {"reason": reason, "count": count})
