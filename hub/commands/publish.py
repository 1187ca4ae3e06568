"""Publishing one event, of words that a shell hands over."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from hub import channels, event, protocol, source
from hub.commands.work import database, run
from hub.errors import SetupError
from hub.postgres import once
from hub.postgres.connect import connected
from hub.settings import Database


def publish(
    channel: str,
    payload: Annotated[
        str, Parameter(help="JSON, or any text, which becomes a JSON string.", allow_leading_hyphen=True)
    ],
    *,
    tag: Annotated[list[str] | None, Parameter(help="A word to select by; may be given again.", negative="")] = None,
    key: Annotated[str | None, Parameter(help="Publishes once only, however often it is used within 24 hours.")] = None,
    place: Annotated[
        str | None,
        Parameter(help="Where it happens: GeoJSON, WKT, or longitude,latitude.", allow_leading_hyphen=True),
    ] = None,
    notify: Annotated[bool, Parameter(help="Send a NOTIFY, which nobody stores, instead.", negative="")] = False,
    settings: Database | None = None,
) -> int:
    """Publish one durable event, straight to the database, and print its id."""
    settings = settings or Database()
    tags = tag or []
    if notify and (tags or key is not None or place is not None):
        raise SetupError("--tag, --key and --place go with durable events only; leave them out beside --notify.")
    check_channel(channel)
    _check_texts({"payload": payload, "key": key or "", "tag": "".join(tags), "place": place or ""})
    text = payload if notify else event.as_json(payload).decode()
    _check_size(text, notify=notify)

    async def work() -> int:
        async with (
            database(settings) as url,
            connected(source.target(settings, url), purpose="publish") as connection,
        ):
            if notify:
                await once.notify(connection, channel, text)
            else:
                print(await once.publish(connection, channel, text, tags, key, place))
        return 0

    return run(settings, work())


def check_channel(name: str) -> None:
    if why := channels.fault(name):
        raise SetupError(f"The channel name {name!r} {why}.")
    if channels.is_own(name):
        raise SetupError(f"Names that start with `$` or `hub_` are the hub's own: {name!r}. Choose another one.")


def _check_texts(texts: dict[str, str]) -> None:
    """Bytes that are no UTF-8 come out of the shell as lone surrogates."""
    for what, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise SetupError(f"The {what} is no UTF-8, which Postgres needs.") from None


def _check_size(payload: str, *, notify: bool) -> None:
    size, most = len(payload.encode()), protocol.MAX_NOTIFY if notify else protocol.MAX_PAYLOAD
    if size > most:
        kind, way_out = ("a NOTIFY", " Publish it without --notify.") if notify else ("an event", "")
        raise SetupError(f"The payload has {size} bytes; {kind} carries {most} at the most.{way_out}")
