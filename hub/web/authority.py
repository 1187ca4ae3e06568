"""Who asks, and what they may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from aiohttp import hdrs, web

from hub.errors import Code, CommandError
from hub.grants import ALL, EVERYTHING, Action, Grants
from hub.web.ports import Authorizing, Verifying
from hub.web.refusal import RequestError

_SCHEME: Final = "bearer"
_WANTED: Final[Mapping[str, str]] = {hdrs.WWW_AUTHENTICATE: "Bearer"}
BAD: Final[Mapping[str, str]] = {hdrs.WWW_AUTHENTICATE: 'Bearer error="invalid_token"'}
"""The headers for who has a bad token (RFC 6750, 3.1)."""
_VERBS: Final = {"subscribe": "read", "publish": "publish to"}


class Authority:
    """Decides by `tokens`, and then by `authorizing`, which is asked for whatever a token grants, but not for admins.

    Without `tokens` the hub is open: everybody may do everything.
    """

    def __init__(self, tokens: Verifying | None = None, authorizing: Authorizing | None = None) -> None:
        self._tokens = tokens
        self._authorizing = authorizing

    @property
    def is_open(self) -> bool:
        return self._tokens is None

    def by_token(self, text: str) -> Grants:
        """What a token grants. Raises CommandError (`unauthenticated`)."""
        return EVERYTHING if self._tokens is None else self._tokens.verify(text)

    def by_header(self, request: web.Request) -> Grants | None:
        """What the token in the header of `request` grants; None where there is none, and the hub wants one.

        Another scheme than Bearer is a proxy's affair. Raises RequestError.
        """
        if self._tokens is None:
            return EVERYTHING
        for value in request.headers.getall(hdrs.AUTHORIZATION, ()):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == _SCHEME:
                return self._verified(token.strip())
        return None

    def of(self, request: web.Request) -> Grants:
        """The same for who cannot send a token later: without one this raises RequestError, too."""
        if (grants := self.by_header(request)) is None:
            message = "This hub wants a token: send it as `Authorization: Bearer …`."
            raise RequestError(401, Code.UNAUTHENTICATED, message, hdrs.AUTHORIZATION, _WANTED)
        return grants

    def check_admin(self, request: web.Request) -> None:
        """Refuse who is no admin. Raises RequestError."""
        if not self.of(request).admin:
            raise RequestError(403, Code.FORBIDDEN, "This is for tokens with `admin`.", hdrs.AUTHORIZATION)

    def is_admin(self, request: web.Request) -> bool:
        """Whether an admin asks, in case that is not needed to get an answer."""
        try:
            grants = self.by_header(request)
        except RequestError:
            return False
        return grants is not None and grants.admin

    async def check(self, grants: Grants, action: Action, names: Iterable[str]) -> None:
        """Refuse `action` where it is not granted for all of `names`, channels and patterns.

        Raises CommandError: `forbidden` with those that it is not granted for, `unavailable` where that is unknown now.
        """
        if grants.admin:
            return
        asked = list(names)
        if refused := grants.refused(action, asked):
            raise forbidden(action, refused)
        if refused := await self._denied(grants, action, asked):
            raise forbidden(action, refused, who="hub.authorize")

    async def refused(self, grants: Grants, action: Action, names: Iterable[str]) -> list[str]:
        """Those of `names` for which `action` is not granted. Raises CommandError (`unavailable`, `forbidden`)."""
        if grants.admin:
            return []
        asked = list(names)
        refused = grants.refused(action, asked)
        return refused + await self._denied(grants, action, [name for name in asked if name not in refused])

    async def _denied(self, grants: Grants, action: Action, names: list[str]) -> list[str]:
        if self._authorizing is None or not names:
            return []
        return list(await self._authorizing.refused(grants.claims, action, names))

    def _verified(self, token: str) -> Grants:
        try:
            return self.by_token(token)
        except CommandError as error:
            raise RequestError(401, error.code, error.message, hdrs.AUTHORIZATION, BAD) from None


def forbidden(action: Action, names: list[str], *, who: str = "The token") -> CommandError:
    """The refusal of `action` for these channels."""
    name = "all channels" if names == [ALL] else repr(names[0])
    message = f"{who} does not let you {_VERBS[action]} {name}."
    return CommandError(Code.FORBIDDEN, message, channels=tuple(names), field="channel")
