"""The dashboard's files, from memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from aiohttp import hdrs, web

_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    # A page and the client.js it loads have to be of one version: always ask, and mostly hear 304.
    "Cache-Control": "no-cache",
}


class Pages:
    """Serves the files of `folder`; `index.html` as `/`.

    `start` is the query that the dashboard begins with for a visitor who asked for nothing.
    """

    def __init__(self, folder: Path, start: Sequence[tuple[str, str]] = ()) -> None:
        self._files = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in _TYPES}
        self._tags = {name: hashlib.sha256(body).hexdigest()[:16] for name, body in self._files.items()}
        self._start = "/?" + urlencode(start) if start else None

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/", self.index)] + [web.get(f"/{name}", self.file) for name in self._files]

    async def index(self, request: web.Request) -> web.StreamResponse:
        if self._start and not request.query_string:
            raise web.HTTPFound(self._start)
        return self._serve(request, "index.html")

    async def file(self, request: web.Request) -> web.StreamResponse:
        return self._serve(request, request.path[1:])

    def _serve(self, request: web.Request, name: str) -> web.Response:
        tag = self._tags[name]
        asked = request.if_none_match or ()
        if any(entry.value == tag for entry in asked):
            return web.Response(status=304, headers={**_HEADERS, hdrs.ETAG: f'"{tag}"'})
        return web.Response(
            body=self._files[name],
            content_type=_TYPES[Path(name).suffix],
            charset="utf-8",
            headers={**_HEADERS, hdrs.ETAG: f'"{tag}"'},
        )
