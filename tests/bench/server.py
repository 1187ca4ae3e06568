"""A hub in a process of its own, as users run it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
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
    environment = os.environ | {"HUB_DATABASE_URL": database, "HUB_PORT": "0", "HUB_LOG_LEVEL": "warning"}
    environment |= {"HUB_MAX_RATE": "0", "HUB_MAX_CLIENTS_PER_ADDRESS": "100000", "HUB_DRAIN_SECONDS": "0"} | settings
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


class Hub:
    """A hub as a process on a fixed port, which can be killed and is started again at once."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._port = free_port()
        self._stack = contextlib.ExitStack()
        self.url = ""
        self._process = 0

    async def start(self) -> None:
        made = serving(self._dsn, HUB_PORT=str(self._port), HUB_LOG_LEVEL="error")
        self.url, self._process = await asyncio.to_thread(self._stack.enter_context, made)

    async def kill(self) -> None:
        os.kill(self._process, signal.SIGKILL)
        await asyncio.to_thread(self._stack.close)
        await self.start()

    def close(self) -> None:
        self._stack.close()
