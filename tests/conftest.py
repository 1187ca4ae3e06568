"""A real Postgres for the whole run, and a fresh migrated database for each test."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import uvloop

from hub import assets, service
from hub.postgres import binaries
from hub.postgres.connect import Target, connect
from hub.postgres.embedded import Embedded
from hub.postgres.migrate import migrate
from hub.settings import Settings

_numbers = count(1)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Tests run on uvloop, as the hub does; those of the web on asyncio's loop, in debug mode, too."""
    factories = {"uvloop": uvloop.new_event_loop}
    if item.path.parent.name == "web":
        factories["asyncio"] = debugging_loop
    return factories


def debugging_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    return loop


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for data directories.

    Not pytest's own: only its owner may enter that one, and for root the server runs as another user.
    """
    folder = Path(tempfile.mkdtemp(prefix="pghub-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory that is not there yet."""
    with temporary_folder() as folder:
        yield folder / "data"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a running Postgres; HUB_TEST_PG=16 asks for a version, else it is the newest here."""
    wanted = os.environ.get("HUB_TEST_PG")
    found = binaries.installed()
    chosen = next((each for each in found if wanted in (None, str(each.major))), None)
    assert chosen is not None, f"no Postgres {wanted or ''} here; there are: {[each.major for each in found]}"
    options = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}
    options["max_prepared_transactions"] = "1000"  # stand for writers in flight
    with temporary_folder() as folder:
        embedded = Embedded(folder / "data", bin_dir=chosen.bin, options=options)
        asyncio.run(embedded.start())
        try:
            yield embedded.dsn
        finally:
            asyncio.run(embedded.stop())


def renamed(dsn: str, database: str) -> str:
    """The URL of another database on the same server."""
    return urlsplit(dsn)._replace(path=f"/{database}").geturl()


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """A database that has had all migrations; nobody connects to it again."""

    async def make() -> None:
        admin = await asyncpg.connect(server)
        await admin.execute("CREATE DATABASE pghub_template")
        await admin.close()
        connection = await connect(Target(renamed(server, "pghub_template")), purpose="test")
        await migrate(connection, assets.folder("sql"))
        await connection.close()

    asyncio.run(make())
    return "pghub_template"


@pytest.fixture
def database(server: str, template: str) -> Iterator[str]:
    """The URL of a database of this test's own."""
    name = f"test_{next(_numbers)}"

    async def execute(statement: str) -> None:
        admin = await asyncpg.connect(server)
        await admin.execute(statement)
        await admin.close()

    asyncio.run(execute(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield renamed(server, name)
    asyncio.run(execute(f"DROP DATABASE {name} WITH (FORCE)"))


@dataclass(frozen=True)
class Hub:
    """A hub that runs inside the test's process."""

    url: str
    ws: str
    dsn: str


@asynccontextmanager
async def running(dsn: str, **settings: object) -> AsyncIterator[Hub]:
    """A hub on `dsn`. A task of it that died fails the test."""
    made = Settings(**{"port": 0} | settings)  # type: ignore[arg-type]  # what each setting is, its test knows
    async with service.hub(made, dsn) as (url, tasks):
        yield Hub(url, f"ws{url.removeprefix('http')}/ws", dsn)
        assert not [task for task in tasks if task.done()]


@pytest.fixture
async def hub(database: str) -> AsyncIterator[Hub]:
    async with running(database) as hub:
        yield hub
