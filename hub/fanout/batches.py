"""Batches on their way to a group: what they brought, and the frames that they become."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hub import protocol
from hub.cursor import Cursor
from hub.event import Event
from hub.fanout.framing import Message


class Batch(NamedTuple):
    """What arrived together. `before` and `after` are the log's positions around it: equal if nothing durable came.

    `at` is when its first event was published, or a NOTIFY came, in seconds since 1970.
    """

    number: int
    before: Cursor
    after: Cursor
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Gap:
    """Word of a loss, in its place among the events. `dropped` is None where nobody counted.

    `cursor` is where the log goes on, if the loss concerns what is durable.
    """

    channels: frozenset[str]
    reason: str
    dropped: int | None = None
    cursor: Cursor | None = None


Item = tuple[Batch, Event | Gap]
"""What a group has to write, and the batch that brought it."""


def pack(items: Sequence[Item], frame: Callable[[bytes, str | None], bytes]) -> bytes:
    """The bytes for `items`, made by `frame`: neighbouring events share a message, a gap is one of its own.

    Items of one batch stand together, and all that a group gets of a batch is among them.
    """
    if len(items) == 1 and isinstance(items[0][1], Event):
        return frame(*_message(items, None))
    messages: list[Message] = []
    run: list[Item] = []
    size = 0
    for item in items:
        batch, what = item
        if isinstance(what, Gap):
            if run:
                messages.append(_message(run, batch))
            messages.append(gap(what))
            run, size = [], 0
            continue
        if run and size + len(what.json) > protocol.MAX_MESSAGE - protocol.MARGIN:
            messages.append(_message(run, batch))
            run, size = [], 0
        run.append(item)
        size += len(what.json) + 1
    if run:
        messages.append(_message(run, None))
    return b"".join([frame(*message) for message in messages])


def gap(told: Gap, replay: int | None = None) -> Message:
    """The message of a gap; `replay` is the subscribe whose replay it is in."""
    cursor = None if told.cursor is None else str(told.cursor)
    return protocol.gap(told.channels, told.reason, told.dropped, cursor, replay), cursor


def _message(run: Sequence[Item], following: Batch | None) -> Message:
    cursor = _cursor(run, following)
    return protocol.events([item.json for _, item in run if isinstance(item, Event)], cursor), cursor


def _cursor(run: Iterable[Item], following: Batch | None) -> str | None:
    """The position behind the last durable event of `run`; `following` is the batch of what comes next.

    If that is the same batch, its events were cut in two, and who stops here goes on inside it.
    """
    for batch, item in reversed(tuple(run)):
        if isinstance(item, Event) and item.id:
            if batch is following:
                return str(batch.before.inside(batch.after, item.id))
            return str(batch.after)
    return None
