"""What a subscribe has to pass before it comes to the fan-out, whoever asks for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hub import channels
from hub.errors import Code, CommandError
from hub.fence import MOST_OF_CLIENT
from hub.selection import Selection
from hub.web.ports import Listening


def check_readable(names: Iterable[str]) -> None:
    """Refuse the hub's own names, but for what it reports on itself."""
    for name in names:
        if channels.is_own(name) and name != channels.STATS:
            raise own(name)


def check_fences(wanted: Selection) -> None:
    """Refuse more fences than a client may have."""
    points = sum(fence.points for fence in {fence for _, fence in wanted.fences})
    if points > MOST_OF_CLIENT:
        message = f"The fences of this client have {points} points; {MOST_OF_CLIENT} are the most."
        raise CommandError(Code.TOO_MANY, message)


def own(name: str) -> CommandError:
    """The refusal of a name that is the hub's own."""
    message = f"Names that start with `$` or `hub_` are the hub's own: {name!r}."
    return CommandError(Code.FORBIDDEN, message, channels=(name,), field="channel")


async def hold(listener: Listening, names: Collection[str]) -> None:
    """Have `listener` hold `names`, all or none, and return when all are listened to."""
    held: list[str] = []
    try:
        for name in names:
            listener.hold(name)
            held.append(name)
        await listener.listening(names)
    except BaseException:
        for name in held:
            listener.release(name)
        raise
