"""`pghub export`: what the log has, into a file or a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import orjson
import pytest

from tests.e2e.test_cli import ENVIRONMENT, PGHUB, pghub
from tests.e2e.test_history import FILL
from tests.e2e.test_watched import connected


def fill(database: str, count: int, size: int = 10) -> None:
    async def execute(statement: str) -> None:
        async with connected(database) as owner:
            await owner.execute(statement)

    asyncio.run(execute(FILL.format("'a.' || n % 2", f"to_jsonb(repeat('x', {size}))", count)))


def test_lines_and_columns(database: str, tmp_path: Path) -> None:
    fill(database, 1_000)
    env = {"HUB_DATABASE_URL": database}
    done = pghub("export", "a.0", "a.1", "--tag", "x", env=env)
    events = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr, len(events)) == (0, "", 1_000)
    assert list(events[0]) == ["channel", "id", "at", "payload", "tags"]
    file = tmp_path / "events.csv"
    assert pghub("export", "a.*", "--last", "10", "-o", str(file), env=env).returncode == 0
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [int(row["id"]) for row in rows] == [event["id"] for event in events[-10:]]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--last", "0"], "whole number"),
        (["--since", "abc"], "cursor"),
        (["--from", "yesterday"], "time"),
        (["$hub"], "own"),
        (["a**"], "pattern"),
        (["-o", "/nowhere/at/all"], "cannot be written"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(database: str, arguments: list[str], word: str) -> None:
    done = pghub("export", *arguments, env={"HUB_DATABASE_URL": database})
    assert (done.returncode, done.stdout) == (1, "")
    assert word in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("form", ["csv", "ndjson"])
def test_a_reader_that_closes_the_pipe_ends_it_quietly(database: str, form: str) -> None:
    fill(database, 5_000, size=1_000)
    command = [*PGHUB, "export", "--format", form]
    env = ENVIRONMENT | {"HUB_DATABASE_URL": database}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_ctrl_c_leaves_no_half_file(database: str, tmp_path: Path) -> None:
    fill(database, 100_000, size=1_000)
    file = tmp_path / "events"
    file.write_text("the old one")
    command = [*PGHUB, "export", "--format", "ndjson", "-o", str(file)]
    env = ENVIRONMENT | {"HUB_DATABASE_URL": database}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        limit = time.monotonic() + 20
        while not any(each.stat().st_size for each in tmp_path.glob(".events.*")):  # a file gives no signal
            assert time.monotonic() < limit
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert file.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("into", ["file", "terminal"])
def test_at_a_terminal_it_shows_how_much_there_is_or_the_events_alone(database: str, tmp_path: Path, into: str) -> None:
    fill(database, 1_000)
    ours, theirs = pty.openpty()
    env = ENVIRONMENT | {"HUB_DATABASE_URL": database, "TERM": "xterm", "COLUMNS": "100"}
    command = [*PGHUB, "export", *(("-o", tmp_path / "events") if into == "file" else ())]
    shown = b""
    with subprocess.Popen(command, env=env, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # the terminal's end
            while chunk := os.read(ours, 65_536):
                shown += chunk
        assert process.wait(30) == 0
    os.close(ours)
    if into == "file":
        assert b"kB" in shown
        assert b"channel" not in shown
    else:
        assert [orjson.loads(line)["channel"] for line in shown.splitlines()] == ["a.1", "a.0"] * 500
