"""An event: what a producer published, ready to be written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

import orjson


class Event(NamedTuple):
    """One event on its way to the subscribers.

    `json` is the event as it stands in a frame, encoded once for all of them. One that came by NOTIFY is in no log
    and has neither `xid`, the transaction that published it, nor `id`. `place` is what fences are compared with.
    """

    channel: str
    json: bytes
    xid: int = 0
    id: int = 0
    place: object = None

    @property
    def ephemeral(self) -> bool:
        return self.id == 0


_AT: Final = b'"at":"'  # stands for itself in an event's JSON: a channel's quotes are escaped


def published_at(event: Event) -> float:
    """When it was published, or a NOTIFY came, in seconds since 1970."""
    start = event.json.index(_AT) + len(_AT)
    return datetime.fromisoformat(event.json[start : event.json.index(b'"', start)].decode()).timestamp()


def durable(xid: int, number: int, channel: str, payload: str, tags: Sequence[str], at: datetime) -> Event:
    """The event `number` of the log, published `at`, an aware time; `payload` is JSON."""
    fields = {"channel": channel, "id": number, "at": at, "payload": orjson.Fragment(payload), "tags": tags}
    # Copied, since it will be kept for a while: behind what orjson returns lie 4 KB that it first took.
    return Event(channel, bytes(memoryview(orjson.dumps(fields, option=orjson.OPT_UTC_Z))), xid, number)


def placed(event: Event, place: object, geojson: bytes) -> Event:
    """The same event with its place, which `geojson` writes."""
    return event._replace(json=b'%b,"place":%b}' % (event.json[:-1], geojson), place=place)


def ephemeral(channel: str, payload: str, at: datetime) -> Event:
    """The event of a NOTIFY that arrived at `at`, an aware time.

    The payload goes through byte for byte where it is JSON, else it becomes a JSON string.
    """
    fields = {"channel": channel, "id": None, "at": at, "payload": orjson.Fragment(as_json(payload)), "tags": ()}
    return Event(channel, orjson.dumps(fields, option=orjson.OPT_UTC_Z))


def as_json(payload: str) -> bytes:
    """`payload` unchanged if it parses as JSON, else as a JSON string."""
    raw = payload.encode()
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return orjson.dumps(payload)
    return raw
