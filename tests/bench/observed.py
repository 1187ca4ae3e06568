"""`python -m tests.bench.observed serve` is `pghub serve` that reports at SIGUSR1, in the file HUB_TEST_REPORT."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import orjson

from hub import cli, service
from hub.fanout.fanout import Fanout


class Observed(Fanout):
    """A fan-out that can be asked."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._path = Path(os.environ["HUB_TEST_REPORT"])
        self._reports = 0
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._report)

    def _report(self) -> None:
        self._reports += 1
        found = {
            "number": self._reports,
            "sessions": len(self.sessions),
            "behind": sum(session.behind is not None for session in self.sessions),
            "groups": len(self._groups),
            "channels": len(self.channels),
            "tasks": len(asyncio.all_tasks()),
            "fds": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        }
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(orjson.dumps(found))
        fresh.replace(self._path)


if __name__ == "__main__":
    service.Fanout = Observed  # type: ignore[misc]
    cli.main()
