"""Connections for the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count

import asyncpg
import pytest

from hub.postgres.connect import Connection, Target, connect
from tests.conftest import renamed

_numbers = count(1)


@asynccontextmanager
async def opened(target: Target) -> AsyncIterator[Connection]:
    """A connection that ends with the block. One left open by a test that fails would keep uvloop from closing."""
    connection = await connect(target, purpose="test", settings={"search_path": "public"})
    try:
        yield connection
    finally:
        connection.terminate()


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    """A connection to this test's migrated database."""
    async with opened(Target(database)) as connection:
        yield connection


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
