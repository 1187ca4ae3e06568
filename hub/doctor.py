"""The examination: what could keep the hub from working here, and what to do about it."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

from hub import assets, loop, source
from hub.certificate import Certificate
from hub.errors import SetupError
from hub.postgres import checks
from hub.postgres.finding import Finding
from hub.settings import Settings
from hub.tokens import Tokens


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """The findings as they come; where Postgres cannot be reached, that is the last."""
    yield Finding("ok", "pghub", f"{version('pghub')} on Python {platform.python_version()}")
    yield Finding("ok" if loop.running() == settings.loop else "warn", "loop", loop.running())
    if settings.tls_cert is not None:
        yield _certificate(settings.tls_cert, settings.tls_key)
    if settings.wants_tokens:
        yield _tokens(settings)
    try:
        async with source.database(settings) as found:
            dsn = source.dsn(found)
            kind = "from HUB_DATABASE_URL" if isinstance(found, str) else f"embedded, in {settings.folder}"
            yield Finding("ok", "database", kind)
            pooled, direct = source.target(settings, dsn), source.direct_target(settings, dsn)
            async for finding in checks.examine(pooled, direct, assets.folder("sql")):
                yield finding
    except SetupError as error:
        yield Finding("fail", "database", str(error))


def _tokens(settings: Settings) -> Finding:
    try:
        tokens = Tokens(secret=settings.secret, public_key=settings.public_key, audience=settings.audience)
    except SetupError as error:
        return Finding("fail", "tokens", str(error))
    return Finding("ok", "tokens", f"by {' and '.join(tokens.algorithms)}")


def _certificate(certificate: Path, key: Path | None) -> Finding:
    try:
        Certificate(certificate, key)
    except SetupError as error:
        return Finding("fail", "certificate", str(error))
    return Finding("ok", "certificate", f"from {certificate}")
