"""What lies in a data directory, and what is refused in the cluster's place."""

from __future__ import annotations

import asyncio
import os
import pwd
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hub.errors import SetupError
from hub.postgres import cluster
from hub.postgres.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

ME = pwd.getpwuid(os.geteuid())


@pytest.fixture
def here() -> Iterator[Path]:
    """A short path, as a socket needs one."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def test_a_data_directory_that_exists_keeps_its_mode(here: Path) -> None:
    here.chmod(0o750)
    Cluster(here).make()
    assert stat.S_IMODE(here.stat().st_mode) == 0o750


def test_a_new_data_directory_cannot_be_looked_into(here: Path) -> None:
    Cluster(here / "a" / "b").make()
    assert not stat.S_IMODE((here / "a" / "b").stat().st_mode) & 0o066


def test_an_empty_place_has_no_version(here: Path) -> None:
    assert Cluster(here).major() is None
    (here / "postgres").mkdir()
    assert Cluster(here).major() is None


@pytest.mark.parametrize("content", [None, "not a number"])
def test_other_files_in_the_cluster_s_place_are_refused(here: Path, content: str | None) -> None:
    (here / "postgres").mkdir()
    (here / "postgres" / "letters.txt").write_text("dear")
    if content:
        (here / "postgres" / "PG_VERSION").write_text(content)
    with pytest.raises(SetupError, match="has files, but no Postgres cluster"):
        Cluster(here).major()


@pytest.mark.parametrize("name", ["x" * 120, "with,comma", 'with"quote'])
def test_a_path_that_cannot_name_a_socket_gets_one_private_directory_elsewhere(here: Path, name: str) -> None:
    data = Cluster(here / name)
    data.make()
    folder = data.socket_folder(ME)
    try:
        assert not folder.is_relative_to(here)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert data.socket_folder(ME) == folder
    finally:
        folder.rmdir()


def test_a_socket_directory_that_others_may_enter_is_not_used_again(here: Path) -> None:
    data = Cluster(here / ("x" * 120))
    data.make()
    first = data.socket_folder(ME)
    first.chmod(0o755)
    second = data.socket_folder(ME)
    assert second != first
    first.rmdir()
    second.rmdir()


def test_a_socket_directory_that_went_with_a_reboot_is_made_anew(here: Path) -> None:
    data = Cluster(here / ("x" * 120))
    data.make()
    data.socket_folder(ME).rmdir()
    folder = data.socket_folder(ME)
    assert folder.is_dir()
    folder.rmdir()


def test_a_log_is_emptied_only_when_it_is_long(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_LOG_BYTES", 10)
    data = Cluster(here)
    data.bound_log()
    data.log.write_text("0123456789")
    data.bound_log()
    assert data.log_bytes() == 10
    data.log.write_text("0123456789a")
    data.bound_log()
    assert data.log_bytes() == 0


async def test_the_lock_is_held_by_one_and_goes_to_the_next(here: Path) -> None:
    order: list[str] = []
    async with Cluster(here).locked():
        waiter = asyncio.create_task(_take(here, order))
        await asyncio.sleep(0)  # the waiter runs until it finds the lock taken
        order.append("first")
    await waiter
    assert order == ["first", "second"]


async def _take(here: Path, order: list[str]) -> None:
    async with Cluster(here).locked():
        order.append("second")


async def test_a_lock_that_is_never_released_is_given_up_with_a_sentence(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PATIENCE", 0.0)
    async with Cluster(here).locked():
        with pytest.raises(SetupError, match="Another process has been starting Postgres"):
            async with Cluster(here).locked():
                pytest.fail("two hold the lock")
