"""A command's work: the loop it runs on, and the database it is done on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from hub import logs, loop, source
from hub.settings import Database


def run(settings: Database, work: Coroutine[Any, Any, int]) -> int:
    """Run `work` on the loop that the settings ask for, which is chosen before any exists."""
    try:
        logs.configure(settings.log_level, levels=settings.levels)
        runner = loop.runner(settings.loop)
    except BaseException:
        work.close()
        raise
    with runner:
        return runner.run(work)


@asynccontextmanager
async def database(settings: Database) -> AsyncIterator[str]:
    """The URL of the database that the settings name; an embedded Postgres runs at least as long as the block."""
    async with source.database(settings) as found:
        yield source.dsn(found)
