"""An export: events of the log that go into a file, whole or not at all, or to whoever reads standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import IO, Final

from rich.console import Console
from rich.progress import FileSizeColumn, Progress, SpinnerColumn, TimeElapsedColumn, TransferSpeedColumn

from hub import earth, query
from hub.errors import CommandError, SetupError
from hub.fence import WAYS
from hub.postgres.connect import Connection
from hub.postgres.history import opened
from hub.postgres.places import Places
from hub.query import Query

_MOST: Final = 10**18  # events


def asked(channels: Sequence[str], tags: Sequence[str], **options: str | None) -> Query:
    """The query of the command's words. Raises SetupError for what is none."""
    parameters = [("channel", name) for name in channels] + [("tag", tag) for tag in tags]
    parameters += [(name.rstrip("_"), value) for name, value in options.items() if value is not None]
    try:
        fenced = any(options.get(way) for way in WAYS)
        geometry = earth.geometry() if fenced and earth.is_installed() else None
        return query.parse(parameters, limit=_MOST, geometry=geometry)
    except CommandError as error:
        raise SetupError(error.message) from None


async def write(connection: Connection, wanted: Query, out: IO[bytes], *, csv: bool) -> None:
    """Write all of it to `out`. Raises SetupError where the log cannot be read, OSError where `out` takes no more."""

    async def put(data: bytes) -> None:
        out.write(data)
        advance(len(data))

    try:
        with _progress(out) as advance:
            places = await Places.known(connection, earth.geometry if earth.is_installed() else None)
            async with opened(connection, wanted, places=places) as export:
                if gap := export.head.get("gap"):
                    print(f"pghub: a gap before the first event ({gap})", file=sys.stderr)
                if csv:
                    await export.copy(put)
                    return
                async with aclosing(export.batches()) as batches:
                    async for batch in batches:
                        await put(b"\n".join(batch) + b"\n")
    except CommandError as error:
        raise SetupError(error.message) from None


@contextmanager
def target(path: Path | None) -> Iterator[IO[bytes]]:
    """Where to write: standard output, or a file that takes the place of `path` when the block has ended well."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = path.resolve()  # a link stays one
    if path.exists() and not path.is_file():  # a device or a pipe is written to, and never replaced
        with _opened(path) as out:
            yield out
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with _opened(beside) as out:
            yield out
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("wb")
    except OSError as error:
        raise SetupError(f"The export cannot be written to {path.parent}: {error.strerror}.") from None


@contextmanager
def _progress(out: IO[bytes]) -> Iterator[Callable[[int], None]]:
    """Takes how many bytes were written; a person at a terminal sees that, who does not see the events themselves."""
    if not sys.stderr.isatty() or out.isatty():
        yield lambda _: None
        return
    columns = SpinnerColumn(), FileSizeColumn(), TransferSpeedColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda count: bar.advance(task, count)
