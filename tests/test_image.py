"""What the Dockerfile says, done without an engine: its wheel, its checks of health, its PgBouncer."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from tests.conftest import Hub, temporary_folder
from tests.tls import free_port

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def stage(name: str) -> str:
    """The lines of one stage."""
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def said(name: str, instruction: str) -> list[str]:
    """What a stage says by one instruction, which comes there as a JSON array."""
    found = re.search(rf"^{instruction}[^\[\n]*(\[.*\])$", stage(name), re.MULTILINE)
    assert found is not None
    return list(json.loads(found[1]))


def test_the_linter_finds_nothing() -> None:
    run = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_what_is_copied_from_the_context_makes_the_wheel(tmp_path: Path) -> None:
    """What .dockerignore keeps away is not there, and neither is what no COPY names."""
    everything, *rules = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert everything == "*"
    named = [name for line in re.findall(r"^COPY (.*) \S+$", stage("build"), re.MULTILINE) for name in line.split()]
    assert {f"!{name}" for name in named} | {"**/__pycache__"} == set(rules)
    source = tmp_path / "source"
    source.mkdir()
    for name in named:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = zipfile.ZipFile(wheel).namelist()
    assert fnmatch.filter(files, "hub/sql/*.sql")
    assert "hub/static/index.html" in files


def test_nothing_runs_as_root() -> None:
    for name in ("hub", "pgbouncer"):
        assert re.findall(r"^USER (\d+):(\d+)$", stage(name), re.MULTILINE)[-1] > ("0", "0")


def test_the_image_starts_the_hub_which_refuses_to_be_open_to_all(tmp_path: Path) -> None:
    (program,) = said("hub", "ENTRYPOINT")
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    stated = dict(re.findall(r"(HUB_\w+)=(\S+)", stage("hub")))
    others = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    command = [sys.executable, "-m", "hub", *said("hub", "CMD")]
    run = subprocess.run(command, cwd=tmp_path, env=others | stated, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "Set HUB_SECRET" in run.stderr


async def test_the_check_of_health_sees_whether_the_hub_is_alive(hub: Hub) -> None:
    program, *arguments = said("hub", "HEALTHCHECK")
    assert program == "python"

    async def check(port: int) -> int:
        environment = os.environ | {"HUB_PORT": str(port)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        return await process.wait()

    port = urlsplit(hub.url).port
    assert port is not None
    assert await check(port) == 0
    assert await check(free_port()) == 1


@contextmanager
def bouncing(dsn: str, password: str) -> Iterator[str]:
    """The image's PgBouncer on the database at `dsn`, and where it is; started by the image's own words."""
    query, port = parse_qs(urlsplit(dsn).query), free_port()
    postgres = f"host={query['host'][0]} port={query['port'][0]} dbname={urlsplit(dsn).path[1:]} user=postgres"
    found = re.search(r"^COPY <<END (\S+)\n(.*?)^END\n", stage("pgbouncer"), re.DOTALL | re.MULTILINE)
    assert found is not None
    configuration = found[2]
    shell, option, script = said("pgbouncer", "ENTRYPOINT")
    with temporary_folder() as folder:
        for stated, here in (
            ("host=database port=5432", postgres),
            ("listen_addr = *", "listen_addr = 127.0.0.1"),
            ("listen_port = 5432", f"listen_port = {port}"),
            ("/tmp/users.txt", f"{folder}/users.txt"),
        ):
            assert stated in configuration
            configuration = configuration.replace(stated, here)
        (folder / "hub.ini").write_text(configuration)
        script = script.replace("/tmp/users.txt", f"{folder}/users.txt").replace(found[1], f"{folder}/hub.ini")
        command = [shell, option, script.replace("exec pgbouncer", f"exec {PGBOUNCER}")]
        owner = Path(query["host"][0]).stat().st_uid
        if os.geteuid() == 0:  # which PgBouncer refuses to run as
            os.chown(folder, owner, -1)
            command = ["setpriv", f"--reuid={owner}", "--clear-groups", *command]
        process = subprocess.Popen(command, env=os.environ | {"PGPASSWORD": password}, stderr=subprocess.DEVNULL)
        try:
            check = [word.replace("5432", str(port)) for word in said("pgbouncer", "HEALTHCHECK")]
            while subprocess.run(check, stderr=subprocess.DEVNULL, check=False).returncode:
                assert process.poll() is None  # else it is a matter of time, of which it tells nobody
            yield f"postgresql://hub@127.0.0.1:{port}/hub"
        finally:
            process.kill()
            process.wait()


@pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed (Debian: apt-get install pgbouncer)")
async def test_pgbouncer_lets_in_who_has_the_password_whatever_it_is(database: str) -> None:
    password = "it's \"p@$$:/ %s\\n"
    with bouncing(database, password) as url:
        connection = await asyncpg.connect(url, password=password, statement_cache_size=0)
        assert await connection.fetchval("SELECT current_database()") == urlsplit(database).path[1:]
        await connection.close()
        with pytest.raises(asyncpg.PostgresError, match="SASL authentication failed"):
            await asyncpg.connect(url, password="another")
