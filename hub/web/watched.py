"""Watched tables over HTTP: the list of them, and the rows of one, as a stream.

A stream is chunked, so whoever reads it can tell a whole one, which has an end, from one that broke off.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Final

import orjson
import structlog
from aiohttp import hdrs, web

from hub.errors import Code, CommandError
from hub.grants import Grants
from hub.web.accept import agree, bare, chunkable
from hub.web.authority import Authority
from hub.web.ports import Reading, Watching
from hub.web.reader import Reader
from hub.web.refusal import RequestError, refuse

log = structlog.get_logger()


class Tables:
    """Serves what `watched` reads. A client that reads nothing for `stall_timeout` seconds is cut off."""

    def __init__(self, watched: Watching, authority: Authority, *, stall_timeout: float) -> None:
        self._watched = watched
        self._authority = authority
        self._stall_timeout = stall_timeout

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/watched", self.tables),
            web.get("/watched/{table:(?s:.+)}", self.rows),
        ]

    async def tables(self, request: web.Request) -> web.StreamResponse:
        try:
            grants = self._authority.of(request)
            bare(request)
            kind = agree(request, _Object.kind)
            tables = await self._watched.tables()
            refused = await self._authority.refused(grants, "subscribe", {str(each["channel"]) for each in tables})
            tables = [each for each in tables if each["channel"] not in refused]
        except (CommandError, RequestError) as error:
            return refuse(error)
        return web.Response(body=orjson.dumps({"tables": tables}), content_type=kind)

    async def rows(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        name = request.match_info["table"]
        try:
            grants = self._authority.of(request)
            bare(request)
            framing = _FRAMINGS[agree(request, *_FRAMINGS)]()
            response.content_type = framing.kind
            chunkable(request)
            await self._check(grants, name)
            async with Reader(request, response, self._stall_timeout) as reader:
                async with self._watched.open(name) as reading:
                    await self._authority.check(grants, "subscribe", [str(reading.head["channel"])])
                    await response.prepare(request)
                    if request.method == hdrs.METH_HEAD:
                        return response
                    end = await _send(reading, reader, framing)
                await reader.end(end)  # when nobody in Postgres waits for it any more
        except (CommandError, RequestError) as error:
            if not response.prepared:
                return refuse(error)
            log.warning("stream_broken", table=name, reason=error.message)
        except ConnectionError as error:
            log.info("stream_left", table=name, reason=str(error))
        return response

    async def _check(self, grants: Grants, name: str) -> None:
        """Tell who may not read a table what is told of one that is not there, before a connection is taken for it."""
        if grants.admin:
            return
        try:
            if (channel := await self._watched.channel(name)) is None:
                raise CommandError(Code.FORBIDDEN, "")
            await self._authority.check(grants, "subscribe", [channel])
        except CommandError as error:
            if error.code is not Code.FORBIDDEN:
                raise
            message = f"No table {name!r} is watched that this token lets you read."
            raise CommandError(Code.NOT_FOUND, message) from None


async def _send(reading: Reading, reader: Reader, framing: _Object | _Lines) -> bytes:
    """Send the head and all rows but what is returned."""
    data = framing.head(reading.head)
    async with aclosing(reading.batches()) as batches:
        while (batch := await reader.wait(anext(batches, None))) is not None:
            await reader.write(data + framing.rows(batch))
            data = b""
    return data + framing.end


class _Object:
    """The head as an object with all rows in it."""

    kind = "application/json"
    end = b"\n]}\n"

    def __init__(self) -> None:
        self._before = b"\n"

    def head(self, head: Mapping[str, object]) -> bytes:
        return orjson.dumps(head)[:-1] + b',"rows":['

    def rows(self, batch: list[bytes]) -> bytes:
        before, self._before = self._before, b",\n"
        return before + b",\n".join(batch)


class _Lines:
    """The head, then each row, in a line of its own."""

    kind = "application/x-ndjson"
    end = b""

    def head(self, head: Mapping[str, object]) -> bytes:
        return orjson.dumps(head) + b"\n"

    def rows(self, batch: list[bytes]) -> bytes:
        return b"\n".join(batch) + b"\n"


_FRAMINGS: Final = {framing.kind: framing for framing in (_Object, _Lines)}
