"""Connections for the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count

import asyncpg
import pytest

from hub.postgres.connect import Connection, Target, connect
from tests.conftest import renamed

_numbers = count(1)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    """A connection to this test's migrated database."""
    opened = await connect(Target(database), purpose="test")
    yield opened
    await opened.close()


@pytest.fixture
def blank(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database that has had no migration; its parameter, if any, goes on after CREATE DATABASE."""
    name = f"blank_{next(_numbers)}"

    async def execute(statement: str) -> None:
        admin = await asyncpg.connect(server)
        await admin.execute(statement)
        await admin.close()

    asyncio.run(execute(f"CREATE DATABASE {name} {getattr(request, 'param', '')}"))
    yield renamed(server, name)
    asyncio.run(execute(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def visitor(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a role that may only log in; its parameter, if any, goes on after CREATE ROLE. Owns nothing."""
    name = f"visitor_{next(_numbers)}"

    async def execute(statement: str) -> None:
        admin = await asyncpg.connect(server)
        await admin.execute(statement)
        await admin.close()

    asyncio.run(execute(f"CREATE ROLE {name} LOGIN {getattr(request, 'param', '')}"))
    yield name
    asyncio.run(execute(f"DROP ROLE {name}"))


def as_role(dsn: str, role: str) -> str:
    """The same URL for another user."""
    return dsn.replace("://postgres@", f"://{role}@")
