"""The wire, `pghub.v1`: commands that clients send, messages that the hub answers with. Pure: no sockets.

A message is one JSON object. Commands are strict (an unknown field is an error, since an older hub must not
ignore a newer client's filter); clients are asked to ignore what they do not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

import msgspec
import orjson
from msgspec import Meta

from hub import channels
from hub.errors import Code, CommandError

SUBPROTOCOL: Final = "pghub.v1"
VERSION: Final = 1
MAX_MESSAGE: Final = 512 * 1024
"""Bytes of one message from the hub; only a single event may be larger."""
MAX_NOTIFY: Final = 7999
"""Bytes of a NOTIFY's payload: Postgres's own limit."""

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


class Unsubscribe(_Command, frozen=True):
    channels: list[str]


class Publish(_Command, frozen=True):
    channel: str
    payload: msgspec.Raw
    tags: list[str] = []
    durable: bool = True
    key: str | None = None


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

    Raises CommandError for parameters that a subscribe does not have, or has once only.
    """
    names: list[str] = []
    options: dict[str, str] = {}
    for key, value in query:
        if key == "channel":
            names.append(value)
        elif key in ("since", "last") and key not in options:
            options[key] = value
        else:
            message = f"The URL's query may have `channel`, `since` and `last`, not {printable(key)!r}."
            raise CommandError(Code.BAD_REQUEST, message)
    try:
        return msgspec.convert({"type": "subscribe", "id": 1, "channels": names, **options}, Subscribe, strict=False)
    except msgspec.ValidationError as error:
        raise CommandError(Code.BAD_REQUEST, _sentence(error)) from None


def check_channels(names: Sequence[str], *, most: int) -> None:
    """Refuses names that are no channels, an empty list, and more than `most`."""
    if not names:
        raise CommandError(Code.BAD_REQUEST, "`channels` is empty; name at least one.")
    if len(names) > most:
        raise CommandError(Code.TOO_MANY, f"`channels` has {len(names)} names; {most} are the most.")
    for name in names:
        if channels.is_pattern(name):
            message = f"{printable(name)!r} is a pattern; this hub has no log to match it with."
            raise CommandError(Code.UNSUPPORTED, message, channels=(printable(name),))
    faults = {printable(name): why for name in names if (why := channels.fault(name))}
    if faults:
        name, why = next(iter(faults.items()))
        raise CommandError(Code.BAD_CHANNEL, f"The channel name {name!r} {why}.", channels=tuple(faults))


def check_supported(command: Subscribe) -> None:
    """Refuses what takes a log to answer."""
    for field, given in (
        ("since", command.since is not None),
        ("last", command.last is not None),
        ("ephemeral", not command.ephemeral),
    ):
        if given:
            raise CommandError(Code.UNSUPPORTED, f"`{field}` is about durable events, which this hub has none of.")


def printable(name: str) -> str:
    """`name` cut to a length that can be shown, and free of what JSON cannot carry."""
    return name[:100].encode(errors="replace").decode()


def check_ephemeral(command: Publish) -> str:
    """The text of the NOTIFY that `command` asks for; raises CommandError where NOTIFY cannot carry it."""
    if command.durable:
        message = 'This hub has no log for durable events; send "durable":false for a NOTIFY.'
        raise CommandError(Code.UNSUPPORTED, message)
    if command.tags or command.key is not None:
        field = "tags" if command.tags else "key"
        message = f'`{field}` goes with durable events only; leave it out beside "durable":false.'
        raise CommandError(Code.BAD_REQUEST, message)
    payload = bytes(command.payload)
    if len(payload) > MAX_NOTIFY:
        message = f"`payload` has {len(payload)} bytes; a NOTIFY carries {MAX_NOTIFY} at the most."
        raise CommandError(Code.TOO_LARGE, message)
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise CommandError(Code.BAD_REQUEST, f"`payload` is no JSON: {error}.") from None
    return payload.decode()


def welcome(**fields: Any) -> bytes:
    return orjson.dumps({"type": "welcome", "protocol": VERSION, **fields})


def subscribed(command_id: int, names: Sequence[str], ephemeral: Sequence[str]) -> bytes:
    return orjson.dumps(
        {"type": "subscribed", "id": command_id, "channels": names, "recovered": True, "ephemeral": ephemeral}
    )


def unsubscribed(command_id: int, names: Sequence[str]) -> bytes:
    return orjson.dumps({"type": "unsubscribed", "id": command_id, "channels": names})


def published(command_id: int, event: int | None) -> bytes:
    return orjson.dumps({"type": "published", "id": command_id, "event": event})


def pong(command_id: int) -> bytes:
    return b'{"type":"pong","id":%d}' % command_id


def heartbeat() -> bytes:
    return b'{"type":"cursor"}'


def gap(names: Iterable[str], reason: str, dropped: int | None) -> bytes:
    return orjson.dumps({"type": "gap", "channels": sorted(names), "reason": reason, "dropped": dropped})


def error(refusal: CommandError) -> bytes:
    fields = {"type": "error", "id": refusal.command_id, "code": refusal.code, "message": refusal.message}
    return orjson.dumps(fields | ({"channels": refusal.channels} if refusal.channels else {}))


def events(encoded: Sequence[bytes]) -> list[bytes]:
    """The `events` messages that carry these encoded events in order.

    One message, or more where it would have over MAX_MESSAGE bytes.
    """
    if len(encoded) == 1:
        return [_events(encoded)]
    messages: list[bytes] = []
    start, size = 0, 0
    for index, item in enumerate(encoded):
        if size + len(item) > MAX_MESSAGE - 64 and index > start:
            messages.append(_events(encoded[start:index]))
            start, size = index, 0
        size += len(item) + 1
    messages.append(_events(encoded[start:]))
    return messages


def _events(encoded: Sequence[bytes]) -> bytes:
    return b'{"type":"events","events":[' + b",".join(encoded) + b"]}"
