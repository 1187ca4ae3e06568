"""The doctor's self-test, and what else it finds of the server."""

from __future__ import annotations

import pytest

from hub import assets
from hub.postgres import checks, selftest
from hub.postgres.connect import Connection, Target
from hub.postgres.finding import Finding
from tests.postgres.conftest import as_role


async def findings(database: str) -> dict[str, Finding]:
    target = Target(database)
    return {found.subject: found async for found in checks.examine(target, target, assets.folder("sql"))}


async def test_each_tier_is_tried_and_timed(database: str, connection: Connection) -> None:
    found = await findings(database)
    assert found["notify"].text.endswith(" ms")
    assert found["publish"].level == "ok"
    assert "done in " in found["publish"].text
    assert await connection.fetchval("SELECT channel FROM hub.events") == selftest.CHANNEL


async def test_before_the_migrations_there_is_no_log_to_try(blank: str) -> None:
    found = await findings(blank)
    assert found["migrations"].level == "warn"
    assert found["notify"].level == "ok"
    assert "publish" not in found


async def test_a_role_that_may_not_publish_is_told_so(database: str, connection: Connection, visitor: str) -> None:
    poor = Target(as_role(database, visitor))
    found = {each.subject: each async for each in selftest.ways(poor, Target(database), durable=True)}
    assert found["notify"].level == "ok"
    assert found["publish"].level == "fail"
    assert "permission denied" in found["publish"].text


async def test_a_server_that_may_lose_commits_is_warned_of(database: str) -> None:
    """The tests' own is one."""
    target = Target(database)
    texts = [found.text async for found in checks.examine(target, target, assets.folder("sql"))]
    assert any(text.startswith("fsync is off") for text in texts)
    assert any(text.startswith("synchronous_commit is off") for text in texts)


async def test_a_clock_that_differs_is_warned_of(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await findings(database))["clock"].level == "ok"
    monkeypatch.setattr(checks, "_SKEW", 0.0)
    clock = (await findings(database))["clock"]
    assert clock.level == "warn"
    assert "NTP" in clock.text


async def test_who_keeps_vacuum_from_its_work_is_named(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await findings(database))["snapshots"].level == "ok"
    monkeypatch.setattr(checks, "_LONG_OPEN", 0.0)
    async with connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("SELECT 1")
        found = (await findings(database))["snapshots"]
    assert found.level == "warn"
    assert "(pghub test) has had a snapshot" in found.text


async def test_a_log_that_is_mostly_dead_rows_is_told(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await findings(database))["bloat"].level == "ok"
    monkeypatch.setattr(checks, "_DEAD", -1)
    await connection.execute("DELETE FROM hub.events")
    await connection.execute("ANALYZE hub.events")  # counts them at once
    found = (await findings(database))["bloat"]
    assert (found.level, "autovacuum came never" in found.text) == ("warn", True)
