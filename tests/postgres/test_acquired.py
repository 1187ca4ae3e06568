"""A pooled connection, for which a request waits as long as it is told to."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from hub.errors import Code, CommandError
from hub.postgres.acquired import acquired
from hub.postgres.connect import Target, pool


async def test_who_waits_too_long_is_refused_and_who_waits_long_enough_is_not(database: str) -> None:
    async with pool(Target(database), min_size=0, max_size=1) as connections:

        async def next_one() -> int:
            async with acquired(connections, 60.0) as connection:
                return await connection.fetchval("SELECT 1")

        async with acquired(connections, 10.0):
            waiting = asyncio.create_task(next_one())
            with pytest.raises(CommandError, match="All 1 connections") as caught:
                async with acquired(connections, 0.05):
                    pass
        assert caught.value.code is Code.UNAVAILABLE
        assert await waiting == 1


async def test_where_postgres_is_that_cannot_be_reached_is_not_for_clients(database: str) -> None:
    async with pool(Target(database.replace("host=", "host=/nowhere")), min_size=0, max_size=1) as connections:
        with capture_logs() as logged, pytest.raises(CommandError, match=r"^Postgres cannot be reached; try again\.$"):
            async with acquired(connections, 10.0):
                pass
    assert "No such file" in logged[0]["error"]


async def test_a_connection_that_cannot_be_made_as_new_spoils_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was used for is done; and the next one gets another."""
    monkeypatch.setattr("hub.postgres.acquired._RESET", 0.0)
    async with pool(Target(database), min_size=0, max_size=1) as connections:
        found = []
        for _ in range(2):
            async with acquired(connections, 10.0) as connection:
                found.append(await connection.fetchval("SELECT pg_backend_pid()"))
    assert len(set(found)) == 2
