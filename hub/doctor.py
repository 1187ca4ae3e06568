"""The examination: what could keep the hub from working here, and what to do about it."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator
from importlib.metadata import version

from hub import assets, loop, service
from hub.errors import SetupError
from hub.postgres import checks
from hub.postgres.checks import Finding
from hub.settings import Database


async def examine(settings: Database) -> AsyncIterator[Finding]:
    """The findings as they come; where Postgres cannot be reached, that is the last."""
    yield Finding("ok", "pghub", f"{version('pghub')} on Python {platform.python_version()}")
    yield Finding("ok" if loop.running() == settings.loop else "warn", "loop", loop.running())
    try:
        async with service.database(settings) as source:
            dsn = source if isinstance(source, str) else source.dsn
            kind = "from HUB_DATABASE_URL" if isinstance(source, str) else f"embedded, in {settings.folder}"
            yield Finding("ok", "database", kind)
            pooled, direct = service.target(settings, dsn), service.direct_target(settings, dsn)
            async for finding in checks.examine(pooled, direct, assets.folder("sql")):
                yield finding
    except SetupError as error:
        yield Finding("fail", "database", str(error))
