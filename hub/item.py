"""What is published over HTTP and loaded from files: an event as an object of JSON, one or many. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from hub import channels, protocol
from hub.errors import Code, CommandError

MAX_LINE: Final = protocol.MAX_PAYLOAD + protocol.MARGIN
"""Bytes of a line that is an event."""
MAX_ITEMS: Final = 1_000
"""Events of one array."""


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event to publish; one with a `key` is published once in 24 hours.

    `place` is GeoJSON, and then what somebody has read it to be.
    """

    channel: str
    payload: msgspec.Raw
    tags: Annotated[list[str], Meta(max_length=32)] = []
    place: Any = None
    key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None

    @property
    def text(self) -> str:
        """The payload."""
        return bytes(self.payload).decode()


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event to load, which goes by COPY and so can have no key."""

    channel: str
    payload: msgspec.Raw
    tags: Annotated[list[str], Meta(max_length=32)] = []
    place: Any = None


class _Placed(msgspec.Struct):
    place: Any = msgspec.UNSET


Spot = Callable[[Any], bytes]
"""Writes a place, as GeoJSON has it, as text that PostGIS reads. Raises CommandError."""

_FAILURES: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
_FIELD: Final = re.compile(r"(?:at `\$\.?|field `)([^`]*)`")
_item = msgspec.json.Decoder(Item)
_line = msgspec.json.Decoder(Line)
_array = msgspec.json.Decoder(list[msgspec.Raw])
_placed = msgspec.json.Decoder(_Placed)


def one(data: bytes) -> Item:
    """The event in `data`, JSON. Raises CommandError, with the field where it is one's, if it is none to publish."""
    return _checked(_decoded(_item, data))


def several(data: bytes) -> list[bytes]:
    """Each element of the array in `data`, for `one`. Raises CommandError where it is empty, too long, or no array."""
    found: list[bytes] = [bytes(raw) for raw in _decoded(_array, data)]
    if not found:
        raise CommandError(Code.BAD_REQUEST, "The array is empty.")
    if len(found) > MAX_ITEMS:
        message = f"The array has {len(found)} events; {MAX_ITEMS} are the most. NDJSON has no such limit."
        raise CommandError(Code.TOO_MANY, message)
    return found


def has_place(line: bytes) -> bool:
    """Whether the line of NDJSON is an object with `place`, be it null."""
    try:
        return _placed.decode(line).place is not msgspec.UNSET
    except _FAILURES:
        return False


def row(data: bytes, channel: str | None = None, spot: Spot | None = None) -> bytes:
    """The event in a line of NDJSON as COPY's text format has it: channel, payload, tags and, with a `spot`, place.

    With a `channel` the line is a payload for it. Raises CommandError as `one` does.
    """
    if not data or data.isspace():
        raise CommandError(Code.BAD_REQUEST, "The line is empty.")
    line = _decoded(_line, data) if channel is None else Line(channel, msgspec.Raw(data.strip()))
    item = _checked(Item(line.channel, line.payload, line.tags))
    tags = b"{%b}" % b",".join([_quoted(tag.encode()) for tag in item.tags])
    columns = [_escaped(item.channel.encode()), _escaped(bytes(item.payload)), _escaped(tags)]
    if spot is not None:
        columns.append(b"\\N" if line.place is None else spot(line.place))
    elif line.place is not None:
        message = "`place` comes too late: where some lines have one, the first has to say so, if only by null."
        raise CommandError(Code.BAD_PLACE, message, field="place")
    return b"\t".join(columns) + b"\n"


def channel_of(row: bytes) -> str:
    """The channel in what `row` has made."""
    return row.partition(b"\t")[0].replace(b"\\\\", b"\\").decode()


def _quoted(tag: bytes) -> bytes:
    """As an element of an array."""
    return b'"%b"' % tag.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _escaped(value: bytes) -> bytes:
    """As a column of COPY's text format."""
    value = value.replace(b"\\", b"\\\\").replace(b"\t", b"\\t")
    return value.replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def _decoded(decoder: Any, data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except _FAILURES as error:
        detail = str(error)[:200].encode(errors="replace").decode()
        found = _FIELD.search(detail) if isinstance(error, msgspec.ValidationError) else None
        what = "This is no event" if isinstance(error, msgspec.ValidationError) else "This is no JSON"
        raise CommandError(Code.BAD_REQUEST, f"{what}: {detail}.", field=found[1] or None if found else None) from None


def _checked(item: Item) -> Item:
    """Refuses what the log does not take, as far as can be told without it."""
    command = protocol.Publish(id=1, channel=item.channel, payload=item.payload, tags=item.tags, key=item.key)
    try:
        protocol.check_publish(command)
    except CommandError as error:
        field = "channel" if error.code is Code.BAD_CHANNEL else "payload"
        raise CommandError(error.code, error.message, field=field) from None
    except UnicodeError:
        raise CommandError(Code.BAD_REQUEST, "`payload` is no UTF-8.", field="payload") from None
    if channels.is_own(item.channel):
        message = f"Names that start with `$` or `hub_` are the hub's own: {item.channel!r}."
        raise CommandError(Code.FORBIDDEN, message, field="channel")
    return item
