"""Where the files that are no Python lie: inside the installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from hub.errors import SetupError


def folder(name: str) -> Path:
    """The folder `static` or `sql`. Raises SetupError for an installation that lost it."""
    package = Path(__file__).parent
    for parent in (package, package.parent):
        if (parent / name).is_dir():
            return parent / name
    raise SetupError(f"This installation has no folder {name!r}. Install pghub again.")
