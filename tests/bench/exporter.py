"""Ways out of the log, and a process of its own that goes one of them: python -m tests.bench.exporter DSN WAY LIMIT.

It prints the most memory that it has had, in megabytes. (ru_maxrss would be that of its parent, which is larger.)
"""

from __future__ import annotations

import asyncio
import csv
import io
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from hub.postgres import codecs
from hub.postgres.connect import Connection, Target, connect
from hub.postgres.history import opened
from hub.query import Query

_COLUMNS: Final = "SELECT id, channel, published_at, payload::text, tags FROM hub.events ORDER BY id LIMIT $1"
_PARSED: Final = "SELECT id, channel, payload, tags, published_at AS at FROM hub.events ORDER BY id LIMIT $1"


async def by_copy(connection: Connection, limit: int) -> int:
    size = 0

    async def write(data: bytes) -> None:
        nonlocal size
        size += len(data)

    async with opened(connection, Query(limit=limit)) as export:
        await export.copy(write)
    return size


def _line(row: Any) -> int:
    line = io.StringIO()
    csv.writer(line).writerow((*row[:2], row[2].isoformat(), row[3], orjson.dumps(row[4]).decode()))
    return len(line.getvalue())


async def formatted(connection: Connection, limit: int) -> int:
    async with connection.transaction():
        return sum([_line(row) async for row in connection.cursor(_COLUMNS, limit, prefetch=100)])


async def fetched(connection: Connection, limit: int) -> int:
    return sum(map(_line, await connection.fetch(_COLUMNS, limit, timeout=300)))


async def lines(connection: Connection, limit: int) -> int:
    async with opened(connection, Query(limit=limit)) as export:
        return sum([sum(map(len, batch)) async for batch in export.batches()])


async def dumped(connection: Connection, limit: int) -> int:
    """Rows as JSON with nothing else done to them; the payload becomes objects and then text again."""
    size = 0
    async with connection.transaction():
        async for row in connection.cursor(_PARSED, limit, prefetch=100):
            size += len(orjson.dumps(dict(row)))
    return size


async def fragments(connection: Connection, limit: int) -> int:
    """The same, but for the payload, which stays as it is."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=orjson.dumps, decoder=codecs._jsonb_as_it_is, format="binary"
    )
    try:
        return await dumped(connection, limit)
    finally:
        await codecs.set_codecs(connection)


WAYS: Final[dict[str, Callable[[Connection, int], Awaitable[int]]]] = {
    "CSV by COPY": by_copy,
    "CSV, by a cursor and formatted in Python": formatted,
    "CSV, fetched whole and formatted in Python": fetched,
    "NDJSON by a cursor, as the hub does it": lines,
    "rows dumped by orjson, payloads as Fragments": fragments,
    "rows dumped by orjson, payloads parsed first": dumped,
}


async def _main(dsn: str, way: str, limit: int) -> None:
    connection = await connect(Target(dsn), purpose="bench")
    await WAYS[way](connection, limit)
    await connection.close()


def _peak() -> float:
    with open("/proc/self/status") as status:  # noqa: PTH123 - no file of ours
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    print(_peak())
