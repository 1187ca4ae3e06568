"""The command `pghub`, as a person or a script uses it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import asyncpg
import orjson
import pytest

from hub import cli, protocol
from hub.cursor import Cursor
from hub.errors import SetupError
from hub.snapshot import NOTHING

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
def serving(
    *arguments: str, env: dict[str, str] | None = None, port: int = 0
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`pghub serve`, and what it greeted with."""
    with subprocess.Popen(
        [*PGHUB, "serve", "--port", str(port), *arguments],
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


@contextlib.contextmanager
def listening(*arguments: str | Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """`pghub listen`, killed at the end."""
    with subprocess.Popen(
        [*PGHUB, "listen", *map(str, arguments)],
        env=ENVIRONMENT | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def payloads(listener: subprocess.Popen[str], count: int) -> list[object]:
    """Those of the next events that it prints."""
    assert listener.stdout is not None
    return [orjson.loads(listener.stdout.readline())["payload"] for _ in range(count)]


def execute(dsn: str, statement: str, *arguments: object) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(statement, *arguments)
        await connection.close()

    asyncio.run(work())


def insert(dsn: str, numbers: Iterable[int], channel: str = "a") -> None:
    """Durable events, in one transaction; the payload is the number."""
    statement = "INSERT INTO hub.events (channel, payload) SELECT $1, to_jsonb(n) FROM unnest($2::int[]) AS t (n)"
    execute(dsn, statement, channel, list(numbers))


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
            assert order["payload"]["new"]["total"] > 0
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
            assert payloads(listener, 3) == [1, {"n": 2}, -3]
            listener.kill()


def test_commands_start_and_stop_the_embedded_postgres_where_no_hub_runs(data_dir: Path) -> None:
    folder = ("--data-dir", str(data_dir))
    complains(pghub("publish", *folder, "a", "1"), "pghub migrate")
    assert pghub("migrate", *folder).returncode == 0
    assert pghub("publish", *folder, "a", "1").stdout == "1\n"
    assert "up to date" in pghub("migrate", *folder).stdout
    assert pghub("psql", *folder, "-Atc", "SELECT count(*) FROM hub.migrations").stdout.strip().isdigit()
    assert pghub("dsn", *folder).returncode == 1
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_the_environment_sets_settings_and_no_options_of_commands(database: str) -> None:
    environment = {"HUB_DATABASE_URL": database, "HUB_KEY": "left", "HUB_TAG": "over", "HUB_NOTIFY": "1"}
    ids = [pghub("publish", "orders", "1", env=environment).stdout for _ in range(2)]
    assert ids == ["1\n", "2\n"]


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
        (["listen", "--since", "x", "--last", "1", "a"], {}, "exclude"),
        (["listen", "--last", "0", "a"], {}, "--last"),
        (["listen", "--last", "1001", "a"], {}, "--last"),
        (["listen", "--state", "/nowhere/state", "a"], {}, "no such folder"),
        (["listen", "--state", "/", "a"], {}, "directory"),
        (["publish", "", "1"], {}, "empty"),
        (["publish", "a.*", "1"], {}, "*"),
        (["publish", "hub_bell", "1"], {}, "hub's own"),
        (["publish", "--notify", "$hub", "1"], {}, "hub's own"),
        (["publish", "--notify", "a", "x" * 8000], {}, "7999"),
        (["publish", "--notify", "--tag", "x", "a", "1"], {}, "--tag"),
        (["publish", "--notify", "--key", "x", "a", "1"], {}, "--key"),
        (["publish", "a", os.fsdecode(b"\xff")], {}, "UTF-8"),
        (["publish", "--tag", os.fsdecode(b"\xff"), "a", "1"], {}, "UTF-8"),
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


def test_publish_writes_to_the_log_and_prints_the_events_id(database: str) -> None:
    env = {"HUB_DATABASE_URL": database}
    with serving(env=env) as (_, greeting), listening("--url", ws_of(greeting), "a") as listener:
        read_until(listener.stderr, "listening")
        first = pghub("publish", "a", '{"n": 1}', "--tag", "x", "--tag", "ü y", "--key", "k", env=env)
        again = pghub("publish", "a", "2", "--key", "k", env=env)
        other = pghub("publish", "a", "no JSON", env=env)
        assert first.stdout == again.stdout
        assert int(other.stdout) > int(first.stdout)
        assert listener.stdout is not None
        event = orjson.loads(listener.stdout.readline())
        assert event.pop("at")
        assert event == {"channel": "a", "id": int(first.stdout), "payload": {"n": 1}, "tags": ["x", "ü y"]}
        assert payloads(listener, 1) == ["no JSON"]
        sent = pghub("publish", "--notify", "a", "also no JSON", env=env)
        assert (sent.returncode, sent.stdout) == (0, "")
        event = orjson.loads(listener.stdout.readline())
        assert (event["id"], event["payload"]) == (None, "also no JSON")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["a", f"[{','.join(['1e300'] * 3_000)}]"], "786432"),
        (["a", '"\\u0000"'], "cannot be converted"),
        (["a", "1", *["--tag", "x"] * 33], "32"),
        (["a", "1", "--key", ""], "255"),
    ],
    ids=["large", "zero", "tags", "key"],
)
def test_an_event_that_postgres_refuses_is_told(database: str, arguments: list[str], word: str) -> None:
    complains(pghub("publish", *arguments, env={"HUB_DATABASE_URL": database}), word)


def test_a_payload_that_no_shell_could_hand_over_is_refused_too() -> None:
    with pytest.raises(SetupError, match=str(protocol.MAX_PAYLOAD)):
        cli.publish("a", "x" * protocol.MAX_PAYLOAD)


@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["SIGINT", "SIGTERM"])
def test_listen_goes_on_from_its_state_with_nothing_lost_and_nothing_twice(
    database: str, tmp_path: Path, end: signal.Signals, code: int
) -> None:
    state = tmp_path / "state"
    with serving(env={"HUB_DATABASE_URL": database}) as (_, greeting):
        arguments = ("--url", ws_of(greeting), "--state", state, "a", "b.*")
        with listening(*arguments) as listener:
            assert read_until(listener.stderr, "\n") == "pghub: listening to a, b.*\n"
            insert(database, range(10))
            assert payloads(listener, 10) == list(range(10))
            listener.send_signal(end)
            assert listener.wait(10) == code
            assert listener.stderr is not None
            assert listener.stderr.read() == ""
        assert re.fullmatch(r"[\w-]+\n", state.read_text())
        assert list(tmp_path.iterdir()) == [state]
        insert(database, range(10, 20), "b.c")
        with listening(*arguments, "--last", "3") as listener:
            assert payloads(listener, 10) == list(range(10, 20)), "the state beats --last"
            read_until(listener.stderr, "listening to a, b.* again, nothing lost")
            insert(database, [20])
            assert payloads(listener, 1) == [20]
        with listening(*arguments, "--since", kept_at_the_start(database)) as listener:
            assert payloads(listener, 21) == list(range(21)), "--since beats the state"


def kept_at_the_start(dsn: str) -> str:
    """The cursor that sees nothing of this log."""

    async def generation() -> int:
        connection = await asyncpg.connect(dsn)
        number: int = await connection.fetchval("SELECT generation FROM hub.log")
        await connection.close()
        return number

    return str(Cursor(asyncio.run(generation()), NOTHING))


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_listen_that_ends_in_the_middle_of_a_long_replay_loses_nothing(
    database: str, tmp_path: Path, end: signal.Signals
) -> None:
    """The reader is slow, so that the signal meets it in the middle of a frame."""
    state = tmp_path / "state"
    with serving(env={"HUB_DATABASE_URL": database}) as (_, greeting):
        arguments = ("--url", ws_of(greeting), "--state", state, "a")
        with listening(*arguments) as listener:
            read_until(listener.stderr, "listening")
            insert(database, range(20_000))
            first = payloads(listener, 5_000)
            listener.send_signal(end)
            assert listener.stdout is not None
            whole = [line for line in listener.stdout if line.endswith("\n")]
            first += [orjson.loads(line)["payload"] for line in whole]
            assert listener.wait(10) == (0 if end is signal.SIGTERM else -end)
        assert first == list(range(len(first)))
        assert len(first) < 20_000
        with listening(*arguments) as listener:
            (begin,) = payloads(listener, 1)
            assert isinstance(begin, int)
            assert payloads(listener, 20_000 - begin - 1) == list(range(begin + 1, 20_000))
    if end is signal.SIGTERM:
        assert begin == len(first), "the frame was finished, and then its cursor kept"
    else:
        assert begin <= len(first), "some may come twice"


def test_listen_begins_with_the_newest_events(database: str) -> None:
    insert(database, range(10))
    env = {"HUB_DATABASE_URL": database}
    with serving(env=env) as (_, greeting), listening("--url", ws_of(greeting), "--last", "3", "**") as listener:
        assert payloads(listener, 3) == [7, 8, 9]


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"one\ntwo\n", b"\xff", "ü".encode()])
def test_a_state_that_holds_no_cursor_is_told(tmp_path: Path, content: bytes) -> None:
    (state := tmp_path / "state").write_bytes(content)
    complains(pghub("listen", "--state", str(state), "a"), "holds no cursor", str(state))
    assert state.read_bytes() == content


def test_a_cursor_that_the_hub_refuses_is_told(database: str, tmp_path: Path) -> None:
    (state := tmp_path / "state").write_text("nonsense\n")
    with serving(env={"HUB_DATABASE_URL": database}) as (_, greeting):
        refused = pghub("listen", "--url", ws_of(greeting), "--since", "nonsense", "a")
        complains(refused, "The hub refused", "cursor")
        assert refused.returncode == 1
        complains(pghub("listen", "--url", ws_of(greeting), "--state", str(state), "a"), "The hub refused", str(state))


def test_a_state_that_cannot_be_written_is_told(database: str, tmp_path: Path) -> None:
    (tmp_path / "state.new").mkdir()
    with serving(env={"HUB_DATABASE_URL": database}) as (_, greeting):
        refused = pghub("listen", "--url", ws_of(greeting), "--state", str(tmp_path / "state"), "a")
        complains(refused, "cannot be kept")


def test_listen_says_what_became_of_the_events_while_it_was_away(database: str, unused_tcp_port: int) -> None:
    env, port = {"HUB_DATABASE_URL": database}, unused_tcp_port
    with listening("--url", f"ws://127.0.0.1:{port}/ws", "a", "b.*") as listener:
        with serving(env=env, port=port) as (hub, _):
            read_until(listener.stderr, "listening to a, b.*\n")
            hub.kill()
        read_until(listener.stderr, "trying again")
        insert(database, [1])
        with serving(env=env, port=port) as (hub, _):
            assert payloads(listener, 1) == [1]
            read_until(listener.stderr, "listening to a, b.* again, nothing lost but NOTIFYs\n")
            hub.kill()
        for number in (2, 3, 4):
            insert(database, [number])
        execute(database, "DELETE FROM hub.events WHERE payload::text::int < 4")
        execute(database, "UPDATE hub.log SET horizon = (SELECT min(xid) FROM hub.events)")
        with serving(env=env, port=port):
            assert payloads(listener, 1) == [4]
            said = read_until(listener.stderr, "again\n")
            assert "events of a, b.* before those that follow were deleted by retention" in said
            execute(database, "TRUNCATE hub.events")
            insert(database, [5])
            assert payloads(listener, 1) == [5]
            read_until(listener.stderr, "the log is another one")
