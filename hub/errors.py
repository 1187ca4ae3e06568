"""What can go wrong, as one tree; and the close codes, as one table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """The `code` of an `error` frame or of a request's error; each has its row in README."""

    BAD_REQUEST = "bad_request"
    BAD_CHANNEL = "bad_channel"
    BAD_PLACE = "bad_place"
    UNSUPPORTED = "unsupported"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    UPGRADE_REQUIRED = "upgrade_required"
    WRONG_HOST = "wrong_host"
    FORBIDDEN_ORIGIN = "forbidden_origin"
    STALLED = "stalled"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    CANCELLED = "cancelled"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class HubError(Exception):
    """The root of all errors that the hub raises on purpose."""


class SetupError(HubError):
    """The hub cannot do what it was started for.

    Its text is for the person at the terminal: what is wrong in one sentence, then what to do next.
    """


class CommandError(HubError):
    """A client's command, or a request, was refused; the connection goes on.

    `command_id` is the id to answer with, None where none could be read. `channels` are the offending ones, `field` is
    what is wrong in a request.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        command_id: int | None = None,
        channels: tuple[str, ...] = (),
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.command_id = command_id
        self.channels = channels
        self.field = field


class UncertainError(CommandError):
    """What was asked for may have been done or not: the connection to Postgres was lost when it was."""


@dataclass(frozen=True, slots=True)
class Close:
    """A websocket close code: when the hub sends it, and whether a client is to come back."""

    code: int
    reason: str
    reconnect: bool


DRAIN = Close(1001, "the hub is going away", reconnect=True)
PROTOCOL = Close(1002, "a frame against the rules of websockets", reconnect=False)  # sent by aiohttp
BINARY = Close(1003, "only text frames, please", reconnect=False)
NOT_UTF8 = Close(1007, "a text frame has to be UTF-8", reconnect=False)
TOO_MANY_ERRORS = Close(1008, "ten errors in ten seconds", reconnect=False)
DISMISSED = Close(1008, "disconnected by an operator", reconnect=False)
TOO_BIG = Close(1009, "the frame is over the limit", reconnect=False)
INTERNAL = Close(1011, "an error inside the hub", reconnect=True)
UNAUTHENTICATED = Close(4401, "no good token came in time", reconnect=False)
NOTHING_GRANTED = Close(4403, "the token grants nothing", reconnect=False)
STALLED = Close(4408, "nothing was read for too long", reconnect=True)
IDLE = Close(4408, "no subscription, and no command for too long", reconnect=True)
TOO_MANY = Close(4429, "too many connections", reconnect=True)
TOO_FAST = Close(4429, "too many messages a second", reconnect=True)
EXPIRED = Close(4440, "the token has expired", reconnect=True)

CLOSE_CODES = (
    DRAIN,
    PROTOCOL,
    BINARY,
    NOT_UTF8,
    TOO_MANY_ERRORS,
    DISMISSED,
    TOO_BIG,
    INTERNAL,
    UNAUTHENTICATED,
    NOTHING_GRANTED,
    STALLED,
    IDLE,
    TOO_MANY,
    TOO_FAST,
    EXPIRED,
)
