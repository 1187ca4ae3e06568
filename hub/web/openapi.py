"""The contract of the hub's HTTP side (OpenAPI 3.1), by hand; a test holds it against the routes."""

from __future__ import annotations

from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from hub import item, protocol, query
from hub.errors import CommandError
from hub.web.accept import agree, bare
from hub.web.refusal import RequestError, refuse
from hub.web.schemas import KEY, SCHEMAS, TEXT, TIME, WHOLE, array_of, record, reference
from hub.web.sessions import DEFAULT, MOST

_HEADERS: Final = {hdrs.CACHE_CONTROL: "no-cache"}
_PATH: Final = "/openapi.json"


class Contract:
    """Serves it."""

    def __init__(self) -> None:
        self._body = orjson.dumps(CONTRACT)

    def routes(self) -> list[web.RouteDef]:
        return [web.get(_PATH, self.contract)]

    async def contract(self, request: web.Request) -> web.Response:
        try:
            bare(request)
            kind = agree(request, "application/json")
        except (CommandError, RequestError) as error:
            return refuse(error)
        return web.Response(body=self._body, content_type=kind, headers=_HEADERS)


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameter(
    name: str, description: str, schema: dict[str, Any], place: str = "query", **more: Any
) -> dict[str, Any]:
    required = place == "path"
    return {"name": name, "in": place, "description": description, "schema": schema, "required": required, **more}


def _responses(good: dict[str, Any], *refusals: int) -> dict[str, Any]:
    """The good ones, by status, and these refusals."""
    return good | {str(status): _json(_REFUSALS[status], reference("Error")) for status in refusals}


_REFUSALS: Final = {
    400: "The request is wrong; `field` says where.",
    401: "The hub wants a token, or a better one.",
    403: "What is asked for is not for everybody.",
    404: "There is no such thing.",
    406: "It does not come in any form that the request accepts.",
    408: "The body stopped coming.",
    413: "It is too large.",
    415: "A body of this kind is not understood.",
    421: "The hub has no such name.",
    429: "Live only: the client's address has as many connections as it may have.",
    503: "Not now; try again after Retry-After seconds.",
    505: "HTTP/1.0 has no chunks, by which a broken stream can be told.",
}
_READ: Final = {
    "operationId": "readEvents",
    "summary": "The log: a page of it, all of it as a stream, or live.",
    "description": "With text/event-stream: `channel`, `since`, `last`, `ephemeral` and a fence only, `channel` at "
    "least once. A fence is one of `within`, `bbox` and `near`.",
    "parameters": [
        _parameter(
            "channel", "A channel or pattern.", array_of(TEXT, maxItems=query.MOST_CHANNELS), example=["orders"]
        ),
        _parameter("tag", "Any of these.", array_of(TEXT, maxItems=query.MOST_TAGS)),
        _parameter("since", "A cursor: what it has not seen.", TEXT),
        _parameter("until", "A cursor: what it has seen.", TEXT),
        _parameter("from", "Published then or later.", TIME),
        _parameter("to", "Published earlier.", TIME),
        _parameter("last", "The newest so many.", {"type": "integer", "minimum": 1, "maximum": query.MOST_LAST}),
        _parameter("limit", "So many at the most.", {"type": "integer", "minimum": 1}),
        _parameter("within", "Only what happened inside this polygon, as GeoJSON.", TEXT),
        _parameter("bbox", "The same: west,south,east,north in degrees.", TEXT),
        _parameter("near", "The same: longitude,latitude,meters.", TEXT),
        _parameter("ephemeral", "Live only: whether NOTIFYs come too.", {"type": "boolean"}),
        _parameter("Last-Event-ID", "Live only: goes before `since` and `last`.", TEXT, "header"),
    ],
    "responses": _responses(
        {
            "200": {
                "description": "Events, oldest first.",
                "content": {
                    "application/json": {
                        "schema": record("events cursor", events=array_of(reference("Event")), cursor=TEXT, gap=TEXT)
                    },
                    "application/x-ndjson": {"schema": TEXT},
                    "text/csv": {"schema": TEXT},
                    "text/event-stream": {"schema": TEXT},
                },
            }
        },
        *(400, 401, 403, 406, 413, 421, 429, 503, 505),
    ),
}
_PUBLISH: Final = {
    "operationId": "publishEvents",
    "summary": "Publish one event, an array of them, or any number of lines.",
    "parameters": [
        _parameter("atomic", "Whether an array is all or nothing.", {"type": "boolean", "default": True}),
        _parameter("Idempotency-Key", "The same within 24 hours is published once.", KEY, "header"),
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [reference("Item"), array_of(reference("Item"), minItems=1, maxItems=item.MAX_ITEMS)],
                },
                "example": {"channel": "orders", "payload": {"id": 1}, "tags": ["eu"]},
            },
            "application/x-ndjson": {"schema": TEXT},
        },
    },
    "responses": _responses(
        {
            "201": _json("The id, or the ids, or of lines how many there were.", {"type": "object"}),
            "207": _json("What became of each.", record("results", results=array_of(record("status", status=WHOLE)))),
        },
        *(400, 401, 403, 408, 413, 415, 421, 503),
    ),
}
_TABLE: Final = {
    "operationId": "readTable",
    "summary": "The rows of a watched table, and the cursor behind which their changes follow.",
    "parameters": [_parameter("table", "Its name.", TEXT, "path", example="orders")],
    "responses": _responses(
        {
            "200": {
                "description": "The rows.",
                "content": {
                    "application/json": {
                        "schema": record(
                            "table channel key cursor rows",
                            table=TEXT,
                            channel=TEXT,
                            key=array_of(TEXT),
                            cursor=TEXT,
                            rows=array_of({"type": "object"}),
                        )
                    },
                    "application/x-ndjson": {"schema": TEXT},
                },
            }
        },
        *(400, 401, 403, 404, 406, 421, 503, 505),
    ),
}


def _simple(operation: str, summary: str, good: dict[str, Any], *refusals: int) -> dict[str, Any]:
    return {"get": {"operationId": operation, "summary": summary, "responses": _responses(good, *refusals)}}


_SESSIONS: Final = {
    "operationId": "listSessions",
    "summary": "The connected clients, those with the fullest buffers first.",
    "parameters": [
        _parameter(
            "limit", "So many at the most.", {"type": "integer", "minimum": 1, "maximum": MOST, "default": DEFAULT}
        )
    ],
    "responses": _responses(
        {"200": _json("They.", record("sessions", sessions=array_of(reference("Session"))))}, *(400, 401, 403, 406, 421)
    ),
}
_DISMISS: Final = {
    "operationId": "dismissSession",
    "summary": "Disconnect a client.",
    "parameters": [_parameter("id", "The session's.", TEXT, "path", example="0123456789abcdef")],
    "responses": _responses({"204": {"description": "It is told to go."}}, *(400, 401, 403, 404, 421)),
}

_READY_STATES: Final = {
    "200": _json("It is.", reference("Ready")),
    "503": _json("It is not; an admin sees the reasons.", reference("Ready")),
}

CONTRACT: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {"title": "pghub", "version": str(protocol.VERSION)},
    "paths": {
        "/events": {"get": _READ, "post": _PUBLISH},
        "/watched": _simple(
            "listTables",
            "The watched tables.",
            {"200": _json("They.", record("tables", tables=array_of({"type": "object"})))},
            *(400, 401, 403, 406, 421, 503),
        ),
        "/watched/{table}": {"get": _TABLE},
        "/channels": _simple(
            "listChannels",
            "The channels on which most comes, these first.",
            {"200": _json("They.", record("channels", channels=array_of(reference("Channel"))))},
            *(400, 401, 403, 406, 421),
        ),
        "/metrics": _simple(
            "readMetrics",
            "Metrics for Prometheus.",
            {
                "200": {
                    "description": "In Prometheus's text format.",
                    "content": {"text/plain": {"schema": TEXT}},
                }
            },
            *(400, 401, 403, 406, 421),
        ),
        "/sessions": {"get": _SESSIONS},
        "/sessions/{id}": {"delete": _DISMISS},
        "/healthz": _simple("isAlive", "Whether the hub runs.", {"200": _json("It does.", {"type": "object"})}, 421),
        "/readyz": _simple("isReady", "Whether the hub is fit to serve.", _READY_STATES, 421),
        _PATH: _simple("readContract", "This.", {"200": _json("This.", {"type": "object"})}, 400, 406, 421),
    },
    "components": {
        "schemas": SCHEMAS,
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    },
    "security": [{}, {"token": []}],  # a hub without a secret is open
}
