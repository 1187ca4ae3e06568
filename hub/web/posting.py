"""Events in by HTTP: one, an array of them, or any number of lines."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from aiohttp import hdrs, web
from aiohttp.http import HttpProcessingError, HttpVersion11

from hub import fence, item
from hub.errors import Code, CommandError
from hub.grants import LEEWAY, Grants
from hub.item import Item
from hub.web.authority import BAD, Authority, forbidden
from hub.web.ports import Geography, Posting, Publishing, no_geography
from hub.web.refusal import RequestError, body_of, refuse, status_of

KEY: Final = "Idempotency-Key"
_KINDS: Final = ("application/json", "application/x-ndjson")
_ENCODINGS: Final = ("identity", "gzip", "deflate")
_PACE: Final = 1024.0  # bytes a second: the least that has to come in the long run
_MAX_KEY: Final = 255  # bytes
_PLACE: Final = len(f":{item.MAX_ITEMS - 1}")  # bytes that a place takes behind a key

log = structlog.get_logger()


class Posts:
    """Takes what is posted. JSON may have `max_body` bytes.

    A body may keep the hub waiting for `stall_timeout` seconds, and for one more with each KiB that comes.
    """

    def __init__(
        self,
        publisher: Publishing,
        posting: Posting,
        authority: Authority,
        *,
        max_body: int,
        stall_timeout: float,
        geometry: Geography = no_geography,
    ) -> None:
        self._geometry = geometry
        self._publisher = publisher
        self._posting = posting
        self._authority = authority
        self._max_body = max_body
        self._stall_timeout = stall_timeout

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/events", self.post, expect_handler=self.expect)]

    async def expect(self, request: web.Request) -> web.Response | None:
        """Ask for the body if it is wanted, or else the answer: a refusal."""
        try:
            if request.headers[hdrs.EXPECT].lower() != "100-continue":
                raise RequestError(417, Code.UNSUPPORTED, "The hub knows `100-continue` and no other.", hdrs.EXPECT)
            if request.content_type != _KINDS[1]:
                self._check_size(request.content_length or 0)
        except RequestError as error:
            return refuse(error)
        if request.version >= HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # of the answer nothing has been sent
        return None

    async def post(self, request: web.Request) -> web.Response:
        try:
            grants = self._authority.of(request)
            kind, atomic, key = _kind(request), _atomic(request), _key(request)
            if kind == _KINDS[1]:
                return await self._load(request, grants, atomic=atomic, key=key)
            body = await self._body(request, grants)
            if body.lstrip()[:1] != b"[":
                return await self._one(body, grants, atomic=atomic, key=key)
            return await (self._all if atomic else self._each)(body, grants, key)
        except (CommandError, RequestError) as error:
            return refuse(error)

    async def _one(self, body: bytes, grants: Grants, *, atomic: bool, key: str | None) -> web.Response:
        if not atomic:
            raise RequestError(400, Code.BAD_REQUEST, "atomic=false is for arrays.", "atomic")
        event = _keyed(self._read(body), key)
        await self._authority.check(grants, "publish", (event.channel,))
        future = self._publisher.publish(event.channel, event.text, event.tags, event.key, place=event.place)
        await asyncio.wait((future,))
        if future.cancelled():
            raise CommandError(Code.UNAVAILABLE, "The hub is going away; the event may have been published or not.")
        return web.json_response({"event": future.result()}, status=201)

    async def _all(self, body: bytes, grants: Grants, key: str | None) -> web.Response:
        items = []
        for place, data in enumerate(item.several(body)):
            try:
                items.append(_keyed(self._read(data), key, place))
            except CommandError as error:
                field = f"[{place}]" if error.field is None else f"[{place}].{error.field}"
                raise CommandError(error.code, error.message, field=field) from None
        try:
            await self._authority.check(grants, "publish", {event.channel: None for event in items})
        except CommandError as error:
            concerned = (f"[{place}].channel" for place, event in enumerate(items) if event.channel in error.channels)
            error.field = next(concerned, None)
            raise
        return web.json_response({"events": await self._posting.publish(items)}, status=201)

    async def _each(self, body: bytes, grants: Grants, key: str | None) -> web.Response:
        found: list[Item | CommandError] = []
        for place, data in enumerate(item.several(body)):
            try:
                found.append(_keyed(self._read(data), key, place))
            except CommandError as error:
                found.append(error)
        found = await self._permitted(found, grants)
        good = [each for each in found if isinstance(each, Item)]
        published = iter(await self._posting.publish_each(good) if good else ())
        ends = [next(published) if isinstance(each, Item) else each for each in found]
        return web.json_response({"results": [_result(end) for end in ends]}, status=207)

    def _read(self, data: bytes) -> Item:
        event = item.one(data)
        if event.place is None:
            return event
        return msgspec.structs.replace(event, place=fence.placed(event.place, self._geometry()))

    async def _permitted(self, found: list[Item | CommandError], grants: Grants) -> list[Item | CommandError]:
        """With a refusal in the place of each event whose channel is not granted."""
        names = {each.channel: None for each in found if isinstance(each, Item)}
        refused = await self._authority.refused(grants, "publish", names)
        return [
            forbidden("publish", [each.channel]) if isinstance(each, Item) and each.channel in refused else each
            for each in found
        ]

    async def _load(self, request: web.Request, grants: Grants, *, atomic: bool, key: str | None) -> web.Response:
        if key is not None or not atomic:
            field = KEY if atomic else "atomic"
            raise RequestError(400, Code.BAD_REQUEST, f"{field} is not for NDJSON, which is all or nothing.", field)
        check = None if grants.admin else partial(self._authority.check, grants, "publish")
        chunks = self._chunks(request, grants)
        first = await anext(chunks, b"")  # before a connection is taken for it
        return web.json_response({"events": await self._posting.load(_chained(first, chunks), check)}, status=201)

    async def _body(self, request: web.Request, grants: Grants) -> bytes:
        self._check_size(request.content_length or 0)
        body = bytearray()
        async for chunk in self._chunks(request, grants):
            body += chunk
            self._check_size(len(body))
        return bytes(body)

    def _check_size(self, size: int) -> None:
        if size > self._max_body:
            message = f"The body may have {self._max_body} bytes; NDJSON may have any number."
            raise RequestError(413, Code.TOO_LARGE, message)

    async def _chunks(self, request: web.Request, grants: Grants) -> AsyncGenerator[bytes]:
        """The body. Raises RequestError where the client sends too slowly, or rubbish, or has gone, or may no more.

        A TimeoutError or ConnectionError would pass for one of Postgres, further out.
        """
        now, left = asyncio.get_running_loop().time, self._stall_timeout
        while True:
            begun, good = now(), _good(grants)
            try:
                async with asyncio.timeout(min(left, good)):
                    chunk = await request.content.readany()
            except TimeoutError:
                if good < left:
                    raise _expired() from None
                message = f"The body came too slowly: it had {self._stall_timeout:g} s, and one more for each KiB."
                raise RequestError(408, Code.STALLED, message) from None
            except (HttpProcessingError, web.RequestPayloadError) as error:
                raise RequestError(400, Code.BAD_REQUEST, f"The body cannot be read: {error}.") from None
            except ConnectionError:
                log.info("post_left", path=request.path)
                raise RequestError(400, Code.BAD_REQUEST, "The client has left.") from None  # nobody reads it
            if not chunk:
                return
            if good <= 0:  # a chunk that is there already waits for no timeout
                raise _expired()
            # Only what the client took: while Postgres writes, nobody asks for more.
            left = min(self._stall_timeout, left - (now() - begun) + len(chunk) / _PACE)
            yield chunk


def _good(grants: Grants) -> float:
    """Seconds for which they are good."""
    return math.inf if grants.expires is None else grants.expires + LEEWAY - time.time()


def _expired() -> RequestError:
    message = "The token has expired while the body came; nothing was published. Send it again with a new one."
    return RequestError(401, Code.UNAUTHENTICATED, message, hdrs.AUTHORIZATION, BAD)


async def _chained(first: bytes, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    if first:
        yield first
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk


def _kind(request: web.Request) -> str:
    kind, charset = request.content_type, request.charset or "utf-8"
    if kind not in _KINDS or charset.lower() not in ("utf-8", "utf8"):
        raise RequestError(415, Code.UNSUPPORTED, f"Send {' or '.join(_KINDS)}, in UTF-8.", hdrs.CONTENT_TYPE)
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() not in _ENCODINGS:
        raise RequestError(415, Code.UNSUPPORTED, f"Send it as {', '.join(_ENCODINGS)}.", hdrs.CONTENT_ENCODING)
    return kind


def _atomic(request: web.Request) -> bool:
    for name in request.query:
        if name != "atomic":
            raise RequestError(400, Code.BAD_REQUEST, f"There is no parameter {name[:100]!r} here.", name[:100])
    values = request.query.getall("atomic", ["true"])
    if values not in (["true"], ["false"]):
        raise RequestError(400, Code.BAD_REQUEST, "`atomic` is true or false.", "atomic")
    return values == ["true"]


def _key(request: web.Request) -> str | None:
    keys = request.headers.getall(KEY, [])
    if not keys:
        return None
    try:
        size = len(keys[0].encode())
    except UnicodeEncodeError:
        size = 0
    if len(keys) > 1 or not 1 <= size <= _MAX_KEY:
        message = f"One {KEY} of 1 to {_MAX_KEY} bytes of UTF-8 is what a request may have."
        raise RequestError(400, Code.BAD_REQUEST, message, KEY)
    return keys[0]


def _keyed(event: Item, key: str | None, place: int | None = None) -> Item:
    """`event` with the request's key; in an array each has one of its own."""
    if key is None:
        return event
    if event.key is not None:
        raise CommandError(Code.BAD_REQUEST, f"`key` and {KEY} exclude each other.", field="key")
    if place is None:
        return msgspec.structs.replace(event, key=key)
    if len(key.encode()) + _PLACE > _MAX_KEY:
        raise RequestError(
            400, Code.BAD_REQUEST, f"With an array {KEY} has {_MAX_KEY - _PLACE} bytes at the most.", KEY
        )
    return msgspec.structs.replace(event, key=f"{key}:{place}")


def _result(end: int | CommandError) -> dict[str, Any]:
    if isinstance(end, CommandError):
        return {"status": status_of(end), "error": body_of(end)}
    return {"status": 201, "event": end}
