"""What the process is told by signals."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import structlog

from hub.errors import SetupError

log = structlog.get_logger()


class Signals:
    """SIGINT and SIGTERM set `stop`, and `hurry` when they come again; SIGHUP reads again what can be."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self._readers: dict[str, Callable[[], None]] = {}
        self._listening = False

    def listen(self) -> None:
        """Be told of them from now on. SIGHUP ends the process, as ever, as long as there is nothing to read again."""
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, self._end)
        self._listening = True

    def reread(self, name: str, read: Callable[[], None]) -> None:
        """Have `read` called on SIGHUP; it raises SetupError where it goes on with what it has."""
        self._readers[name] = read
        if self._listening:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)

    def _end(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()

    def reload(self) -> None:
        """Read all again. What cannot be used stays as it was, and the log says why."""
        for name, read in self._readers.items():
            try:
                read()
            except SetupError as error:
                log.warning("reload_failed", what=name, reason=str(error))
            else:
                log.info("reloaded", what=name)
