"""The command `pghub`, as a person or a script uses it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import orjson
import pytest

PGHUB = [sys.executable, "-m", "hub"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}


def pghub(*arguments: str, env: dict[str, str] | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PGHUB, *arguments],
        env=ENVIRONMENT | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextlib.contextmanager
def serving(*arguments: str, env: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`pghub serve`, and what it greeted with."""
    with subprocess.Popen(
        [*PGHUB, "serve", "--port", "0", *arguments],
        env=ENVIRONMENT | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, read_until(process.stdout, "Ctrl-C")
        finally:
            process.kill()


def read_until(stream: IO[str] | None, word: str) -> str:
    assert stream is not None
    text = ""
    while word not in text:
        line = stream.readline()
        assert line, text
        text += line
    return text


def ws_of(greeting: str) -> str:
    found = re.search(r"http://(\S+?)/", greeting)
    assert found
    return f"ws://{found[1]}/ws"


def test_demo_is_alive_and_ctrl_c_stops_everything(data_dir: Path) -> None:
    """The demo on a fresh embedded Postgres: its orders arrive, its lines can be copied, it leaves nothing running."""
    data = data_dir
    with serving("--demo", "--data-dir", str(data)) as (process, greeting):
        assert "psql" in greeting
        assert "new WebSocket" in greeting
        with subprocess.Popen(
            [*PGHUB, "listen", "--url", ws_of(greeting), "orders"], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        ) as listener:
            assert listener.stdout is not None
            order = orjson.loads(listener.stdout.readline())
            assert order["channel"] == "orders"
            assert order["payload"]["order"]["total"] > 0
            listener.send_signal(signal.SIGINT)
            assert listener.wait(5) == 130
        pid = int((data / "postgres" / "postmaster.pid").read_text().split()[0])
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        took = time.monotonic() - started
        assert not (data / "postgres" / "postmaster.pid").exists()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert took < 10, "a bound against hanging; README states the usual time"
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_dsn_psql_publish_and_listen_work_beside_a_running_hub(data_dir: Path) -> None:
    folder = ("--data-dir", str(data_dir))
    with serving(*folder) as (_, greeting):
        dsn = pghub("dsn", *folder)
        assert dsn.stdout.strip() in greeting
        with subprocess.Popen(
            [*PGHUB, "listen", "--url", ws_of(greeting), "orders"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as listener:
            read_until(listener.stderr, "listening to orders")
            psql = pghub("psql", *folder, "-c", "NOTIFY orders, '1'")
            assert psql.stdout == "NOTIFY\n", psql
            assert pghub("publish", *folder, "orders", '{"n":2}').returncode == 0
            assert pghub("publish", *folder, "orders", "-3").returncode == 0
            assert listener.stdout is not None
            lines = [orjson.loads(listener.stdout.readline())["payload"] for _ in range(3)]
            assert lines == [1, {"n": 2}, -3]
            listener.kill()


def test_commands_start_and_stop_the_embedded_postgres_where_no_hub_runs(data_dir: Path) -> None:
    folder = ("--data-dir", str(data_dir))
    assert pghub("migrate", *folder).returncode == 0
    assert "up to date" in pghub("migrate", *folder).stdout
    assert pghub("psql", *folder, "-Atc", "SELECT count(*) FROM hub.migrations").stdout.strip().isdigit()
    assert pghub("dsn", *folder).returncode == 1
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_doctor_finds_a_healthy_database_healthy(database: str) -> None:
    report = pghub("doctor", env={"HUB_DATABASE_URL": database})
    assert report.returncode == 0, report
    assert "fail" not in report.stdout
    assert re.search(r"ok +loop +uvloop", report.stdout)
    assert re.search(r"ok +notify +arrives", report.stdout)


def test_doctor_says_what_is_broken_and_ends_with_1() -> None:
    report = pghub("doctor", env={"HUB_DATABASE_URL": "postgresql://me:s3cret@127.0.0.1:1/x"})
    assert report.returncode == 1
    assert re.search(r"fail +database +.*127\.0\.0\.1", report.stdout)
    assert "s3cret" not in report.stdout + report.stderr


def test_doctor_names_the_loop_that_really_runs(database: str) -> None:
    report = pghub("doctor", "--loop", "asyncio", env={"HUB_DATABASE_URL": database})
    assert re.search(r"ok +loop +asyncio", report.stdout)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_start_up_log_names_the_loop_that_really_runs(database: str, loop: str) -> None:
    with serving(env={"HUB_DATABASE_URL": database, "HUB_LOOP": loop}) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        events = [orjson.loads(line) for line in process.stderr.read().splitlines()]
        assert [entry["loop"] for entry in events if entry["event"] == "serving"] == [loop]


def complains(run: subprocess.CompletedProcess[str], *words: str) -> None:
    """One sentence or two for a person, no traceback, and a code that scripts notice."""
    assert run.returncode not in (0, None), run
    assert "Traceback" not in run.stderr, run.stderr
    for word in words:
        assert word in run.stderr + run.stdout, run


def test_a_port_in_use_is_told(database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        complains(pghub("serve", "--port", port, env={"HUB_DATABASE_URL": database}), port, "--port")


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("postgresql://127.0.0.1:1/x", "127.0.0.1"),
        ("postgresql://nobody.invalid/x", "nobody.invalid"),
        ("mysql://localhost/x", "postgresql://"),
        ("not a url", "postgresql://"),
    ],
)
def test_a_database_that_cannot_be_reached_is_told(url: str, word: str) -> None:
    complains(pghub("serve", env={"HUB_DATABASE_URL": url}), word)


def test_a_database_that_does_not_exist_is_told(database: str) -> None:
    url = re.sub(r"/[^/?]+(\?|$)", r"/nowhere\1", database)
    complains(pghub("migrate", env={"HUB_DATABASE_URL": url}), "nowhere")


@pytest.mark.parametrize(
    ("arguments", "env", "word"),
    [
        (["serve", "--host", "0.0.0.0"], {}, "0.0.0.0"),
        (["serve", "--port", "99999"], {}, "port"),
        (["serve"], {"HUB_PORT": "abc"}, "HUB_PORT"),
        (["serve", "--nonsense"], {}, "nonsense"),
        (["serve", "--loop", "trio"], {}, "trio"),
        (["serve", "--log-level", "loud"], {}, "loud"),
        (["serve"], {"HUB_DATABASE_CA": "/nowhere/ca.pem"}, "HUB_DATABASE_CA"),
        (["listen"], {}, "channel"),
        (["listen", "--url", "http://127.0.0.1", "a"], {}, "ws://"),
        (["publish", "", "1"], {}, "empty"),
        (["publish", "a", "x" * 8000], {}, "7999"),
        (["frobnicate"], {}, "frobnicate"),
    ],
)
def test_bad_settings_are_told_by_name(tmp_path: Path, arguments: list[str], env: dict[str, str], word: str) -> None:
    complains(pghub(*arguments, env={"HUB_DATA_DIR": str(tmp_path / "data")} | env), word)


def test_a_settings_file_is_read_and_the_environment_beats_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HUB_PORT=abc\nOTHER=1\n")
    command = [*PGHUB, "serve"]
    environment = ENVIRONMENT | {"PYTHONPATH": str(Path.cwd())}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    complains(run, "HUB_PORT")


def test_listen_to_what_is_no_hub_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with subprocess.Popen(
            [*PGHUB, "listen", "--url", f"ws://127.0.0.1:{port}/ws", "a"],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        ) as listener:
            connection, _ = silent.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            assert listener.wait(10) == 1
            assert listener.stderr is not None
            assert "404" in listener.stderr.read()
            connection.close()


def test_the_reader_of_a_pipe_may_leave(database: str) -> None:
    """`pghub listen orders | head -1` ends quietly."""
    with (
        serving(env={"HUB_DATABASE_URL": database}) as (_, greeting),
        subprocess.Popen(
            [*PGHUB, "listen", "--url", ws_of(greeting), "a"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as listener,
    ):
        read_until(listener.stderr, "listening")
        assert listener.stdout is not None
        listener.stdout.close()
        pghub("publish", "a", "1", env={"HUB_DATABASE_URL": database})
        assert listener.wait(10) == 0
        assert listener.stderr is not None
        assert "Traceback" not in listener.stderr.read()
