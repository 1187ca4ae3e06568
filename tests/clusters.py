"""Clusters beside one another: standbys, promotions, crashes that take commits back, upgrades."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from hub.postgres import binaries, postmaster
from hub.postgres.embedded import Embedded

QUICK: Mapping[str, str] = {"autovacuum": "off", "checkpoint_timeout": "1h", "max_connections": "60"}


class Cluster:
    """A Postgres of its own below `folder`, which a test starts, crashes, copies and promotes."""

    def __init__(self, folder: Path, *, major: int | None = None, options: Mapping[str, str] = {}) -> None:
        self.folder = folder
        self.programs = binaries.find(major=major)
        self.server = Embedded(folder, bin_dir=self.programs.bin, options=QUICK | options)

    @property
    def dsn(self) -> str:
        return self.server.dsn

    @property
    def host(self) -> str:
        """The folder of its socket."""
        return parse_qs(urlsplit(self.dsn).query)["host"][0]

    @property
    def reachable(self) -> Path:
        """The folder of its programs, where the user that the server runs as can run them."""
        return next((self.folder / "binaries").glob("*/*/*/bin"), self.programs.bin)

    async def start(self) -> Cluster:
        await self.server.start()
        return self

    async def stop(self) -> None:
        await self.server.stop()

    def run(self, program: str, *arguments: str | Path) -> str:
        """What a program of this Postgres prints."""
        command = [self.programs.bin / program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def execute(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.dsn)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    def copy(self, folder: Path) -> Cluster:
        """A standby of this one, to be started."""
        folder.mkdir(mode=0o711)
        self.run("pg_basebackup", "-D", folder / "postgres", "-R", "-X", "stream", "-c", "fast", "-d", self.dsn)
        return Cluster(folder, major=self.programs.major)

    def follow(self, primary: Cluster) -> None:
        """Let this one, which is stopped, be a standby of `primary` from its next start on."""
        data = self.folder / "postgres"
        (data / "standby.signal").touch()
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = 'user=postgres host={primary.host}'\n")

    async def in_step(self, standby: Cluster) -> None:
        """Return when `standby` shows all that is committed here; nothing signals that."""
        mine, other = await asyncpg.connect(self.dsn), await asyncpg.connect(standby.dsn)
        there = await mine.fetchval("SELECT pg_current_wal_insert_lsn()::text")
        async with asyncio.timeout(20):
            while not await other.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", there):
                await asyncio.sleep(0.02)
        await mine.close()
        await other.close()

    async def cut_off(self) -> None:
        """Let this standby hear no more of its primary."""
        connection = await asyncpg.connect(self.dsn)
        await connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
        await connection.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(20):
            while await connection.fetchval("SELECT count(*) FROM pg_stat_wal_receiver WHERE pid IS NOT NULL"):
                await asyncio.sleep(0.02)
        await connection.close()

    async def promote(self) -> None:
        await self.execute("SELECT pg_promote()")

    async def hold_back_the_disk(self) -> None:
        """Have commits stay in memory that do not insist on the disk: the process that writes them later is stopped."""
        connection = await asyncpg.connect(self.dsn)
        self._writer = await connection.fetchval("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
        await connection.close()
        os.kill(self._writer, signal.SIGSTOP)

    async def crash(self) -> None:
        """End it as a power cut does: what was not written is gone."""
        found = postmaster.read(self.folder / "postgres")
        assert found is not None
        os.kill(found.pid, signal.SIGKILL)
        with suppress(AttributeError, ProcessLookupError):
            os.kill(self._writer, signal.SIGKILL)
        await self.server.stop()
