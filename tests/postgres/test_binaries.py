"""Which Postgres is chosen, and what the person at the terminal reads where none will do."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hub.errors import SetupError
from hub.postgres import binaries

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any Postgres."""
    monkeypatch.setattr(binaries, "WHEEL", "a_wheel_that_is_not_installed")
    monkeypatch.setattr(binaries, "SYSTEM", tmp_path / "no-postgresql")
    monkeypatch.setenv("PATH", str(tmp_path))


def fake_postgres(folder: Path, version: str) -> Path:
    """A directory with programs that can say their version and nothing else."""
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


def test_a_wheel_is_preferred_to_what_the_system_has() -> None:
    assert binaries.from_wheel(binaries.find())


def test_the_newest_of_a_wheel_is_preferred() -> None:
    assert binaries.find().major == max(each.major for each in binaries.installed() if binaries.from_wheel(each))


def test_finding_a_wheel_does_not_import_it() -> None:
    code = "import sys; from hub.postgres import binaries as b; b.find(); print(b.WHEEL in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == b"False"


def test_every_version_is_installed_once_and_newest_first() -> None:
    majors = [each.major for each in binaries.installed()]
    assert majors == sorted(set(majors), reverse=True)


def test_the_version_of_existing_data_decides() -> None:
    for each in binaries.installed():
        assert binaries.find(major=each.major) == each


def test_data_of_a_version_that_is_not_here_is_refused_naming_both() -> None:
    with pytest.raises(SetupError, match=rf"Postgres 12, .*here is .*{binaries.find().major} \("):
        binaries.find(major=12)


def test_a_named_directory_of_another_version_than_the_data_is_refused_naming_both() -> None:
    here = binaries.find()
    with pytest.raises(SetupError, match=rf"Postgres 12, .*{here.major} \({re.escape(str(here.bin))}, from HUB_PG_BIN"):
        binaries.find(bin_dir=here.bin, major=12)


def test_a_named_directory_wins(tmp_path: Path) -> None:
    here = fake_postgres(tmp_path / "mine", "19beta1")
    assert binaries.find(bin_dir=here) == binaries.Binaries(here, 19)


@pytest.mark.parametrize(
    "content", ["", "#!/nonexistent/interpreter", "#!/bin/sh\nexit 3\n", "#!/bin/sh\necho hello\n"]
)
def test_a_named_directory_without_a_postgres_that_runs_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "postgres").write_text(content)
    (tmp_path / "postgres").chmod(0o755)
    with pytest.raises(SetupError, match=r"HUB_PG_BIN is .* no postgres and initdb"):
        binaries.find(bin_dir=tmp_path)


def test_a_named_directory_without_initdb_is_refused(tmp_path: Path) -> None:
    (fake_postgres(tmp_path / "server", "18.1") / "initdb").unlink()
    with pytest.raises(SetupError, match="no postgres and initdb"):
        binaries.find(bin_dir=tmp_path / "server")


def test_without_any_postgres_the_advice_is_the_extra(nothing_installed: None) -> None:
    with pytest.raises(SetupError, match=r"pip install 'pghub\[embedded\]'"):
        binaries.find()
    assert binaries.installed() == []


def test_a_link_on_path_leads_to_the_directory_of_the_other_programs(
    nothing_installed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = fake_postgres(tmp_path / "opt" / "bin", "17.2")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "postgres").symlink_to(there / "postgres")
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    assert binaries.find() == binaries.Binaries(there, 17)


def test_the_system_is_searched_newest_first_and_what_is_too_old_left_out(
    nothing_installed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for version in ("9.6", "13.5", "14.1", "16.2", "15.3"):
        fake_postgres(tmp_path / "system" / version.split(".")[0] / "bin", version)
    monkeypatch.setattr(binaries, "SYSTEM", tmp_path / "system")
    monkeypatch.setenv("PATH", "/bin")
    assert [each.major for each in binaries.installed()] == [16, 15, 14]
    assert binaries.find().major == 16


def test_a_program_that_did_not_come_along_is_none() -> None:
    here = binaries.find()
    assert here.program("postgres") == here.bin / "postgres"
    assert here.program("no-such-program") is None


@pytest.fixture
def wheel(tmp_path: Path) -> binaries.Binaries:
    """Something laid out as a wheel, unpacked under a umask that shuts everybody else out."""
    here = fake_postgres(tmp_path / "site" / "carrier" / "pginstall18" / "bin", "18.1")
    libraries = tmp_path / "site" / "carrier.libs"
    libraries.mkdir()
    (libraries / "libpq.so").write_text("a library")
    for path in (tmp_path / "site").rglob("*"):
        path.chmod(0o700 if path.is_dir() or path.parent == here else 0o600)
    return binaries.Binaries(here, 18)


def test_a_copy_keeps_the_libraries_at_the_same_relative_place_and_is_open_to_read(
    wheel: binaries.Binaries, tmp_path: Path
) -> None:
    copy = binaries.copied(wheel, tmp_path / "binaries")
    library = copy.bin / "../../../carrier.libs/libpq.so"
    assert library.read_text() == "a library"
    assert stat.S_IMODE(library.stat().st_mode) == 0o644
    assert stat.S_IMODE((copy.bin / "postgres").stat().st_mode) == 0o755
    assert not any(path.stat().st_mode & 0o022 for path in (tmp_path / "binaries").rglob("*"))


def test_a_copy_that_is_there_is_used_again(wheel: binaries.Binaries, tmp_path: Path) -> None:
    first = binaries.copied(wheel, tmp_path / "binaries")
    made = (first.bin / "postgres").stat().st_ino
    assert binaries.copied(wheel, tmp_path / "binaries") == first
    assert (first.bin / "postgres").stat().st_ino == made


def test_a_wheel_installed_anew_replaces_the_copy(wheel: binaries.Binaries, tmp_path: Path) -> None:
    first = binaries.copied(wheel, tmp_path / "binaries")
    (wheel.bin / "postgres").write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.2 of a new wheel'\n")
    second = binaries.copied(wheel, tmp_path / "binaries")
    assert "of a new wheel" in (second.bin / "postgres").read_text()
    assert not first.bin.exists()
