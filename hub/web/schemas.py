"""The shapes of what goes over HTTP, as JSON Schema, for the contract."""

from __future__ import annotations

from typing import Any, Final

from hub import protocol, query
from hub.channels import MAX_BYTES
from hub.errors import Code


def record(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required.split()}


def array_of(items: dict[str, Any], **bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": items, **bounds}


def reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: Final = {"type": "string"}
WHOLE: Final = {"type": "integer"}
CHANNEL: Final = {"type": "string", "minLength": 1, "maxLength": MAX_BYTES}
TAGS: Final = array_of(TEXT, maxItems=query.MOST_TAGS)
TIME: Final = {"type": "string", "format": "date-time"}
NUMBER_OR_NULL: Final = {"type": ["integer", "null"]}
ANYTHING: Final = {"description": "Any JSON.", "x-max-bytes": protocol.MAX_PAYLOAD}
GEOMETRY: Final = {"type": "object", "description": "A geometry of GeoJSON, in longitude and latitude."}
GEOMETRY_OR_NULL: Final = GEOMETRY | {"type": ["object", "null"]}
KEY: Final = {"type": "string", "minLength": 1, "maxLength": 255}
KEY_OR_NULL: Final = KEY | {"type": ["string", "null"]}

SCHEMAS: Final = {
    "Error": record(
        "error",
        error=record(
            "code message field",
            code={"enum": list(Code)},
            message=TEXT,
            field={"type": ["string", "null"]},
            channels=array_of(TEXT),
        ),
    ),
    "Event": record(
        "channel id at payload tags",
        channel=CHANNEL,
        id=NUMBER_OR_NULL,
        at=TIME,
        payload=ANYTHING,
        tags=TAGS,
        place=GEOMETRY,
    ),
    "Item": record(
        "channel payload", channel=CHANNEL, payload=ANYTHING, tags=TAGS, key=KEY_OR_NULL, place=GEOMETRY_OR_NULL
    )
    | {"additionalProperties": False},
    "Session": record(
        "id address kind since subject channels subscriptions position buffer lag deliveries",
        id=TEXT,
        address=TEXT,
        kind={"enum": ["websocket", "sse"]},
        since=TIME,
        subject={"type": ["string", "null"]},
        channels=array_of(TEXT) | {"description": "The first of them."},
        subscriptions=WHOLE,
        position={"enum": ["live", "behind", "joining"]},
        buffer={"type": "integer", "description": "Bytes that wait to be sent."},
        lag=NUMBER_OR_NULL
        | {"description": "About how many events of the log it is behind; null for one that is live."},
        deliveries=WHOLE,
    ),
    "Ready": record("status", status=TEXT, reasons=array_of(TEXT)),
    "Channel": record(
        "channel subscribers events rate last",
        channel=TEXT,
        subscribers=WHOLE,
        events=WHOLE,
        rate={"type": "number", "description": "Events a second, over the last ten."},
        last={"anyOf": [record("at id", at=TIME, id=NUMBER_OR_NULL), {"type": "null"}]},
    ),
}
