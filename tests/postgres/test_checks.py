"""What the doctor finds out about the log."""

from __future__ import annotations

import pytest

from hub import assets
from hub.postgres import checks
from hub.postgres.connect import Connection, Target
from hub.postgres.finding import Finding
from tests.postgres.conftest import opened


async def findings(database: str) -> dict[str, Finding]:
    target = Target(database)
    return {found.subject: found async for found in checks.examine(target, target, assets.folder("sql"))}


async def test_an_empty_log_is_said_to_be_empty(database: str) -> None:
    found = await findings(database)
    assert found["log"].text.startswith("empty")
    assert found["retention"].text == "nobody holds it back"


async def test_the_log_s_size_and_its_oldest_event_are_told(database: str, connection: Connection) -> None:
    await connection.execute(
        "INSERT INTO hub.events (channel, payload, published_at) "
        "SELECT 'a', '1', '2026-01-02 03:04:05+00' FROM generate_series(1, 1000)"
    )
    await connection.execute("ANALYZE hub.events")
    text = (await findings(database))["log"].text
    assert text.startswith("about 1000 events since 2026-01-02 03:04:05 UTC, ")
    assert text.endswith("kB")


async def test_who_holds_retention_back_is_named(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_LONG_OPEN", 0.0)
    async with opened(Target(database)) as forgetful:
        await forgetful.execute("SET application_name = 'forgetful'; BEGIN; SELECT pg_current_xact_id()")
        found = (await findings(database))["retention"]
    assert found.level == "warn"
    assert "(forgetful) has had a transaction open" in found.text
    assert "pg_terminate_backend" in found.text


async def test_a_prepared_transaction_holds_it_back_too(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_LONG_OPEN", 0.0)
    await connection.execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'left behind'")
    try:
        found = (await findings(database))["retention"]
        assert "the prepared transaction 'left behind'" in found.text
    finally:
        await connection.execute("ROLLBACK PREPARED 'left behind'")


async def test_watched_tables_are_counted_and_those_that_are_not_told_are_named(
    database: str, connection: Connection
) -> None:
    assert "watch" not in await findings(database)
    await connection.execute("CREATE TABLE a (id int); CREATE TABLE b (id int); CREATE TABLE c (id int)")
    await connection.execute("SELECT hub.watch('a'), hub.watch('b')")
    assert (await findings(database))["watch"] == Finding("ok", "watch", "2 tables watched")
    await connection.execute(
        "SELECT hub.watch('c'); ALTER TABLE a DISABLE TRIGGER hub_delete; ALTER TABLE c SET UNLOGGED"
    )
    target = Target(database)
    found = [found async for found in checks.examine(target, target, assets.folder("sql")) if found.subject == "watch"]
    assert found == [
        Finding(
            "warn",
            "watch",
            "public.a: Triggers are missing on public.a, or disabled: what is changed there may not be told.",
        ),
        Finding("warn", "watch", "public.c: It is unlogged: a crash empties it without a word."),
        Finding("ok", "watch", "1 table watched"),
    ]
