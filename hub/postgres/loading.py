"""COPY into the log: any number of events in one transaction, with as much memory as a line of them takes."""

from __future__ import annotations

import asyncio
import csv
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import asyncpg

from hub import fence, item
from hub.errors import Code, CommandError, HubError, UncertainError
from hub.item import Spot
from hub.postgres.acquired import FAILURES
from hub.postgres.connect import Connection
from hub.postgres.places import Places
from hub.postgres.publisher import is_silence, refusal

Chunks: TypeAlias = "AsyncIterator[bytes]"
Check: TypeAlias = "Callable[[Sequence[str]], Awaitable[None]]"

COLUMNS: Final = ("channel", "payload", "tags")
PLACE: Final = "place"
_LONG: Final = 7 * 86_400.0  # seconds, for asyncpg would end it after its own: whoever sends bounds each wait
_REMEMBERED: Final = 10_000  # channels
_UNCERTAIN: Final = (
    "The connection to Postgres was lost at the end: all events may have been published, or none. See which before "
    "you try again."
)
_LINE: Final = re.compile(r"^COPY (?:events|placed), line (\d+)", re.MULTILINE)


async def copy_lines(
    connection: Connection,
    chunks: Chunks,
    channel: str | None = None,
    check: Check | None = None,
    places: Places | None = None,
) -> int:
    """Publish all lines of NDJSON or none, each an event as hub/item.py reads it; returns how many.

    Lines may have a place if the first one has; they take some five times as long.

    With a `channel` each line is a payload for it. All channels go through `check` before they are written to. Raises
    CommandError, whose field says which line is bad; and what `chunks` raises, which is to be a HubError: an OSError
    would pass for one of the connection.
    """
    head, rest = await _begun(chunks)
    spot = None
    if channel is None and item.has_place(head.partition(b"\n")[0]):
        places = places or Places()
        places.needed()
        spot = places.spot
    columns = COLUMNS if spot is None else (*COLUMNS, PLACE)
    return await _copy(connection, _rows(rest, channel, check, spot), columns)


async def copy_csv(connection: Connection, chunks: Chunks) -> int:
    """The same for CSV, which goes to Postgres as it is; its first line names the columns it has, in their order.

    A line is one of the file, the first one counts. `tags` are an array as Postgres writes it, `{a,b}`, and `place` is
    whatever PostGIS reads: WKT, EWKB in hexadecimal, GeoJSON.
    """
    head, rest = await _begun(chunks)
    return await _copy(connection, rest, _columns(head), format="csv", header=True)


async def _begun(chunks: Chunks) -> tuple[bytes, Chunks]:
    """What has the first line, if that is not too long, and then all."""
    head = b""
    async for chunk in chunks:
        head += chunk
        if b"\n" in chunk or len(head) > item.MAX_LINE:
            break
    return head, _chained(head, chunks)


async def _copy(connection: Connection, source: Chunks, columns: Sequence[str], **form: Any) -> int:
    lost, committing = asyncio.Event(), False
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = 0")
            if connection.get_server_version().major >= 17:
                await connection.execute("SET LOCAL transaction_timeout = 0")
            there = _while_there(connection, source, lost)
            status = await connection.copy_to_table(
                "placed" if PLACE in columns else "events",
                schema_name="hub",
                columns=columns,
                source=there,
                timeout=_LONG,
                **form,
            )
            committing = True
    except FAILURES as error:
        if committing and is_silence(error):
            raise UncertainError(Code.UNAVAILABLE, _UNCERTAIN) from error
        if isinstance(error.__context__, HubError):  # which says more than that nothing can be rolled back now
            raise error.__context__ from None
        if lost.is_set():
            raise CommandError(Code.UNAVAILABLE, "The connection to Postgres was lost; try again.") from error
        raise _explained(error) from error
    return int(status.split()[1])


async def _while_there(connection: Connection, source: Chunks, lost: asyncio.Event) -> AsyncGenerator[bytes]:
    """What `source` has. Raises ConnectionError, and sets `lost`, once the connection is lost.

    asyncpg itself would not see that before the next piece comes, which may be never.
    """

    def lose(_connection: object) -> None:
        lost.set()

    connection.add_termination_listener(lose)
    losing = asyncio.create_task(lost.wait(), name="load lost")
    try:
        while (piece := await _first(source, losing)) is not None:
            yield piece
    finally:
        losing.cancel()
        with suppress(asyncpg.InterfaceError):  # a pool has taken back what was lost
            connection.remove_termination_listener(lose)


async def _first(source: Chunks, losing: asyncio.Task[Any]) -> bytes | None:
    """The next piece, None behind the last one."""
    coming = asyncio.ensure_future(anext(source, None))
    try:
        await asyncio.wait((coming, losing), return_when=asyncio.FIRST_COMPLETED)
        if losing.done():
            raise ConnectionResetError("the connection to Postgres was lost")
        return coming.result()
    except BaseException:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        raise


async def _rows(chunks: Chunks, channel: str | None, check: Check | None, spot: Spot | None) -> AsyncGenerator[bytes]:
    """What COPY is to read, about as much at a time as there comes in."""
    number, rest, checked = 0, b"", _Checked(check)
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            rows = [_row(line, place, channel, spot) for place, line in enumerate(lines, number + 1)]
            await checked.see(rows, number + 1)
            yield b"".join(rows)
            number += len(lines)
        if len(rest) > item.MAX_LINE:
            message = f"The line has more than {item.MAX_LINE} bytes."
            raise CommandError(Code.TOO_LARGE, message, field=f"line {number + 1}")
    if rest:
        last = _row(rest, number + 1, channel, spot)
        await checked.see([last], number + 1)
        yield last


class _Checked:
    """Has each channel checked once, as far as it can be remembered."""

    def __init__(self, check: Check | None) -> None:
        self._check = check
        self._seen: set[str] = set()

    async def see(self, rows: Sequence[bytes], number: int) -> None:
        """Check the channels of `rows`, of which the first is line `number`."""
        if self._check is None:
            return
        found: dict[str, int] = {}
        for place, row in enumerate(rows, number):
            found.setdefault(item.channel_of(row), place)
        new = [name for name in found if name not in self._seen]
        try:
            await self._check(new)
        except CommandError as error:
            place = min((found[name] for name in error.channels if name in found), default=number)
            raise CommandError(error.code, error.message, channels=error.channels, field=f"line {place}") from None
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        self._seen.update(new)


def _row(line: bytes, number: int, channel: str | None, spot: Spot | None) -> bytes:
    try:
        return item.row(line, channel, spot)
    except CommandError as error:
        name = "" if error.field is None or channel is not None else f"{error.field}: "
        raise CommandError(error.code, name + error.message, field=f"line {number}") from None


async def _chained(head: bytes, chunks: Chunks) -> AsyncGenerator[bytes]:
    yield head
    async for chunk in chunks:
        yield chunk


def _columns(head: bytes) -> list[str]:
    """Those that the first line names."""
    first = head.partition(b"\n")[0].decode("utf-8-sig", errors="replace").rstrip("\r")
    names = next(csv.reader([first]), [])
    if set(names) - {*COLUMNS, PLACE} or len(set(names)) < len(names) or not {"channel", "payload"} <= set(names):
        message = "The first line of a CSV file names its columns: channel, payload and, if there are any, tags, place."
        raise CommandError(Code.BAD_REQUEST, message, field="line 1")
    return names


def _explained(error: Exception) -> CommandError:
    match error:
        case asyncpg.UndefinedTableError() if "hub.placed" in str(error):
            return fence.unsupported(PLACE)
        case asyncpg.UndefinedTableError() | asyncpg.InvalidSchemaNameError():
            return CommandError(Code.NOT_FOUND, "This database has no durable log yet. Run `pghub migrate` on it.")
        case asyncpg.InsufficientPrivilegeError():
            message = f"{str(error).capitalize()}: GRANT USAGE ON SCHEMA hub and INSERT ON hub.events to this role."
            return CommandError(Code.FORBIDDEN, message)
        case asyncpg.InternalServerError() if "geometry" in str(error):  # PostGIS has no other class for such a text
            found = CommandError(Code.BAD_PLACE, f"PostGIS cannot read the place: {error}.")
        case _:
            found = refusal(error)
    found.field = _line_of(error)
    return found


def _line_of(error: Exception) -> str | None:
    place = _LINE.search(getattr(error, "context", None) or "")
    return f"line {place[1]}" if place else None
