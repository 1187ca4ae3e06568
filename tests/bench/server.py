"""A hub in a process of its own, as users run it."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator


def free_port() -> int:
    """A port that is free now, for a hub that is to come back on it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


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
