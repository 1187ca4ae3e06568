"""An event: what a producer published, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import orjson


@dataclass(frozen=True, slots=True)
class Event:
    """One event on its way to the subscribers.

    `json` is the event as it stands in a frame, encoded once for all of them. `ephemeral` says that it
    came by NOTIFY and is in no log.
    """

    channel: str
    json: bytes
    ephemeral: bool


def ephemeral(channel: str, payload: str, at: datetime) -> Event:
    """The event of a NOTIFY that arrived at `at`, an aware time.

    The payload goes through byte for byte where it is JSON, else it becomes a JSON string.
    """
    fields = {"channel": channel, "id": None, "at": at, "payload": orjson.Fragment(as_json(payload)), "tags": ()}
    return Event(channel, orjson.dumps(fields, option=orjson.OPT_UTC_Z), ephemeral=True)


def as_json(payload: str) -> bytes:
    """`payload` unchanged if it parses as JSON, else as a JSON string."""
    raw = payload.encode()
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return orjson.dumps(payload)
    return raw
