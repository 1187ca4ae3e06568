"""hub.authorize, where somebody has defined it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from hub.errors import Code, CommandError
from hub.postgres import authorize
from hub.postgres.authorize import Authorizing
from hub.postgres.connect import Target, pool

ALICE = '{"sub":"alice"}'
ASKED = """
CREATE TABLE public.asked (claims jsonb, action text, channel text);
CREATE FUNCTION hub.authorize(claims jsonb, action text, channel text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.asked VALUES (claims, action, channel);
    RETURN claims ->> 'sub' = 'alice' AND channel <> 'secret';
END $$
"""


class Database:
    """A pool of two, and who defines the function."""

    def __init__(self, owner: Any, opened: Any) -> None:
        self.owner = owner
        self.pool = opened

    async def asking(self, keep: float = 10.0) -> Authorizing:
        made = Authorizing(self.pool, keep=keep)
        await made.look()
        return made

    async def asked(self) -> list[str]:
        return [row["channel"] for row in await self.owner.fetch("SELECT channel FROM public.asked")]

    async def answering(self, body: str, returns: str = "boolean") -> Authorizing:
        """Asks a function that does nothing but this."""
        head = "CREATE FUNCTION hub.authorize(claims jsonb, action text, channel text) RETURNS"
        await self.owner.execute(f"{head} {returns} LANGUAGE plpgsql AS $f$ BEGIN {body}; END $f$")
        return await self.asking()


@pytest.fixture
async def there(database: str) -> AsyncIterator[Database]:
    owner = await asyncpg.connect(database)
    async with pool(Target(database), min_size=0, max_size=2) as opened:
        yield Database(owner, opened)
    await owner.close()


async def test_where_there_is_none_nothing_is_refused(there: Database) -> None:
    assert await (await there.asking()).refused(ALICE, "subscribe", ["a"]) == []


async def test_it_decides_by_claims_action_and_channel(there: Database) -> None:
    await there.owner.execute(ASKED)
    asking = await there.asking()
    assert await asking.refused(ALICE, "subscribe", ["b", "secret", "a"]) == ["secret"]
    assert await asking.refused('{"sub":"bob"}', "publish", ["a"]) == ["a"]
    assert [tuple(row) for row in await there.owner.fetch("SELECT * FROM public.asked ORDER BY channel, action")] == [
        ('{"sub": "bob"}', "publish", "a"),
        ('{"sub": "alice"}', "subscribe", "a"),
        ('{"sub": "alice"}', "subscribe", "b"),
        ('{"sub": "alice"}', "subscribe", "secret"),
    ]


async def test_null_is_no_yes(there: Database) -> None:
    assert await (await there.answering("RETURN NULL")).refused(ALICE, "subscribe", ["a"]) == ["a"]


async def test_its_answers_are_kept_for_a_while(there: Database) -> None:
    await there.owner.execute(ASKED)
    asking = await there.asking()
    for names in (["a"], ["a", "secret"], ["secret", "b"]):
        await asking.refused(ALICE, "subscribe", names)
    assert await asking.refused(ALICE, "subscribe", ["a", "secret"]) == ["secret"]
    assert await there.asked() == ["a", "secret", "b"]
    await asking.refused(ALICE, "publish", ["a"])
    await asking.refused('{"sub":"alice","exp":1}', "subscribe", ["a"])
    assert await there.asked() == ["a", "secret", "b", "a", "a"]


async def test_and_then_asked_for_again(there: Database) -> None:
    await there.owner.execute(ASKED)
    asking = await there.asking(keep=0.0)
    for _ in range(2):
        await asking.refused(ALICE, "subscribe", ["a"])
    assert await there.asked() == ["a", "a"]


async def test_no_more_than_so_many_are_kept(there: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorize, "_MOST", 2)
    await there.owner.execute(ASKED)
    asking = await there.asking()
    for name in ("a", "b", "c", "b", "c", "a"):
        await asking.refused(ALICE, "subscribe", [name])
    assert await there.asked() == ["a", "b", "c", "a"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("RAISE EXCEPTION 'the secret is 42'", Code.FORBIDDEN),
        ("RETURN 1 / 0 = 1", Code.FORBIDDEN),
        ("RETURN nowhere.nothing()", Code.FORBIDDEN),
        ("RAISE EXCEPTION 'later' USING ERRCODE = 'serialization_failure'", Code.UNAVAILABLE),
        ("RETURN pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())", Code.UNAVAILABLE),
    ],
)
async def test_an_error_refuses_what_was_asked_and_says_nothing_of_itself(
    there: Database, body: str, code: Code
) -> None:
    asking = await there.answering(body)
    with pytest.raises(CommandError) as failure:
        await asking.refused(ALICE, "subscribe", ["a", "b"])
    assert (failure.value.code, failure.value.channels) == (code, ("a", "b"))
    assert failure.value.message.startswith("hub.authorize ")
    assert "42" not in failure.value.message


async def test_one_that_takes_too_long_is_given_up(there: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorize, "_TIMEOUT", 0.2)
    asking = await there.answering("PERFORM pg_catalog.pg_sleep(60); RETURN true")
    with pytest.raises(CommandError) as failure:
        await asking.refused(ALICE, "subscribe", ["a"])
    assert failure.value.code is Code.UNAVAILABLE


async def test_even_one_that_cannot_be_cancelled(there: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorize, "_TIMEOUT", 0.2)
    body = "LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP"
    asking = await there.answering(body)
    async with asyncio.timeout(4):  # the pool alone would wait for ten seconds
        with pytest.raises(CommandError) as failure:
            await asking.refused(ALICE, "subscribe", ["a"])
    assert failure.value.code is Code.UNAVAILABLE


async def test_a_slow_one_leaves_half_of_the_pool_to_others(there: Database) -> None:
    asking = await there.answering("PERFORM pg_catalog.pg_advisory_lock(7); RETURN pg_catalog.pg_advisory_unlock(7)")
    await there.owner.execute("SELECT pg_advisory_lock(7)")
    slow = [asyncio.create_task(asking.refused(ALICE, "subscribe", [str(n)])) for n in range(10)]
    while not await there.owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"):
        pass  # each look is a round trip
    async with asyncio.timeout(5):
        assert await there.pool.fetchval("SELECT 1") == 1
    await there.owner.execute("SELECT pg_advisory_unlock(7)")
    assert await asyncio.gather(*slow) == [[]] * 10


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE FUNCTION hub.authorize(claims jsonb, channel text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        "CREATE FUNCTION hub.authorize(jsonb, text, text) RETURNS text LANGUAGE sql AS $$SELECT 'yes'$$",
        "CREATE PROCEDURE hub.authorize(jsonb, text, text) LANGUAGE sql AS 'SELECT true'",
    ],
)
async def test_one_that_cannot_be_asked_refuses_all(there: Database, definition: str) -> None:
    await there.owner.execute(definition)
    with pytest.raises(CommandError) as failure:
        await (await there.asking()).refused(ALICE, "subscribe", ["a"])
    assert failure.value.code is Code.FORBIDDEN


async def test_one_that_comes_later_is_found_by_looking(there: Database) -> None:
    asking = await there.asking()
    await there.owner.execute(ASKED)
    assert await asking.refused(ALICE, "subscribe", ["secret"]) == []
    await asking.look()
    assert await asking.refused(ALICE, "subscribe", ["secret"]) == ["secret"]


async def test_one_that_is_dropped_is_missed_and_lets_nobody_through_at_first(
    there: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who defines it anew drops it before."""
    await there.owner.execute(ASKED)
    asking = await there.asking(keep=0.0)
    await there.owner.execute("DROP FUNCTION hub.authorize")
    for _ in range(2):
        with pytest.raises(CommandError) as failure:
            await asking.refused(ALICE, "subscribe", ["a"])
        assert (failure.value.code, failure.value.channels) == (Code.UNAVAILABLE, ("a",))
        await asking.look()
    await there.owner.execute(ASKED.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
    assert await asking.refused(ALICE, "subscribe", ["secret"]) == ["secret"]


async def test_and_counts_as_gone_when_it_is_missed_for_long(there: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorize, "_GONE_AFTER", 0.0)
    await there.owner.execute(ASKED)
    asking = await there.asking()
    await there.owner.execute("DROP FUNCTION hub.authorize")
    assert await asking.refused(ALICE, "subscribe", ["secret"]) == []


@pytest.mark.parametrize("end", ["RETURN true", "RAISE 'no'"])
async def test_a_role_that_it_sets_is_gone_with_the_answer(there: Database, end: str) -> None:
    asking = await there.answering(f"SET ROLE pg_monitor; {end}")
    with suppress(CommandError):
        await asking.refused(ALICE, "subscribe", ["a"])
    assert await there.pool.fetchval("SELECT current_user = session_user")
    assert there.pool.get_size() == 1, "the same connection"


async def test_the_hub_looks_by_itself(there: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorize, "_LOOK_EVERY", 0.01)
    asking = await there.asking()
    await there.owner.execute(ASKED)
    looking = asyncio.create_task(asking.run())
    async with asyncio.timeout(5):
        while not asking.exists:
            await asyncio.sleep(0.01)  # it tells nobody
    looking.cancel()


async def test_a_hostile_search_path_changes_nothing(there: Database, database: str) -> None:
    """What stands between the hub and the function is Postgres's own, though PgBouncer lets nobody close the path."""
    await there.owner.execute(ASKED)
    await there.owner.execute(
        "CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS $$SELECT 'a'$$;"
        "ALTER DATABASE {} SET search_path = public, pg_catalog".format(
            await there.owner.fetchval("SELECT current_database()")
        )
    )
    async with pool(Target(database, pgbouncer=True), min_size=0, max_size=2) as hostile:
        asking = Authorizing(hostile, keep=0.0)
        await asking.look()
        assert await asking.refused(ALICE, "subscribe", ["secret"]) == ["secret"]
