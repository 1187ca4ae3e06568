"""A Postgres with PostGIS, which no wheel carries: Debian's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from hub import assets
from hub.postgres import binaries
from hub.postgres.connect import Target, connect
from hub.postgres.embedded import Embedded
from hub.postgres.migrate import migrate
from tests.conftest import renamed, temporary_folder
from tests.postgres.conftest import blank as blank
from tests.postgres.conftest import visitor as visitor

_EXTENSIONS = Path("/usr/share/postgresql")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a running Postgres whose databases may have PostGIS."""
    homes = sorted(_EXTENSIONS.glob("*/extension/postgis.control"), reverse=True)
    if not homes:
        pytest.skip("no PostGIS here: apt-get install postgresql-postgis")
    bin_dir = binaries.SYSTEM / homes[0].parts[-3] / "bin"
    options = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    with temporary_folder() as folder:
        embedded = Embedded(folder / "data", bin_dir=bin_dir, options=options)
        asyncio.run(embedded.start())
        try:
            yield embedded.dsn
        finally:
            asyncio.run(embedded.stop())


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """A database that has had all migrations, with PostGIS in the schema gis, and places."""

    async def make() -> None:
        admin = await asyncpg.connect(server)
        await admin.execute("CREATE DATABASE pghub_places")
        await admin.close()
        connection = await connect(Target(renamed(server, "pghub_places")), purpose="test")
        await migrate(connection, assets.folder("sql"))
        await connection.execute("CREATE SCHEMA gis; CREATE EXTENSION postgis SCHEMA gis; SELECT hub.enable_places()")
        await connection.close()

    asyncio.run(make())
    return "pghub_places"


@pytest.fixture
async def producer(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A program that publishes and knows nothing of the hub, but finds PostGIS on its path."""
    connection = await asyncpg.connect(database, server_settings={"search_path": "gis, public"})
    yield connection
    connection.terminate()
