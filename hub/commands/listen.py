"""Listening to a hub."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from hub import client, fence, printer
from hub.commands.work import run
from hub.errors import CommandError, SetupError
from hub.settings import Settings


def listen(
    *names: Annotated[
        str, Parameter(name="CHANNEL", help="Channels to subscribe to, or patterns: quote 'orders.*' for the shell.")
    ],
    url: Annotated[str | None, Parameter(help="The hub's websocket; by default the one on this machine.")] = None,
    since: Annotated[str | None, Parameter(help="Begin behind this cursor.")] = None,
    last: Annotated[
        int | None,
        Parameter(help="Begin with the newest durable events, as many as this.", validator=Number(gte=1, lte=1000)),
    ] = None,
    within: Annotated[str | None, Parameter(help="Inside of this polygon, as GeoJSON.")] = None,
    bbox: Annotated[
        str | None, Parameter(help="Between these: west,south,east,north.", allow_leading_hyphen=True)
    ] = None,
    near: Annotated[
        str | None, Parameter(help="So near to a place: longitude,latitude,meters.", allow_leading_hyphen=True)
    ] = None,
    state: Annotated[
        Path | None, Parameter(help="Keep the cursor in this file, and go on from there if it has one.")
    ] = None,
    token: Annotated[
        str | None, Parameter(help="What the hub is to let you in by. On the command line all can see it.")
    ] = None,
    settings: Settings | None = None,
) -> int:
    """Print events as lines of JSON; word of losses goes to standard error."""
    settings = settings or Settings()
    if not names:
        raise SetupError("Name a channel: pghub listen orders")
    scheme = "wss" if settings.tls_cert else "ws"
    address = url or f"{scheme}://{settings.host}:{settings.port}/ws"
    if urlsplit(address).scheme not in ("ws", "wss"):
        raise SetupError(f"{address!r} is no websocket's address. One looks like ws://127.0.0.1:8080/ws.")
    if since is not None and last is not None:
        raise SetupError("--since and --last exclude each other: begin behind a cursor, or with the newest events.")
    if since is None and state is not None:
        since = printer.read_state(state)
    out = printer.Printer(state, resumed=since is not None)
    start: dict[str, Any] = {"since": since} if since is not None else {"last": last}
    start["token"] = token
    start["fence"] = _fence({"within": within, "bbox": bbox, "near": near})

    async def work() -> int:
        with printer.ending_between_messages():
            async with aclosing(client.follow(address, names, **start, on_lost=printer.tell_lost)) as messages:
                async for message in messages:
                    out.take(message)
        return 0

    return run(settings, work())


def _fence(said: dict[str, str | None]) -> dict[str, Any]:
    """As a command has it."""
    try:
        area = fence.parse((name, text) for name, text in said.items() if text is not None)
    except CommandError as error:
        raise SetupError(error.message) from None
    return {name: part for name, part in msgspec.to_builtins(area or fence.Area()).items() if part is not None}
