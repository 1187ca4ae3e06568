"""A hub in a process of its own, as users run it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def serving(database: str, **settings: str) -> Iterator[tuple[str, int]]:
    """The websocket's address and the process's id."""
    environment = os.environ | {"HUB_DATABASE_URL": database, "HUB_PORT": "0", "HUB_LOG_LEVEL": "warning"} | settings
    with subprocess.Popen(
        [sys.executable, "-m", "hub", "serve"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"http://(\S+?)/", line):
                    yield f"ws://{found[1]}/ws", process.pid
                    return
        finally:
            process.terminate()
            process.wait(10)
