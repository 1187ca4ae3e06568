"""The postmaster, Postgres's first process: as whom it runs, how it is launched, what it says of itself."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from hub.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

POLL: Final = 0.01
"""Seconds between two looks at a process that starts or ends."""

LESSER: Final = ("postgres", "nobody")
"""As whom root's server runs: the first of these users that the system has."""

_PASSED_ON: Final = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ", "TMPDIR")
"""What of the environment the server gets. PG… variables would change it, HUB_… ones are secrets."""

_LAUNCHER: Final = """
import ctypes, os, sys
parent, uid, gid, *command = sys.argv[1:]
libc = ctypes.CDLL(None)
if os.geteuid() != int(uid):
    os.setgroups([int(gid)]), os.setgid(int(gid)), os.setuid(int(uid))
if sys.platform == "linux":
    libc.prctl(1, 2, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGINT; after the change of user, which would clear it
if os.getppid() != int(parent):
    sys.exit("the hub ended meanwhile")
os.execv(command[0], command)
"""
"""Becomes the command as another user, with a signal to come when the thread that launched it ends.

Popen's `user` would drop the rights before the interpreter is executed, and the server's user may have no
way to that interpreter.
"""


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A postmaster by its own account, the file postmaster.pid."""

    pid: int
    folder: str
    port: int
    ready: bool

    @property
    def dsn(self) -> str:
        """Where to connect, for asyncpg and psql alike; PGHOST and PGPORT do not matter to it."""
        return f"postgresql://postgres@/postgres?host={quote(self.folder, safe='')}&port={self.port}"

    def answers(self) -> bool:
        """Whether something listens on its socket: the file alone may be left from before a crash."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(f"{self.folder}/.s.PGSQL.{self.port}")
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except (BlockingIOError, TimeoutError):
                return True  # so busy that its queue is full
        return True


def read(cluster: Path) -> Postmaster | None:
    """The postmaster that has written itself into this cluster, dead or alive; None if there is none.

    Raises OSError if the cluster is closed to this process.
    """
    try:
        lines = (cluster / "postmaster.pid").read_text(errors="surrogateescape").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(lines) < 8:  # it has only begun to write
        return None
    return Postmaster(int(lines[0]), folder=lines[4], port=int(lines[3]), ready=lines[7].strip() == "ready")


def running(cluster: Path) -> Postmaster | None:
    """The postmaster that takes connections to this cluster now. Raises as `read` does."""
    found = read(cluster)
    return found if found and found.ready and found.answers() else None


def account(cluster: Path) -> pwd.struct_passwd:
    """As whom the server is to run: as whom this process runs, unless that is root, which Postgres refuses.

    For root it is the owner of the cluster, so that nothing changes hands, else `postgres` or `nobody`.
    Raises SetupError if there is no such user.
    """
    uid = os.geteuid() or (cluster.stat().st_uid if cluster.exists() else 0)
    try:
        return pwd.getpwuid(uid) if uid else _lesser()
    except KeyError:
        raise SetupError(
            f"Postgres would run as user {uid}, which has no entry in /etc/passwd, and it insists on one. "
            "Add the entry, or run the hub as another user."
        ) from None


def closed_to(user: pwd.struct_passwd, path: Path) -> Path | None:
    """The uppermost part of `path` that keeps the user from passing through or running it, or None.

    Judged by owner, group and mode alone; an access control list that would let the user in is not seen.
    Raises OSError if a part is missing.
    """
    path = path.absolute()
    parts = (*reversed(path.parents), path)
    return next((part for part in parts if not _may_pass(user, part.stat())), None)


def spawn(command: Sequence[str | Path], *, user: pwd.struct_passwd, folder: Path, log: int) -> subprocess.Popen[bytes]:
    """Run the command in `folder` as `user`, its output to the descriptor `log`; SIGINT when the hub ends.

    In a session of its own: a Ctrl-C at the terminal is the hub's to handle. Call it on the main thread,
    whose end counts as the hub's.
    """
    drop = (str(os.getpid()), str(user.pw_uid), str(user.pw_gid))
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"LC_ALL": "C"}
    return subprocess.Popen(  # noqa: S603 - an argument list of our own making, no shell
        [sys.executable, "-ISc", _LAUNCHER, *drop, *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )


async def ended(process: subprocess.Popen[bytes], patience: float) -> bool:
    """Whether the process ended within `patience` seconds; returns as soon as it has."""
    deadline = time.monotonic() + patience
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL)
    return True


def slay(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started, at once, and take it off the process table."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def complaint(log: Path, since: int) -> str:
    """The last thing of weight that Postgres wrote after the byte `since`, without time and severity."""
    with log.open("rb") as file:
        file.seek(max(since, log.stat().st_size - 65536))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    grave = [line for line in lines if re.search(r"\b(FATAL|PANIC|error):", line)]
    return re.sub(r"^.*?\b(FATAL|PANIC|error): +", "", (grave or lines or ["it said nothing"])[-1])


def _lesser() -> pwd.struct_passwd:
    """The user for the server where the hub is root."""
    for name in LESSER:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise SetupError(
        f"Postgres refuses to run as root, and this system has no user {' or '.join(LESSER)}. "
        "Create the first, or run the hub as an ordinary user."
    )


def _may_pass(user: pwd.struct_passwd, status: os.stat_result) -> bool:
    """Whether the execute bit is set that counts for this user: the first of owner, group and others."""
    if status.st_uid == user.pw_uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == user.pw_gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
