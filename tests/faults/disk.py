"""A small disk that can be full, where this process may make one: a tmpfs, which takes root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = "512m"  # of memory at the most, and only as far as it is used


class Disk:
    """A folder for a data directory. Where it is no disk of its own, it cannot be filled."""

    def __init__(self, folder: Path, *, own: bool) -> None:
        self.folder = folder
        self.own = own
        self._ballast = folder / "ballast"

    @classmethod
    @contextmanager
    def below(cls, folder: Path) -> Iterator[Disk]:
        """A disk for as long as the block lasts."""
        place = folder / "data"
        place.mkdir(mode=0o711)
        command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=711", "pghub-test", place]
        own = not os.geteuid() and subprocess.run(command, capture_output=True, check=False).returncode == 0
        try:
            yield cls(place, own=own)
        finally:
            if own:
                subprocess.run(["umount", "--lazy", place], check=True)

    def fill(self) -> None:
        """Leave no room."""
        with self._ballast.open("wb") as ballast:
            while (free := os.statvfs(self.folder)).f_bavail:
                os.posix_fallocate(ballast.fileno(), ballast.seek(0, 2), free.f_bavail * free.f_frsize)

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)
