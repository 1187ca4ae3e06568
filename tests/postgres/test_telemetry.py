"""What statements take, which are slow, and what the server remarks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from hub.postgres import unseen
from hub.postgres.connect import Connection, Target, connect_listening, connected, pool
from hub.postgres.publisher import publish_placed
from hub.postgres.telemetry import Telemetry, name_of

SECRET = "s3cret"
REMARK = "DO $$ BEGIN RAISE WARNING 'look out' USING HINT = 'there'; END $$"


class Told:
    """Remembers what telemetry tells, and signals it."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.all: list[tuple[str, str, Mapping[str, Any]]] = []
        self.more = asyncio.Event()
        telemetry.tell = self.take

    def take(self, kind: str, text: str, details: Mapping[str, Any]) -> None:
        self.all.append((kind, text, details))
        self.more.set()

    async def one(self) -> tuple[str, str, Mapping[str, Any]]:
        async with asyncio.timeout(5):
            while not self.all:
                self.more.clear()
                await self.more.wait()
        return self.all.pop(0)


def watching(database: str, **options: Any) -> tuple[Target, Told]:
    telemetry = Telemetry(**options)
    return Target(database, telemetry=telemetry), Told(telemetry)


async def test_a_slow_statement_is_logged_without_the_text_of_its_arguments(database: str) -> None:
    target, told = watching(database, slow=0.02)
    async with connected(target, purpose="test") as connection:
        with capture_logs() as logged:
            await connection.fetchval("SELECT pg_sleep(0.03), $1::text, $2::int, $3::text[]", SECRET, 7, [SECRET])
            kind, text, details = await told.one()
    assert kind == "slow_query"
    assert text.startswith("select took ")
    assert details["ms"] >= 30
    assert details["sql"].startswith("SELECT pg_sleep(0.03)")
    assert details["arguments"] == ["str of 6", 7, "list of 1"]
    assert details["failure"] is None
    (line,) = [each for each in logged if each["event"] == "slow_query"]
    assert (line["log_level"], line["purpose"]) == ("warning", "test")
    assert SECRET not in str(logged)


async def test_arguments_are_shown_shortened_where_that_is_wanted(database: str) -> None:
    target, told = watching(database, slow=0.01, arguments=True)
    async with connected(target, purpose="test") as connection:
        await connection.fetchval("SELECT pg_sleep(0.02), $1::text", SECRET + "x" * 1000)
        _, _, details = await told.one()
    (shown,) = details["arguments"]
    assert shown == SECRET + "x" * 54 + "… (1006 characters)"


async def test_a_slow_failure_is_told_by_its_kind_and_counted(database: str) -> None:
    target, told = watching(database, slow=0.01)
    async with connected(target, purpose="test") as connection:
        with pytest.raises(asyncpg.InvalidTextRepresentationError):
            await connection.fetchval("SELECT pg_sleep(0.02), ($1::text || pg_sleep(0.02)::text)::int", SECRET)
        _, _, details = await told.one()
    assert details["failure"] == "InvalidTextRepresentationError"
    assert target.telemetry.failures == {"select": 1}


async def test_nothing_is_slow_where_that_is_switched_off(database: str) -> None:
    target, told = watching(database, slow=0.0)
    async with connected(target, purpose="test") as connection:
        await connection.fetchval("SELECT pg_sleep(0.02)")
        await connection.execute(REMARK)
        assert (await told.one())[0] == "notice"
    assert sum(target.telemetry.durations["select"].counts) >= 1
    assert target.telemetry.slow == 0


async def test_a_notice_of_a_trigger_is_told_with_its_severity(database: str) -> None:
    target, told = watching(database)
    async with connected(target, purpose="test") as connection:
        await connection.execute("""
            CREATE TABLE public.orders (id int);
            CREATE FUNCTION public.remark() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE NOTICE 'order %', NEW.id; RETURN NEW; END $$;
            CREATE TRIGGER remark BEFORE INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.remark();
            INSERT INTO public.orders VALUES (42)""")
        kind, text, details = await told.one()
    assert (kind, text, details["severity"], details["purpose"]) == ("notice", "order 42", "notice", "test")
    assert "remark()" in details["context"]


async def test_every_connection_of_a_pool_is_heard_however_often_it_was_given_back(database: str) -> None:
    target, told = watching(database)
    async with pool(target, min_size=1, max_size=1) as opened:
        for _ in range(3):
            await opened.execute(REMARK)
            _, text, details = await told.one()
            assert (text, details["severity"], details["hint"]) == ("look out", "warning", "there")
    assert target.telemetry.notices == {"warning": 3}


async def test_the_listener_s_connection_is_heard_too(database: str) -> None:
    target, told = watching(database)
    connection = await connect_listening(target)
    try:
        await connection.execute(REMARK)
        assert (await told.one())[2]["purpose"] == "listener"
    finally:
        connection.terminate()


async def test_a_flood_of_notices_is_counted_and_not_told(database: str) -> None:
    target, told = watching(database)
    async with connected(target, purpose="test") as connection:
        with capture_logs() as logged:
            await connection.execute("DO $$ BEGIN FOR i IN 1..1000 LOOP RAISE NOTICE '%', i; END LOOP; END $$")
    assert target.telemetry.notices == {"notice": 1000}
    assert 10 <= len(told.all) == len(logged) <= 100


async def test_that_a_schema_is_there_already_is_no_news(connection: Connection) -> None:
    telemetry = Telemetry()
    told = Told(telemetry)
    telemetry.watch(connection, "test")
    await connection.execute("CREATE SCHEMA IF NOT EXISTS hub")
    assert telemetry.notices == {"notice": 1}
    assert not told.all


@pytest.mark.parametrize(
    ("query", "name"),
    [
        (unseen.READ, "tail read"),
        (unseen.READ_PLACED, "tail read"),
        (publish_placed("public"), "publish"),
        ("/* heartbeat */ SELECT 1", "heartbeat"),
        ("\n  select 1", "select"),
        ('LISTEN "orders"', "listen"),
        ("SELECT pg_advisory_unlock_all();\nRESET ALL", "reset"),
        ("/* Drop'; */ SELECT 1", "other"),
        ("whatever", "other"),
        ("", "other"),
    ],
)
def test_statements_are_called_by_their_comment_or_their_verb(query: str, name: str) -> None:
    assert name_of(query) == name
