"""What is wrong with what a client got, beside what Postgres has and what the producers know."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from tests.faults.follower import Follower, Loss
from tests.faults.producers import Notifier


class Fact(NamedTuple):
    """A durable event that was committed."""

    channel: str
    producer: int | None
    number: int | None
    saw: int | None


def fact(channel: str, payload: str) -> Fact:
    """What the log has of an event."""
    fields = orjson.loads(payload)
    return Fact(channel, fields.get("by"), fields.get("n"), fields.get("saw"))


def durable(came: Sequence[int], wants: Callable[[str], bool], committed: Mapping[int, Fact]) -> Counter[str]:
    """Events lost, come twice, never committed, out of a producer's order, or before one that it had seen."""
    place = {number: index for index, number in enumerate(came)}
    expected = {number for number, fact in committed.items() if wants(fact.channel)}
    known = [committed[number] for number in came if number in committed]
    early = (
        place.get(committed[number].saw or 0, -1) > index for number, index in place.items() if number in committed
    )
    return Counter(
        {
            "lost": len(expected - place.keys()),
            "twice": len(came) - len(place),
            "never committed": len(place.keys() - committed.keys()),
            "out of order": _disordered((fact.producer, fact.number) for fact in known if fact.producer is not None),
            "before their cause": sum(early),
        }
    )


def ephemeral(follower: Follower, notifiers: Mapping[int, Notifier]) -> Counter[str]:
    """NOTIFYs lost with and without a word at their place, come twice, never committed, out of order."""
    wrong: Counter[str] = Counter()
    for channel in filter(follower.hears, next(iter(notifiers.values())).committed):
        losses = [place for place, entry in enumerate(follower.story) if _is_loss(entry, channel)]
        for number, notifier in notifiers.items():
            came = [
                (place, entry["payload"]["n"])
                for place, entry in enumerate(follower.story)
                if isinstance(entry, dict) and _is_from(entry, channel, number)
            ]
            wrong += _missing(came, notifier.committed[channel], losses, len(follower.story))
            numbers = [each for _, each in came]
            possible = notifier.committed[channel] | notifier.doubtful[channel]
            wrong["NOTIFY twice"] += len(numbers) - len(set(numbers))
            wrong["NOTIFY never committed"] += len(set(numbers) - possible)
            wrong["NOTIFY out of order"] += _disordered((0, each) for each in numbers)
    return wrong


def _is_loss(entry: dict[str, Any] | Loss, channel: str) -> bool:
    return isinstance(entry, Loss) and entry.concerns(channel)


def _is_from(entry: dict[str, Any], channel: str, number: int) -> bool:
    return entry["id"] is None and entry["channel"] == channel and entry["payload"].get("by") == number


def _missing(
    came: Sequence[tuple[int, int]], committed: Iterable[int], losses: Sequence[int], end: int
) -> Counter[str]:
    """Each number that did not come lies between two that did, and there has to be a loss between these, too."""
    places, numbers = [-1, *(place for place, _ in came), end], [number for _, number in came]
    missed: Counter[str] = Counter()
    for number in set(committed) - set(numbers):
        gap = bisect_left(numbers, number)
        told = bisect_left(losses, places[gap]) < bisect_left(losses, places[gap + 1])
        missed["NOTIFY lost and told" if told else "NOTIFY lost without a word"] += 1
    return missed


def _disordered(pairs: Iterable[tuple[Any, Any]]) -> int:
    """How many numbers are not greater than the one before of the same producer."""
    latest: dict[Any, Any] = {}
    count = 0
    for producer, number in pairs:
        count += number <= latest.get(producer, 0)
        latest[producer] = number
    return count
