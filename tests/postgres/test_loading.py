"""Many events at once: arrays in a transaction, and files by COPY."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest

from hub import loader
from hub.errors import Code, CommandError, SetupError, UncertainError
from hub.item import Item, one
from hub.postgres.connect import Connection, Target, pool
from hub.postgres.items import Items
from hub.postgres.loading import copy_csv, copy_lines
from hub.postgres.watched import session
from tests.postgres.conftest import as_role, opened

NUL = '"\\u0000"'  # JSON, but none that jsonb has
TAGS = ["", "a b", 'q"', "\\", "{x,y}", "NULL", "\n\t\r", "é"]


@pytest.fixture
async def items(database: str) -> AsyncIterator[Items]:
    streams = pool(Target(database), min_size=0, max_size=1, purpose="stream", settings=session(10))
    async with pool(Target(database), min_size=0, max_size=2) as ordinary, streams as long:
        yield Items(ordinary, long)


def made(payload: object, channel: str = "a", **fields: object) -> Item:
    return one(orjson.dumps({"channel": channel, "payload": payload} | fields))


def bad(channel: str = "a") -> Item:
    return one(b'{"channel":"%b","payload":%b}' % (channel.encode(), NUL.encode()))


async def log(connection: Connection) -> list[tuple[Any, ...]]:
    rows = await connection.fetch("SELECT channel, payload, tags FROM hub.events ORDER BY id")
    return [tuple(row.values()) for row in rows]


async def pieces(data: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def refused(copying: Any) -> tuple[str, str | None]:
    with pytest.raises(CommandError) as caught:
        await copying
    return caught.value.code, caught.value.field


async def test_an_array_is_published_in_order_and_in_one_transaction(items: Items, connection: Connection) -> None:
    ids = await items.publish([made(n, tags=TAGS) for n in range(1_000)])
    assert ids == sorted(ids)
    assert await log(connection) == [("a", n, TAGS) for n in range(1_000)]
    assert await connection.fetchval("SELECT count(DISTINCT xid) FROM hub.events") == 1


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (bad(), Code.BAD_REQUEST),
        (made(0, tags=["x" * 5_000]), Code.TOO_LARGE),
        (made(0, tags=["\0"]), Code.BAD_REQUEST),
        (made(0, key="\0"), Code.BAD_REQUEST),
        (made(0, key="é" * 200), Code.BAD_REQUEST),
        (made(["," * 200_000] * 3 + [[1] * 90_000]), Code.TOO_LARGE),
    ],
)
async def test_the_one_that_postgres_refuses_is_named_and_refuses_all(
    items: Items, connection: Connection, item: Item, code: Code
) -> None:
    assert await refused(items.publish([made(1), made(2), item, item])) == (code, "[2]")
    assert not await log(connection)
    results = await items.publish_each([made(1), item, made(2)])
    assert [isinstance(result, int) for result in results] == [True, False, True]
    assert isinstance(results[1], CommandError)
    assert results[1].code == code
    assert [row[1] for row in await log(connection)] == [1, 2]


async def test_keys_make_it_safe_to_post_again(items: Items, connection: Connection) -> None:
    array = [made(n, key=f"k:{n}") for n in range(3)]
    first, second = await asyncio.gather(items.publish(array), items.publish(array))
    assert first == second == await items.publish_each(array)
    assert len(await log(connection)) == 3


async def test_lines_are_copied_as_they_are(items: Items, connection: Connection) -> None:
    given = [("a", {"x": "\\ \n\t\\N\\."}, TAGS), ("b\\c", "é😀", []), ("NULL", None, ["x"])]
    lines = [{"channel": channel, "payload": payload, "tags": tags} for channel, payload, tags in given]
    data = b"\r\n".join(map(orjson.dumps, lines))
    for size in (1, 13, 10_000):
        assert await items.load(pieces(data, size)) == 3
    assert await log(connection) == given * 3
    assert await items.load(pieces(b"")) == 0


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "bad_request"),
        (b"{", "bad_request"),
        (b'{"channel":"a","payload":%b}' % NUL.encode(), "bad_request"),
        (b'{"channel":"a","payload":1,"tags":["\\u0000"]}', "bad_request"),
        (b'{"channel":"a","payload":1e200000}', "bad_request"),
        (b'{"channel":"hub_x","payload":1}', "forbidden"),
        (b'{"channel":"a","payload":1,"tags":["' + b"x" * 5_000 + b'"]}', "too_large"),
        (b'{"channel":"a","payload":"' + b"x" * 900_000 + b'"}', "too_large"),
    ],
)
async def test_a_bad_line_is_named_and_refuses_all(
    items: Items, connection: Connection, line: bytes, code: str
) -> None:
    good = b'{"channel":"a","payload":1}\n'
    assert await refused(items.load(pieces(good * 16 + line + b"\n" + good, 65_536))) == (code, "line 17")
    assert not await log(connection)
    assert await items.load(pieces(good * 2)) == 2  # on the same connection


async def test_each_channel_is_checked_once_before_it_is_written_to(items: Items, connection: Connection) -> None:
    asked: list[str] = []

    async def check(names: Sequence[str]) -> None:
        asked.extend(names)
        if "no\\" in names:
            raise CommandError(Code.FORBIDDEN, "No.", channels=("no\\",))

    def lines(*names: str) -> bytes:
        return b"".join(orjson.dumps({"channel": name, "payload": 1}) + b"\n" for name in names)

    assert await items.load(pieces(lines("a", "b", "a", "c\\d", "b"), 40), check) == 5
    assert asked == ["a", "b", "c\\d"]
    bad = lines(*"aaaaa", "no\\", "b")
    assert await refused(items.load(pieces(bad, 65_536), check)) == ("forbidden", "line 6")
    assert await refused(items.load(pieces(lines(*"aaaaa", "no\\").rstrip(), 7), check)) == ("forbidden", "line 6")
    assert len(await log(connection)) == 5


async def test_a_source_that_fails_leaves_nothing(items: Items, connection: Connection) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b'{"channel":"a","payload":1}\n' * 10_000
        raise SetupError("Gone.")

    with pytest.raises(SetupError, match=r"Gone\."):
        await items.load(broken())
    assert not await log(connection)


async def test_a_load_that_is_cancelled_leaves_nothing(items: Items, connection: Connection) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b'{"channel":"a","payload":1}\n' * 10_000
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(items.load(endless()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await log(connection)
    assert await items.load(pieces(b'{"channel":"a","payload":1}')) == 1


async def test_a_load_whose_connection_is_lost_ends_and_the_next_one_has_another(
    items: Items, connection: Connection
) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b'{"channel":"a","payload":1}\n'
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(items.load(endless()))
    await begun.wait()
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'pghub stream' AND datname = current_database()"
    )
    assert await refused(task) == ("unavailable", None)
    assert await items.load(pieces(b'{"channel":"a","payload":1}')) == 1
    assert len(await log(connection)) == 1


@pytest.mark.parametrize("at_the_commit", [True, False])
async def test_a_connection_lost_in_the_commit_leaves_a_doubt_and_before_it_none(
    items: Items, connection: Connection, at_the_commit: bool
) -> None:
    when = "CONSTRAINT TRIGGER dying AFTER INSERT ON hub.events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
    await connection.execute(
        f"""
        CREATE FUNCTION hub.die() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
        CREATE {when if at_the_commit else "TRIGGER dying BEFORE INSERT ON hub.events"} EXECUTE FUNCTION hub.die()
        """
    )
    for work in (
        items.publish([made(1)]),
        items.publish_each([made(1)]),
        items.load(pieces(b'{"channel":"a","payload":1}')),
    ):
        with pytest.raises(CommandError) as caught:
            await work
        assert isinstance(caught.value, UncertainError) == at_the_commit
        assert ("Nothing was loaded" in loader.sentence("a.ndjson", caught.value)) != at_the_commit


async def test_lines_that_are_payloads_of_a_channel(connection: Connection) -> None:
    assert await copy_lines(connection, pieces(b'{"x": 1}\n"a\\\\b"\n null \n'), "orders") == 3
    assert await log(connection) == [("orders", {"x": 1}, []), ("orders", "a\\b", []), ("orders", None, [])]
    assert await refused(copy_lines(connection, pieces(b"1\n2 3\n"), "orders")) == ("bad_request", "line 2")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b'channel,payload,tags\r\na,"{""x"": 1}","{p,""q r""}"\r\nb,2,{}\r\n',
            [("a", {"x": 1}, ["p", "q r"]), ("b", 2, [])],
        ),
        (b'payload,channel\n"[1,\n2]",a\n', [("a", [1, 2], [])]),
        (b'\xef\xbb\xbf"channel",payload\na,1', [("a", 1, [])]),
        (b"channel,payload\n", []),
    ],
)
async def test_csv_goes_by_the_columns_of_its_head(
    connection: Connection, data: bytes, expected: list[tuple[Any, ...]]
) -> None:
    for size in (1, 10_000):
        assert await copy_csv(connection, pieces(data, size)) == len(expected)
    assert await log(connection) == expected * 2


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        (b"", "bad_request", "line 1"),
        (b"a,1\n", "bad_request", "line 1"),
        (b"channel,tags\na,{}\n", "bad_request", "line 1"),
        (b"channel,payload,channel\na,1,a\n", "bad_request", "line 1"),
        (b"\xff\xfe\n", "bad_request", "line 1"),
        (b"channel,payload\na,1\na,x\n", "bad_request", "line 3"),
        (b"channel,payload\na,1\na\n", "bad_request", "line 3"),
        (b"channel,payload\na,\n", "bad_request", "line 2"),
        (b"channel,payload\nhub_x,1\n", "bad_request", "line 2"),
        (b'channel,payload\na,"1', "bad_request", "line 2"),
        (b"channel,payload\na,\xff\n", "bad_request", "line 2"),
    ],
)
async def test_bad_csv(connection: Connection, data: bytes, code: str, field: str) -> None:
    assert await refused(copy_csv(connection, pieces(data, 10_000))) == (code, field)
    assert not await log(connection)


async def test_who_may_not_load_is_told_what_is_missing(database: str, visitor: str) -> None:
    async with opened(Target(as_role(database, visitor))) as connection:
        with pytest.raises(CommandError, match="GRANT USAGE ON SCHEMA hub"):
            await copy_lines(connection, pieces(b'{"channel":"a","payload":1}'))


async def test_a_database_without_a_log(blank: str) -> None:
    async with opened(Target(blank)) as connection:
        with pytest.raises(CommandError, match="pghub migrate"):
            await copy_lines(connection, pieces(b'{"channel":"a","payload":1}'))
