"""The wire, `pghub.v1`: commands that clients send, messages that the hub answers with. Pure: no sockets.

A message is one JSON object. Commands are strict (an unknown field is an error, since an older hub must not
ignore a newer client's filter); clients are asked to ignore what they do not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
import orjson
from msgspec import Meta

from hub import channels, cursor, fence, patterns
from hub.cursor import Cursor
from hub.errors import Code, CommandError
from hub.fence import Area, Near

SUBPROTOCOL: Final = "pghub.v1"
VERSION: Final = 1
MAX_MESSAGE: Final = 512 * 1024
"""Bytes of one message from the hub; only a single event may be larger."""
MARGIN: Final = 72 * 1024
"""Bytes of a message that are kept for what is not events: a cursor may be long while many transactions are open."""
MAX_NOTIFY: Final = 7999
"""Bytes of a NOTIFY's payload: Postgres's own limit."""
MAX_PAYLOAD: Final = 768 * 1024
"""Bytes of a durable event's payload, as Postgres writes it."""

Id = Annotated[int, Meta(ge=1, le=2**53 - 1)]


class _Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag=str.lower, kw_only=True):
    id: Id


class Auth(_Command, frozen=True):
    token: str


class Subscribe(_Command, frozen=True):
    channels: list[str]
    since: str | None = None
    last: Annotated[int, Meta(ge=1, le=1000)] | None = None
    ephemeral: bool = True
    within: Any = None
    bbox: tuple[float, float, float, float] | None = None
    near: Near | None = None

    @property
    def area(self) -> Area | None:
        """The fence that is asked for. Raises CommandError where it is said in more than one way."""
        return fence.only(Area(self.within, self.bbox, self.near))


class Unsubscribe(_Command, frozen=True):
    channels: list[str]


class Publish(_Command, frozen=True):
    channel: str
    payload: msgspec.Raw
    tags: Annotated[list[str], Meta(max_length=32)] = []
    durable: bool = True
    place: Any = None
    key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


class Ping(_Command, frozen=True):
    pass


Command = Auth | Subscribe | Unsubscribe | Publish | Ping

_decoder: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)


class _Identified(msgspec.Struct):
    id: Id | None = None


_identified = msgspec.json.Decoder(_Identified)


def decode(text: str) -> Command:
    """The command in `text`.

    Raises CommandError (`bad_request`) with the command's id where one can be read, and a sentence that
    names the field.
    """
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise CommandError(Code.BAD_REQUEST, _sentence(error), command_id=_id_of(text)) from None


def _id_of(text: str) -> int | None:
    try:
        return _identified.decode(text).id
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def _sentence(error: Exception) -> str:
    detail = str(error)[:200].encode(errors="replace").decode()
    if isinstance(error, msgspec.ValidationError):
        return f"The command is not understood: {detail.replace('Object', 'it').replace('$.', '')}."
    return f"The frame is no JSON object: {detail}."


def subscribe_from(query: Iterable[tuple[str, str]]) -> Subscribe:
    """The subscribe that stands in a URL: `?channel=orders&channel=audit&last=5`.

    Raises CommandError for parameters that a subscribe does not have, or has once only, and says which as its `field`.
    """
    names: list[str] = []
    options: dict[str, str] = {}
    fenced: list[tuple[str, str]] = []
    for key, value in query:
        if key == "channel":
            names.append(value)
        elif key in fence.WAYS:
            fenced.append((key, value))
        elif key in ("since", "last", "ephemeral") and key not in options:
            options[key] = value
        else:
            known = "`channel`, `since`, `last`, `ephemeral`, and one of `within`, `bbox` and `near`"
            message = f"The URL's query may have {known}, not {printable(key)!r}."
            raise CommandError(Code.BAD_REQUEST, message, field=printable(key))
    area = fence.parse(fenced) or Area()
    try:
        read = msgspec.convert({"type": "subscribe", "id": 1, "channels": names, **options}, Subscribe, strict=False)
        return msgspec.structs.replace(read, within=area.within, bbox=area.bbox, near=area.near)
    except msgspec.ValidationError as error:
        field = next((name for name in options if f"$.{name}`" in str(error)), None)
        raise CommandError(Code.BAD_REQUEST, _sentence(error), field=field) from None


def check_channels(names: Sequence[str], *, most: int) -> None:
    """Refuses names that are no channels, an empty list, and more than `most`."""
    if not names:
        raise CommandError(Code.BAD_REQUEST, "`channels` is empty; name at least one.", field="channel")
    if len(names) > most:
        raise CommandError(Code.TOO_MANY, f"`channels` has {len(names)} names; {most} are the most.", field="channel")
    faults = {printable(name): why for name in names if (why := patterns.fault(name))}
    if faults:
        name, why = next(iter(faults.items()))
        raise CommandError(
            Code.BAD_CHANNEL, f"The channel name {name!r} {why}.", channels=tuple(faults), field="channel"
        )


def check_replay(command: Subscribe) -> Cursor | None:
    """The cursor that `command` wants to go on from, if any; raises CommandError where it is none of a hub's."""
    if command.since is None:
        return None
    if command.last is not None:
        raise CommandError(Code.BAD_REQUEST, "`since` and `last` exclude each other; leave one out.", field="since")
    return parse_cursor(command.since, "since")


def parse_cursor(text: str, field: str) -> Cursor:
    """The cursor in `text`, which came as `field`; raises CommandError where it is none of a hub's."""
    try:
        return cursor.parse(text)
    except ValueError as error:
        raise CommandError(Code.BAD_REQUEST, f"`{field}`: {error}", field=field) from None


def printable(name: str) -> str:
    """`name` cut to a length that can be shown, and free of what JSON cannot carry."""
    return name[:100].encode(errors="replace").decode()


def check_publish(command: Publish) -> str:
    """The payload that `command` publishes; raises CommandError for what neither NOTIFY nor the log takes."""
    if why := channels.fault(command.channel):
        name = printable(command.channel)
        raise CommandError(Code.BAD_CHANNEL, f"The channel name {name!r} {why}.", channels=(name,))
    if not command.durable and (command.tags or command.key is not None or command.place is not None):
        field = "tags" if command.tags else "key" if command.key is not None else "place"
        message = f'`{field}` goes with durable events only; leave it out beside "durable":false.'
        raise CommandError(Code.BAD_REQUEST, message)
    payload = bytes(command.payload)
    most = MAX_PAYLOAD if command.durable else MAX_NOTIFY
    if len(payload) > most:
        kind = "an event carries" if command.durable else "a NOTIFY carries"
        raise CommandError(Code.TOO_LARGE, f"`payload` has {len(payload)} bytes; {kind} {most} at the most.")
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise CommandError(Code.BAD_REQUEST, f"`payload` is no JSON: {error}.") from None
    return payload.decode()


def welcome(**fields: Any) -> bytes:
    return orjson.dumps({"type": "welcome", "protocol": VERSION, **fields})


def authenticated(command_id: int, subject: str | None, expires: float | None) -> bytes:
    """`expires` is in seconds since 1970."""
    until = None if expires is None else datetime.fromtimestamp(expires, UTC)
    fields = {"type": "authenticated", "id": command_id, "subject": subject, "expires": until}
    return orjson.dumps(fields, option=orjson.OPT_UTC_Z)


def subscribed(
    command_id: int, names: Sequence[str], cursor: str, *, recovered: bool, ephemeral: Sequence[str]
) -> bytes:
    fields = {"type": "subscribed", "id": command_id, "channels": names, "cursor": cursor}
    return orjson.dumps(fields | {"recovered": recovered, "ephemeral": ephemeral})


def unsubscribed(command_id: int, names: Sequence[str]) -> bytes:
    return orjson.dumps({"type": "unsubscribed", "id": command_id, "channels": names})


def published(command_id: int, event: int | None) -> bytes:
    return orjson.dumps({"type": "published", "id": command_id, "event": event})


def pong(command_id: int) -> bytes:
    return b'{"type":"pong","id":%d}' % command_id


def heartbeat(cursor: str | None) -> bytes:
    return b'{"type":"cursor"}' if cursor is None else b'{"type":"cursor","cursor":"%b"}' % cursor.encode()


def gap(
    names: Iterable[str], reason: str, dropped: int | None, cursor: str | None = None, replay: int | None = None
) -> bytes:
    fields: dict[str, Any] = {"type": "gap", "channels": sorted(names), "reason": reason, "dropped": dropped}
    if replay is not None:
        fields["for"] = replay
    if cursor is not None:
        fields["cursor"] = cursor
    return orjson.dumps(fields)


def error(refusal: CommandError) -> bytes:
    fields = {"type": "error", "id": refusal.command_id, "code": refusal.code, "message": refusal.message}
    return orjson.dumps(fields | ({"channels": refusal.channels} if refusal.channels else {}))


def events(encoded: Sequence[bytes], cursor: str | None = None, replay: int | None = None) -> bytes:
    """The `events` message that carries these encoded events, in order.

    `cursor` is the position behind them, `replay` the subscribe that asked for them; neither needs escaping.
    """
    head = b'{"type":"events","events":[' if replay is None else b'{"type":"events","for":%d,"events":[' % replay
    tail = b"]}" if cursor is None else b'],"cursor":"%b"}' % cursor.encode()
    return head + b",".join(encoded) + tail
