"""The hub as a process of its own, by its real command line, to be sent signals."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any, Self

import orjson

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}


class Process:
    """`python -m MODULE serve` with `settings`, on a free port unless they name one; what it logs is kept in `log`."""

    def __init__(self, log: Path, *, module: str = "hub", **settings: str) -> None:
        self._log = log
        self._module = module
        self._settings = {"HUB_PORT": "0"} | settings
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end(signal.SIGKILL)

    async def start(self) -> None:
        """Return once it serves."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", self._module, "serve"),
                env=ENVIRONMENT | self._settings,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if found := re.search(rb"http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(found[1])
                return
        raise AssertionError(self._log.read_text())

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal; what the process exits with, negative if by one."""
        assert self._process is not None
        if self._process.returncode is None:
            self.signal(number)
        async with asyncio.timeout(60):
            return await self._process.wait()

    def logged(self) -> list[dict[str, Any]]:
        """All events in the log, which has to be nothing else: a traceback is no line of JSON."""
        return [orjson.loads(line) for line in self._log.read_bytes().splitlines()]
