"""As whom the server runs, and what can be learnt from the files of a postmaster."""

from __future__ import annotations

import os
import pwd
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hub.errors import SetupError
from hub.postgres import postmaster
from hub.postgres.postmaster import Postmaster

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def here() -> Iterator[Path]:
    """A short path, as a socket needs one."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def write_pid_file(here: Path, status: str = "ready   ") -> None:
    (here / "postmaster.pid").write_text(f"1\n{here}\n1700000000\n5433\n{here}\n\n  1234  5\n{status}\n")


def test_the_pid_file_names_the_socket_and_the_state(here: Path) -> None:
    write_pid_file(here)
    assert postmaster.read(here) == Postmaster(1, folder=str(here), port=5433, ready=True)


@pytest.mark.parametrize("status", ["starting", "stopping", "standby "])
def test_only_ready_is_ready(here: Path, status: str) -> None:
    write_pid_file(here, status)
    found = postmaster.read(here)
    assert found is not None
    assert not found.ready


def test_a_half_written_or_missing_pid_file_names_nobody(here: Path) -> None:
    assert postmaster.read(here) is None
    (here / "postmaster.pid").write_text("1\n/somewhere\n")
    assert postmaster.read(here) is None


def test_a_pid_file_from_before_a_crash_is_not_believed(here: Path) -> None:
    """Its process id may be another program's by now; only who answers on the socket is running."""
    write_pid_file(here)
    assert postmaster.running(here) is None
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(here / ".s.PGSQL.5433"))
        assert postmaster.running(here) is None
        server.listen()
        assert postmaster.running(here) is not None


def test_the_dsn_escapes_what_a_url_reserves() -> None:
    dsn = Postmaster(1, folder="/a b/c&d?e", port=5432, ready=True).dsn
    assert dsn == "postgresql://postgres@/postgres?host=%2Fa%20b%2Fc%26d%3Fe&port=5432"


def test_the_complaint_is_the_last_grave_line_without_time_and_severity(here: Path) -> None:
    log = here / "postgres.log"
    log.write_text("2026-01-01 UTC [7] FATAL:  of an older start\n")
    since = log.stat().st_size
    with log.open("a") as file:
        file.write(
            "2026-01-01 UTC [8] FATAL:  could not do it\n2026-01-01 UTC [8] LOG:  database system is shut down\n\n"
        )
    assert postmaster.complaint(log, since) == "could not do it"


def test_where_nothing_was_grave_the_last_line_is_the_complaint(here: Path) -> None:
    log = here / "postgres.log"
    log.write_text("")
    assert postmaster.complaint(log, 0) == "it said nothing"
    log.write_text("first\nexec format problem\n")
    assert postmaster.complaint(log, 0) == "exec format problem"


def test_the_uppermost_directory_that_shuts_a_user_out_is_named(here: Path) -> None:
    here.chmod(0o711)
    (here / "closed" / "also-closed").mkdir(parents=True)
    (here / "closed" / "also-closed").chmod(0o700)
    (here / "closed").chmod(0o700)
    stranger = pwd.struct_passwd(("stranger", "", os.getuid() + 1, 4321, "", "/", ""))
    assert postmaster.closed_to(stranger, here / "closed" / "also-closed") == here / "closed"
    assert postmaster.closed_to(stranger, here) is None
    myself = pwd.struct_passwd(("me", "", os.getuid(), os.getgid(), "", "/", ""))
    assert postmaster.closed_to(myself, here / "closed" / "also-closed") is None


def test_a_bit_for_others_does_not_help_who_is_in_the_group(here: Path) -> None:
    """The first class that fits decides, as the kernel has it."""
    here.chmod(0o701)
    member = pwd.struct_passwd(("member", "", os.getuid() + 1, here.stat().st_gid, "", "/", ""))
    assert postmaster.closed_to(member, here) == here


def test_an_ordinary_user_runs_the_server_themself(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    assert postmaster.account(here / "postgres") == NOBODY


def test_root_runs_the_server_as_somebody_else(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert postmaster.account(here / "postgres").pw_name in ("postgres", "nobody")


def test_root_without_anybody_to_run_the_server_reads_what_to_do(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(postmaster, "LESSER", ("no_such_user", "nor_this_one"))
    with pytest.raises(SetupError, match="no user no_such_user or nor_this_one"):
        postmaster.account(here / "postgres")


def test_a_user_id_without_a_name_is_refused_with_advice(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999)
    with pytest.raises(SetupError, match="user 3999999, which has no entry in /etc/passwd"):
        postmaster.account(here / "postgres")
