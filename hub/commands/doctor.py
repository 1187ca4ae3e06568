"""Saying what the examination finds."""

from __future__ import annotations

from collections.abc import AsyncIterator

from hub import doctor
from hub.commands.work import run
from hub.postgres.checks import Finding
from hub.settings import Settings


def examine(settings: Settings | None = None) -> int:
    """Check the database and the hub's surroundings; the exit code is 1 where something is broken."""
    settings = settings or Settings()

    async def work() -> int:
        findings = [finding async for finding in _print_each(doctor.examine(settings))]
        return int(any(finding.level == "fail" for finding in findings))

    return run(settings, work())


async def _print_each(findings: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    async for finding in findings:
        print(f"{finding.level:<4}  {finding.subject:<12} {finding.text}", flush=True)
        yield finding
