"""Saying what the examination finds."""

from __future__ import annotations

import dataclasses
import json as to_json
from typing import Annotated

from cyclopts import Parameter

from hub import doctor
from hub.commands.work import run
from hub.postgres.finding import Finding
from hub.settings import Settings


def examine(
    settings: Settings | None = None,
    *,
    json: Annotated[bool, Parameter(help="Print one JSON object, for programs.", negative="")] = False,
) -> int:
    """Check the database and the hub's surroundings; the exit code is 1 where something is broken.

    It publishes an event on the channel `pghub.doctor`.
    """
    settings = settings or Settings()

    async def work() -> int:
        findings = []
        async for finding in doctor.examine(settings):
            findings.append(finding)
            if not json:
                print(f"{finding.level:<4}  {finding.subject:<12} {finding.text}", flush=True)
        if json:
            print(_as_json(findings))
        return int(_broken(findings))

    return run(settings, work())


def _broken(findings: list[Finding]) -> bool:
    return any(finding.level == "fail" for finding in findings)


def _as_json(findings: list[Finding]) -> str:
    report = {"ok": not _broken(findings), "findings": [dataclasses.asdict(finding) for finding in findings]}
    return to_json.dumps(report, ensure_ascii=False)
