"""A data directory: the cluster in it, and what the hub keeps beside the cluster."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hub.errors import SetupError
from hub.postgres import postmaster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pwd import struct_passwd
    from subprocess import Popen

    from hub.postgres.binaries import Binaries

PATIENCE: Final = 300.0
"""Seconds that a start may take: after a crash Postgres first replays its write-ahead log."""

_LOG_BYTES: Final = 10 * 1024 * 1024

_SOCKET_BYTES: Final = 103 - len("/.s.PGSQL.65535")
"""The longest socket directory: its address has 108 bytes on Linux and 104 on macOS, the last one zero."""

_UNFINISHED: Final = ".unfinished-"
"""How the name of a cluster starts while initdb works on it."""


class Cluster:
    """`folder` is the data directory; `data` the cluster proper (PGDATA), `log` what its server says.

    `binaries` is the place for a copy of the programs. What is not documented otherwise raises OSError
    where the directory does not allow it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "postgres"
        self.log = self.folder / "postgres.log"
        self.binaries = self.folder / "binaries"

    def make(self) -> None:
        """See that the data directory is there; one that exists keeps its owner and mode."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.folder.mkdir()
        except FileExistsError:
            if not self.folder.is_dir():
                raise
        else:
            # Root's server runs as somebody else, who has to pass through; nobody has to look around.
            self.folder.chmod(0o700 if os.geteuid() else 0o711)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Keep other processes, and other tasks, from starting a server here meanwhile.

        Raises SetupError if one of them takes longer than a start may.
        """
        handle = os.open(self.folder, os.O_RDONLY)  # the directory is its own lock file
        try:
            deadline = time.monotonic() + PATIENCE
            while not _locks(handle):
                if time.monotonic() > deadline:
                    raise SetupError(
                        f"Another process has been starting Postgres in {self.folder} for too long. End it."
                    )
                await asyncio.sleep(postmaster.POLL)
            yield
        finally:
            os.close(handle)

    def major(self) -> int | None:
        """The version of Postgres that made the cluster; None before there is one.

        Raises SetupError if something else is in its place.
        """
        if not self.data.exists() or not any(self.data.iterdir()):
            return None
        marker = self.data / "PG_VERSION"
        version = re.match(r"\d+", marker.read_text()) if marker.exists() else None
        if version is None:
            raise SetupError(f"{self.data} has files, but no Postgres cluster. Move them away, or set HUB_DATA_DIR.")
        return int(version[0])

    def clear(self) -> None:
        """Remove what a hub left that was killed in its first start; what resists is for the next start.

        Its initdb ends with it, but may for a moment still write where this deletes.
        """
        for left in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)

    async def initialise(self, programs: Binaries, user: struct_passwd) -> None:
        """Make the cluster, all at once or not at all, owned by `user`. Raises SetupError if initdb fails."""
        with self._unfinished() as fresh:
            await self._initdb(programs, _give(fresh, user), user)

    def claim(self, user: struct_passwd) -> None:
        """Make a cluster that root owns, as after a copy by root, over to `user`."""
        if os.geteuid() == 0 and self.data.stat().st_uid == 0:
            for place, folders, files in os.walk(self.data):
                for name in ("", *folders, *files):
                    os.chown(Path(place, name), user.pw_uid, user.pw_gid, follow_symlinks=False)

    def socket_folder(self, user: struct_passwd) -> Path:
        """The directory for the server's socket, for `user` alone: beside the cluster if its path may be one.

        Else a temporary directory, the same one again as long as it exists.
        """
        beside = self.folder / "socket"
        if len(os.fsencode(beside)) > _SOCKET_BYTES or set(str(beside)) & set(',"'):  # which lists of sockets use
            return self._distant(self.folder / "socket-elsewhere", user)
        beside.mkdir(mode=0o700, exist_ok=True)
        return _give(beside, user)

    def spawn(self, command: Sequence[str | Path], user: struct_passwd) -> Popen[bytes]:
        """Launch a program of the server's as `postmaster.spawn` does, its output at the end of the log."""
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.geteuid() == 0:
                os.fchown(log, user.pw_uid, user.pw_gid)
            return postmaster.spawn(command, user=user, folder=self.folder, log=log)
        finally:
            os.close(log)

    def log_bytes(self) -> int:
        """How long the log is: what is written from now on begins there."""
        return self.log.stat().st_size if self.log.exists() else 0

    def bound_log(self) -> None:
        """Empty a log that has grown over 10 MB; the server goes on writing to it."""
        if self.log_bytes() > _LOG_BYTES:
            os.truncate(self.log, 0)

    @contextmanager
    def _unfinished(self) -> Iterator[Path]:
        """An empty directory that becomes the cluster if the block succeeds, and goes if it fails."""
        fresh = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.folder))
        try:
            yield fresh
            fresh.rename(self.data)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    async def _initdb(self, programs: Binaries, folder: Path, user: struct_passwd) -> None:
        since = self.log_bytes()
        locale = ("--locale-provider=builtin", "--locale=C.UTF-8") if programs.major >= 17 else ("--locale=C",)
        options = (
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "-k",
            "--no-instructions",
            *locale,
        )
        process = self.spawn([programs.bin / "initdb", "-D", folder, *options], user)
        try:
            done = await postmaster.ended(process, PATIENCE)
        finally:
            postmaster.slay(process)
        if not done or process.returncode:
            fault = postmaster.complaint(self.log, since)
            raise SetupError(f"Postgres {programs.major} could not make a cluster: {fault}. See {self.log}.")

    def _distant(self, link: Path, user: struct_passwd) -> Path:
        """The directory that `link` remembers, or a new one if that went with a reboot or is not private."""
        if not _is_private(link, user):
            link.unlink(missing_ok=True)
            link.symlink_to(_give(Path(tempfile.mkdtemp(prefix="pghub-")), user))
        return link.readlink()


def _give(folder: Path, user: struct_passwd) -> Path:
    """The folder, made over to `user` where this process may do so."""
    if os.geteuid() == 0:
        os.chown(folder, user.pw_uid, user.pw_gid)
    return folder


def _locks(handle: int) -> bool:
    """Whether the lock could be had; it goes with the handle, also when the process is killed."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_private(folder: Path, user: struct_passwd) -> bool:
    """Whether it is a directory of this user's that nobody else may enter."""
    try:
        status = folder.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == user.pw_uid and not status.st_mode & 0o077
