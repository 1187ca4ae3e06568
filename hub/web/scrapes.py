"""Metrics over HTTP."""

from __future__ import annotations

from aiohttp import web

from hub.errors import CommandError
from hub.web.accept import agree, bare
from hub.web.authority import Authority
from hub.web.ports import Scraping
from hub.web.refusal import RequestError, refuse


class Scrapes:
    """Answers Prometheus with what `scrape` gives, as text of version 0.0.4; for admins only."""

    def __init__(self, scrape: Scraping, authority: Authority) -> None:
        self._scrape = scrape
        self._authority = authority

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/metrics", self.scraped)]

    async def scraped(self, request: web.Request) -> web.Response:
        try:
            self._authority.check_admin(request)
            bare(request)
            kind = agree(request, "text/plain")
        except (CommandError, RequestError) as error:
            return refuse(error)
        return web.Response(
            body=await self._scrape(), headers={"Content-Type": f"{kind}; version=0.0.4; charset=utf-8"}
        )
