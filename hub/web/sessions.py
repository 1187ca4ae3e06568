"""The connected clients over HTTP: a list of them, and the way to send one off."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from hub.errors import Code, CommandError
from hub.fanout.fanout import Fanout
from hub.web.accept import agree, bare
from hub.web.authority import Authority
from hub.web.refusal import RequestError, refuse
from hub.web.roster import Entry, Roster

DEFAULT: Final = 200  # sessions in an answer
MOST: Final = 1_000
_CHANNELS: Final = 20  # of a session that are named

log = structlog.get_logger()


class Sessions:
    """Tells who is in `roster`, and how far they are behind `fanout`; for admins only."""

    def __init__(self, roster: Roster, fanout: Fanout, authority: Authority) -> None:
        self._roster = roster
        self._fanout = fanout
        self._authority = authority

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/sessions", self.listed), web.delete("/sessions/{id}", self.dismissed)]

    async def listed(self, request: web.Request) -> web.Response:
        """Those with the fullest buffers first."""
        try:
            self._authority.check_admin(request)
            count = _limit(request)
            kind = agree(request, "application/json")
        except (CommandError, RequestError) as error:
            return refuse(error)
        sessions = [self._described(entry) for entry in self._roster.fullest(count)]
        return web.Response(body=orjson.dumps({"sessions": sessions}, option=orjson.OPT_UTC_Z), content_type=kind)

    async def dismissed(self, request: web.Request) -> web.Response:
        """Send one off; its connection ends soon after the answer."""
        name = request.match_info["id"]
        try:
            self._authority.check_admin(request)
            bare(request)
            if (entry := self._roster.get(name)) is None:
                raise RequestError(404, Code.NOT_FOUND, f"No session {name[:100]!r} is connected.", "id")
        except (CommandError, RequestError) as error:
            return refuse(error)
        log.info("dismissed", session=entry.id, address=entry.address)
        entry.visitor.dismiss()
        return web.Response(status=204)

    def _described(self, entry: Entry) -> dict[str, Any]:
        session = entry.session
        return {
            "id": entry.id,
            "address": entry.address,
            "kind": entry.kind,
            "since": datetime.fromtimestamp(entry.since, UTC),
            "subject": entry.visitor.subject,
            "channels": list(islice(sorted(session.selection.names), _CHANNELS)),
            "subscriptions": len(session.selection.names),
            "position": "behind" if session.behind else "joining" if session.joins else "live",
            "buffer": session.unsent,
            "lag": self._fanout.lag(session),
            "deliveries": session.deliveries,
        }


def _limit(request: web.Request) -> int:
    for name in request.query:
        if name != "limit":
            raise RequestError(400, Code.BAD_REQUEST, f"There is no parameter {name!r} here.", name)
    text = request.query.get("limit", str(DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= MOST):
        raise RequestError(400, Code.BAD_REQUEST, f"`limit` has to be a whole number from 1 to {MOST}.", "limit")
    return int(text)
