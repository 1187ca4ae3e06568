"""What `pghub listen` prints, and the file in which it keeps how far it got."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hub import client
from hub.errors import SetupError

_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]+")


def read_state(path: Path) -> str | None:
    """The cursor that was kept in the file `path`, None where there is no such file."""
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        if path.absolute().parent.is_dir():
            return None
        raise SetupError(f"The state cannot be kept in {path}: there is no such folder. Make it first.") from None
    except OSError as error:
        raise SetupError(f"The state in {path} cannot be read: {error.strerror}. Name another file.") from None
    except UnicodeDecodeError:
        text = ""
    if not _CURSOR.fullmatch(text):
        raise SetupError(f"The file {path} holds no cursor. Remove it to begin anew, or give a cursor with --since.")
    _say(f"going on from {path}")
    return text


def _write_state(path: Path, cursor: str) -> None:
    """Put `cursor` into the file `path`, in one step: who is killed leaves the old one or the new one."""
    path = path.resolve()  # a link stays one
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_text(f"{cursor}\n", "ascii")
        beside.replace(path)
    except OSError as error:
        raise SetupError(f"The state cannot be kept in {path}: {error.strerror}.") from None


@contextlib.contextmanager
def ending_between_messages() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, where it waits, and quietly; a second one ends the program at once."""
    task, running, asked = asyncio.current_task(), asyncio.get_running_loop(), False
    assert task is not None

    def terminate(*_: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        running.call_soon_threadsafe(task.cancel)

    # Not the loop's own handler, which would never run while a reader keeps us waiting in a write.
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except asyncio.CancelledError:
        if not asked:
            raise


def _say(text: str) -> None:
    print(f"pghub: {text}", file=sys.stderr)


def tell_lost(loss: client.Lost) -> None:
    _say(f"{loss.reason}; trying again in {loss.delay:.1f} s")


class Printer:
    """Prints what a client gets and then, not before it is out, keeps the cursor in the file `state`."""

    def __init__(self, state: Path | None, *, resumed: bool) -> None:
        self._state = state
        self._resumed = resumed  # there is a cursor that it went on from

    def take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "events":
                sys.stdout.buffer.write(b"".join(event + b"\n" for event in message["events"]))
                sys.stdout.buffer.flush()
            case "gap":
                _say(_loss(message))
            case "subscribed":
                _say(self._arrival(message))
        if self._state is not None and (cursor := message.get("cursor")):
            _write_state(self._state, cursor)

    def _arrival(self, message: dict[str, Any]) -> str:
        resumed, self._resumed = self._resumed, True
        text = f"listening to {', '.join(message['channels'])}"
        if not resumed:
            return text
        if not message["recovered"]:
            return f"{text} again"
        return f"{text} again, nothing lost{' but NOTIFYs' if message['ephemeral'] else ''}"


def _loss(gap: dict[str, Any]) -> str:
    """What a gap means to a person."""
    concerned = ", ".join(gap["channels"])
    match gap["reason"]:
        case "expired":
            return f"events of {concerned} before those that follow were deleted by retention"
        case "reset":
            return f"the log is another one: what was not read of {concerned} is lost, and what follows begins anew"
        case "failover":
            return f"Postgres lost what it had confirmed: events of {concerned} may come again"
    count = "events" if gap["dropped"] is None else f"{gap['dropped']} events"
    return f"{count} of {concerned} were lost ({gap['reason']})"
