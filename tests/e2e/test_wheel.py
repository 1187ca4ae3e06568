"""What `pip install` puts where."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_wheel_carries_pages_and_sql_and_runs_without_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(installed)
        names = set(packed.namelist())
    assert {f"hub/static/{path.name}" for path in (ROOT / "static").iterdir()} <= names
    assert {f"hub/sql/{path.name}" for path in (ROOT / "sql").iterdir()} <= names
    assert not [name for name in names if name.startswith("tests")]
    program = "from hub import assets; print(assets.folder('static'), assets.folder('sql'), sep='\\n')"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == [str(installed / "hub" / "static"), str(installed / "hub" / "sql")]
