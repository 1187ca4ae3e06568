"""`pghub load`, as a person or a script uses it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.conftest import running
from tests.e2e.test_cli import ENVIRONMENT, PGHUB
from tests.e2e.test_durable import Follower

LINE = b'{"channel":"orders","payload":%d}\n'


def load(dsn: str, *arguments: str | Path, data: bytes = b"") -> tuple[int, str, str]:
    """The exit code and what was said."""
    command = [*PGHUB, "load", *map(str, arguments)]
    env = ENVIRONMENT | {"HUB_DATABASE_URL": dsn}
    ended = subprocess.run(command, env=env, input=data, capture_output=True, timeout=60, check=False)
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


def log(dsn: str) -> list[tuple[str, object]]:
    async def work() -> list[tuple[str, object]]:
        connection = await asyncpg.connect(dsn)
        rows = await connection.fetch("SELECT channel, payload::text FROM hub.events ORDER BY id")
        await connection.close()
        return [(row["channel"], orjson.loads(row["payload"])) for row in rows]

    return asyncio.run(work())


def test_a_file_of_lines_and_standard_input(database: str, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"".join(LINE % n for n in range(100_000)))
    assert load(database, file) == (0, "100000\n", "")
    assert load(database, "-", data=LINE % 100_000) == (0, "1\n", "")
    assert load(database, "-", "--channel", "orders", data=b"100001\n") == (0, "1\n", "")
    assert log(database) == [("orders", n) for n in range(100_002)]


def test_csv_by_its_name_or_by_its_option(database: str, tmp_path: Path) -> None:
    file = tmp_path / "events.CSV"
    file.write_text('payload,channel,tags\n"{""n"": 1}",orders,"{a,b}"\n')
    assert load(database, file) == (0, "1\n", "")
    assert load(database, "-", "--format", "csv", data=b"channel,payload\norders,2\n") == (0, "1\n", "")
    assert log(database) == [("orders", {"n": 1}), ("orders", 2)]


@pytest.mark.parametrize(
    ("name", "data", "place"),
    [
        ("a.ndjson", LINE % 1 + b"{}\n", "line 2"),
        ("a.ndjson", LINE % 1 + b'{"channel":"a","payload":"\\u0000"}\n', "line 2"),
        ("a.csv", b"channel,payload\na,1\na,x\n", "line 3"),
        ("a.csv", b"channel;payload\na;1\n", "line 1"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_loaded(
    database: str, tmp_path: Path, name: str, data: bytes, place: str
) -> None:
    (tmp_path / name).write_bytes(data)
    code, out, said = load(database, tmp_path / name)
    assert (code, out) == (1, "")
    assert said.startswith(f"pghub: {tmp_path / name}, {place}: ")
    assert said.endswith(" Nothing was loaded.\n")
    assert said.count("\n") == 1
    assert not log(database)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("nothing.ndjson",), 1, "cannot be read"),
        (("/",), 1, "cannot be read"),
        (("-", "--channel", "hub_x"), 1, "own"),
        (("a.csv", "--channel", "a"), 1, "--channel"),
        (("-", "--format", "xml"), 2, "xml"),
        ((), 2, "argument"),
    ],
)
def test_what_cannot_be_loaded(database: str, arguments: tuple[str, ...], code: int, word: str) -> None:
    found = load(database, *arguments)
    assert found[:2] == (code, "")
    assert word in found[2]


def test_a_bad_line_of_standard_input_is_named_so(database: str) -> None:
    code, _, said = load(database, "-", data=LINE % 1 + b"{}\n")
    assert code == 1
    assert said.startswith("pghub: standard input, line 2: ")


async def test_subscribers_get_it(database: str) -> None:
    async with running(database) as hub:
        follower = await Follower(["orders"]).connect(hub)
        data = b"".join(LINE % n for n in range(5_000))
        assert (await asyncio.to_thread(load, database, "-", data=data))[0] == 0
        while len(follower.payloads) < 5_000:
            await follower.take()
        assert follower.payloads == list(range(5_000))
        await follower.socket.close()


def copying(dsn: str) -> int:
    """How many loads are in the middle of their COPY."""

    async def work() -> int:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pghub load' "
                "AND datname = current_database() AND query LIKE 'COPY%'"
            )
        finally:
            await connection.close()

    return asyncio.run(work())


@contextlib.contextmanager
def waiting(dsn: str) -> Iterator[subprocess.Popen[bytes]]:
    """A load in the middle of its COPY, that waits for what comes next."""
    command, env = [*PGHUB, "load", "-"], ENVIRONMENT | {"HUB_DATABASE_URL": dsn}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(LINE % 1 * 10_000)
        process.stdin.flush()
        deadline = time.monotonic() + 30
        while not copying(dsn) and time.monotonic() < deadline:
            time.sleep(0.02)  # Postgres tells nobody
        yield process


def test_ctrl_c_leaves_nothing(database: str) -> None:
    with waiting(database) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert not log(database)


def test_a_connection_that_is_lost_ends_it_though_nothing_more_comes(database: str) -> None:
    async def cut() -> None:
        connection = await asyncpg.connect(database)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'pghub load' AND datname = current_database()"
        )
        await connection.close()

    with waiting(database) as process:
        asyncio.run(cut())
        assert process.wait(10) == 1
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert said == "pghub: The connection to Postgres was lost; try again. Nothing was loaded.\n"
    assert not log(database)


def test_at_a_terminal_there_is_a_bar(database: str, tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(b"".join(LINE % n for n in range(200_000)))
    ours, theirs = pty.openpty()
    env = ENVIRONMENT | {"HUB_DATABASE_URL": database, "TERM": "xterm", "COLUMNS": "100"}
    shown = b""
    with subprocess.Popen([*PGHUB, "load", file], env=env, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # the terminal's end
            while chunk := os.read(ours, 65_536):
                shown += chunk
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == b"200000\n"
    os.close(ours)
    assert b"MB" in shown
    assert b"/s" in shown
