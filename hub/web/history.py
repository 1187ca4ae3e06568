"""The past over HTTP: a page of it, or all of it as a stream. What is live is another's.

A stream is chunked, so whoever reads it can tell a whole one, which has an end, from one that broke off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final
from urllib.parse import parse_qsl

import orjson
import structlog
from aiohttp import hdrs, web

from hub import query
from hub.errors import Code, CommandError
from hub.fence import Geometry
from hub.grants import ALL
from hub.page import Page
from hub.query import Query
from hub.web.accept import agree, chunkable
from hub.web.authority import Authority
from hub.web.ports import Exporting, Geography, Past, no_geography
from hub.web.reader import Reader
from hub.web.refusal import RequestError, refuse

_PAGE: Final = "application/json"
_LINES: Final = "application/x-ndjson"
_CSV: Final = "text/csv"
_LIVE: Final = "text/event-stream"
_MOST: Final = 1_000  # events of a page
_ALL: Final = 10**18
_LONGEST: Final = 4_096  # characters of a cursor in a header: clients refuse longer ones

log = structlog.get_logger()


class Events:
    """Serves what `past` has, and leaves to `live` who wants what comes.

    A client that reads nothing for `stall_timeout` seconds is cut off.
    """

    def __init__(
        self,
        past: Past,
        live: Callable[[web.Request], Awaitable[web.StreamResponse]],
        authority: Authority,
        *,
        stall_timeout: float,
        geometry: Geography = no_geography,
    ) -> None:
        self._past = past
        self._geometry = geometry
        self._live = live
        self._authority = authority
        self._stall_timeout = stall_timeout

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/events", self.events)]

    async def events(self, request: web.Request) -> web.StreamResponse:
        try:
            kind = agree(request, _PAGE, _LINES, _CSV, _LIVE)
            if kind == _LIVE:
                return await self._live(request)
            grants = self._authority.of(request)
            asked = _asked(request, limit=_MOST if kind == _PAGE else _ALL, geometry=self._geometry())
            await self._authority.check(grants, "subscribe", asked.selection.names or (ALL,))
            if kind == _PAGE:
                body = _body(await self._past.page(asked))
                return web.Response(body=body, content_type=kind)
        except (CommandError, RequestError) as error:
            return refuse(error)
        return await self._stream(request, asked, kind)

    async def _stream(self, request: web.Request, asked: Query, kind: str) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = kind
        try:
            chunkable(request)
            async with Reader(request, response, self._stall_timeout) as reader:
                async with self._past.open(asked) as export:
                    response.headers.update(_said(export))

                    async def write(data: bytes) -> None:
                        if not response.prepared:  # not before: until there is something, it can fail in words
                            await response.prepare(request)
                        await reader.write(data)

                    if request.method != hdrs.METH_HEAD:
                        await (reader.wait(export.copy(write)) if kind == _CSV else _send(export, reader, write))
                await response.prepare(request)
                await reader.end(b"")  # when nobody in Postgres waits for it any more
        except (CommandError, RequestError) as error:
            if not response.prepared:
                return refuse(error)
            log.warning("stream_broken", query=request.query_string, reason=error.message)
        except ConnectionError as error:
            log.info("stream_left", query=request.query_string, reason=str(error))
        return response


def _asked(request: web.Request, *, limit: int, geometry: Geometry | None) -> Query:
    text = request.rel_url.raw_query_string
    try:
        parameters = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=2_000)
    except ValueError:
        raise RequestError(400, Code.BAD_REQUEST, "The parameters are no UTF-8, or far too many.") from None
    return query.parse(parameters, limit=limit, geometry=geometry)


def _body(page: Page) -> bytes:
    events = b",\n".join(event.json for event in page.events)
    end = orjson.dumps({"cursor": str(page.position)} | ({"gap": page.gap} if page.gap else {}))
    return b'{"events":[\n' + events + b"\n]," + end[1:] + b"\n"


def _said(export: Exporting) -> dict[str, str]:
    """What goes before a stream, whose lines are all events."""
    return {f"Hub-{name.title()}": text for name, text in export.head.items() if len(text) <= _LONGEST}


async def _send(export: Exporting, reader: Reader, write: Callable[[bytes], Awaitable[None]]) -> None:
    async with aclosing(export.batches()) as batches:
        while (batch := await reader.wait(anext(batches, None))) is not None:
            await write(b"\n".join(batch) + b"\n")
