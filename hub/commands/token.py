"""Handing out tokens."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from hub import duration, tokens
from hub.errors import CommandError, SetupError
from hub.settings import Keys


def token(
    *,
    subscribe: Annotated[
        list[str] | None, Parameter(help="A channel or pattern to read; may be given again.", negative="")
    ] = None,
    publish: Annotated[
        list[str] | None, Parameter(help="A channel or pattern to publish to; may be given again.", negative="")
    ] = None,
    admin: Annotated[bool, Parameter(help="Everything, the dashboard and the metrics included.", negative="")] = False,
    lifetime: Annotated[str, Parameter(name="--for", help="How long it is good: 90s, 15m, 36h or 7d.")] = "1h",
    sub: Annotated[str | None, Parameter(help="Who it is for.")] = None,
    keys: Keys | None = None,
) -> int:
    """Print a token for clients of a hub, signed with HUB_SECRET."""
    keys = keys or Keys()
    if not (subscribe or publish or admin):
        raise SetupError("The token would grant nothing: give it --subscribe, --publish or --admin.")
    if (time := duration.parse(lifetime)) is None:
        raise SetupError(f"--for is {lifetime!r}. Write it as 90s, 15m, 36h or 7d.")
    claims = {"sub": sub, "aud": keys.audience, "subscribe": subscribe, "publish": publish, "admin": admin}
    secret = _secret(keys)
    made = tokens.issue(secret, claims, time.total_seconds())
    try:
        tokens.Tokens(secret=secret, audience=keys.audience).verify(made)
    except CommandError as error:
        raise SetupError(f"A hub would refuse the token. {error.message}") from None
    print(made)
    return 0


def _secret(keys: Keys) -> str:
    if keys.secret is not None:
        return keys.secret
    if keys.public_key is not None:
        raise SetupError(
            "HUB_PUBLIC_KEY is one half of a key: tokens are made where the other half is. "
            "For tokens from here set HUB_SECRET, which a hub may have beside it."
        )
    raise SetupError("There is no HUB_SECRET to sign with. Make one with: openssl rand -base64 32")
