"""A file that is loaded: read in pieces that never keep the loop, with a bar that says how far it is."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from hub.errors import CommandError, SetupError, UncertainError

_CHUNK: Final = 256 * 1024  # bytes
_STDIN: Final = 0


@dataclass(frozen=True, slots=True)
class File:
    """A file to read. `size` is in bytes, None where nobody knows it; one that `waits` has no more to read at times."""

    descriptor: int
    size: int | None
    waits: bool


@contextmanager
def opened(name: str) -> Iterator[File]:
    """The file of that name, or standard input for `-`. Raises SetupError where it cannot be opened."""
    try:
        descriptor = _STDIN if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(descriptor)
    except OSError as error:
        raise SetupError(f"The file {name!r} cannot be read: {error.strerror}.") from None
    regular = stat.S_ISREG(found.st_mode)
    waits = stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode) or os.isatty(descriptor)
    try:
        yield File(descriptor, found.st_size if regular else None, waits)
    finally:
        if descriptor != _STDIN:
            os.close(descriptor)


@contextmanager
def progress(file: File) -> Iterator[AsyncGenerator[bytes]]:
    """What `file` has, to be read once; a person at a terminal sees how far that is, how fast, and when it will end."""
    if not sys.stderr.isatty():
        yield _chunks(file, lambda _: None)
        return
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=file.size)
        yield _chunks(file, lambda count: bar.advance(task, count))


def sentence(name: str, error: CommandError) -> str:
    """What a person is told."""
    place = "" if error.field is None else f"{'standard input' if name == '-' else name}, {error.field}: "
    end = "" if isinstance(error, UncertainError) else " Nothing was loaded."
    return f"{place}{' '.join(error.message.split())}{end}"


async def _chunks(file: File, advance: Callable[[int], None]) -> AsyncGenerator[bytes]:
    while True:
        if file.waits:
            await _readable(file.descriptor)  # a thread that waits in read() would outlive Ctrl-C
        try:
            chunk = await asyncio.to_thread(os.read, file.descriptor, _CHUNK)
        except OSError as error:
            raise SetupError(f"The file cannot be read: {error.strerror}. Nothing was loaded.") from None
        if not chunk:
            return
        advance(len(chunk))
        yield chunk


async def _readable(descriptor: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
