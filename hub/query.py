"""A query: which events of the log somebody wants, as a value, and as the parameters that ask for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from hub import channels, cursor, fence, patterns
from hub.cursor import Cursor
from hub.errors import Code, CommandError
from hub.fence import WAYS, Fence, Geometry
from hub.selection import EMPTY, Selection, select

MOST_CHANNELS: Final = 1_000
MOST_TAGS: Final = 32
MOST_LAST: Final = 1_000

_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Query:
    """The events of `selection`, of all channels if it is empty, that have any of `tags`, if there are some.

    Behind `since`, up to what `until` has seen, published from `begin` on and before `end`; of these the newest `last`;
    of those no more than `limit`, the oldest first. Only those that happened inside `fence`. None stands for no bound.
    """

    selection: Selection = EMPTY
    tags: tuple[str, ...] = ()
    since: Cursor | None = None
    until: Cursor | None = None
    begin: datetime | None = None
    end: datetime | None = None
    last: int | None = None
    limit: int | None = None
    fence: Fence | None = None

    def __post_init__(self) -> None:
        """Raises CommandError for what contradicts itself."""
        if self.since is not None and self.last is not None:
            raise _refusal("last", "`since` and `last` exclude each other: begin behind a cursor, or with the newest.")
        if self.begin is not None and self.end is not None and self.begin > self.end:
            raise _refusal("to", "`to` is before `from`.")


def parse(parameters: Iterable[tuple[str, str]], *, limit: int, geometry: Geometry | None = None) -> Query:
    """The query that `parameters` ask for; `limit` is the greatest that may be asked for.

    Raises CommandError with the parameter's name as field.
    """
    given: dict[str, list[str]] = {}
    fenced: list[tuple[str, str]] = []
    for name, value in parameters:
        if name in WAYS:
            fenced.append((name, value))
            continue
        if name not in _PARAMETERS:
            raise _refusal(name, f"There is no parameter {name!r} here.")
        given.setdefault(name, []).append(value)
    found: dict[str, Any] = {
        "selection": select(_channels(given.pop("channel", []))),
        "tags": _tags(given.pop("tag", [])),
        "fence": fence.made(fence.parse(fenced), geometry),
    }
    for name, values in given.items():
        if len(values) > 1:
            raise _refusal(name, f"`{name}` can be given only once.")
        field, read = _SINGLE[name]
        found[field] = read(name, values[0], limit)
    return Query(**found)


def _channels(names: list[str]) -> list[str]:
    if len(names) > MOST_CHANNELS:
        raise _refusal("channel", f"These are {len(names)} channels; {MOST_CHANNELS} are the most.")
    for name in names:
        if why := patterns.fault(name):
            raise CommandError(Code.BAD_CHANNEL, f"The channel name {name!r} {why}.", channels=(name,), field="channel")
        if channels.is_own(name):
            text = f"Names that start with `$` or `hub_` are the hub's own, and not in the log: {name!r}."
            raise CommandError(Code.FORBIDDEN, text, channels=(name,), field="channel")
    return names


def _tags(tags: list[str]) -> tuple[str, ...]:
    if len(tags) > MOST_TAGS:
        raise _refusal("tag", f"These are {len(tags)} tags; {MOST_TAGS} are the most.")
    for tag in tags:
        if "\0" in tag or any("\ud800" <= character <= "\udfff" for character in tag):
            raise _refusal("tag", f"The tag {tag!r} is none that Postgres can store.")
    return tuple(dict.fromkeys(tags))


def _cursor(name: str, text: str, _limit: int) -> Cursor:
    try:
        return cursor.parse(text)
    except ValueError as error:
        raise _refusal(name, str(error)) from None


def _time(name: str, text: str, _limit: int) -> datetime:
    """The moment that ISO 8601 writes so, in UTC if it does not say where."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _refusal(name, f"`{name}` is no time as 2026-11-22T09:00:00Z is one; write + as %2B.") from None


def _last(name: str, text: str, _limit: int) -> int:
    return _number(name, text, MOST_LAST)


def _number(name: str, text: str, most: int) -> int:
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        raise _refusal(name, f"`{name}` is a whole number from 1 to {most}.")
    return int(text)


def _refusal(field: str, message: str) -> CommandError:
    return CommandError(Code.BAD_REQUEST, message, field=field)


_SINGLE: Final = {
    "since": ("since", _cursor),
    "until": ("until", _cursor),
    "from": ("begin", _time),
    "to": ("end", _time),
    "last": ("last", _last),
    "limit": ("limit", _number),
}
_PARAMETERS: Final = {"channel", "tag", *_SINGLE}
