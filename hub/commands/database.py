"""The database of the hub: its schema, its URL, and psql on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from typing import Annotated

from cyclopts import Parameter

from hub import assets, source
from hub.commands.work import database, run
from hub.errors import SetupError
from hub.postgres import binaries, embedded, libpq
from hub.postgres.connect import connected
from hub.postgres.migrate import migrate as apply
from hub.settings import Database


def migrate(settings: Database | None = None) -> int:
    """Bring the database's schema `hub` up to date."""
    settings = settings or Database()

    async def work() -> int:
        async with database(settings) as url:
            direct = source.direct_target(settings, url)
            async with connected(direct, purpose="migrate") as connection:
                applied = await apply(connection, assets.folder("sql"))
        print("\n".join(applied) or "Nothing to do: the database is up to date.")
        return 0

    return run(settings, work())


def dsn(settings: Database | None = None) -> int:
    """Print the URL of the database that the hub uses."""
    settings = settings or Database()
    url = settings.database_url or embedded.running_dsn(settings.folder)
    if url is None:
        raise SetupError("The embedded Postgres does not run. Start it with `pghub serve`, or set HUB_DATABASE_URL.")
    print(url)
    return 0


def psql(
    *arguments: Annotated[str, Parameter(help="Passed on to psql.", allow_leading_hyphen=True)],
    settings: Database | None = None,
) -> int:
    """Open psql on the hub's database; all arguments are psql's."""
    settings = settings or Database()
    program = _psql(settings)

    async def work() -> int:
        async with database(settings) as url:
            shown, secret = libpq.arguments(source.target(settings, url))
            process = await asyncio.create_subprocess_exec(program, shown, *arguments, env=os.environ | secret)
            return await process.wait()

    return run(settings, work())


def _psql(settings: Database) -> str:
    """The psql of the embedded Postgres, which knows that version's catalogs; else whichever there is."""
    with contextlib.suppress(SetupError):
        if settings.database_url is None and (own := binaries.find(bin_dir=settings.pg_bin).program("psql")):
            return str(own)
    if found := shutil.which("psql"):
        return found
    raise SetupError("There is no psql here. Install Postgres's client programs.")
