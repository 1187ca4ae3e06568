"""The hub's own Postgres from its first start to every way that it can end, with real servers."""

from __future__ import annotations

import asyncio
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

import hub
from hub.errors import SetupError
from hub.postgres import binaries, cluster, embedded, postmaster
from hub.postgres.embedded import Embedded, running_dsn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

FAST = {"fsync": "off"}
AS_ROOT = os.geteuid() == 0

CHILD = """
import asyncio, sys
from pathlib import Path
from hub.postgres.embedded import Embedded

async def main():
    async with Embedded(Path(sys.argv[1]), options={"fsync": "off"}) as server:
        print("attached" if server.attached else "started", server.dsn, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
"""A hub that does nothing but have a server until its standard input ends."""


@pytest.fixture
def home() -> Iterator[Path]:
    """A data directory yet to be made."""
    with a_place() as place:
        yield place


@pytest.fixture
async def server(home: Path) -> AsyncIterator[Embedded]:
    """A server that runs, for a test that does something to it."""
    async with Embedded(home, options=FAST) as started:
        yield started


@pytest.fixture(scope="module")
def shared_home() -> Iterator[Path]:
    """The data directory of `shared`."""
    with a_place() as place:
        yield place


@pytest.fixture(scope="module")
def shared(shared_home: Path) -> Iterator[Embedded]:
    """A server that runs, for the tests that only look at it."""
    started = Embedded(shared_home, options=FAST)
    asyncio.run(started.start())
    yield started
    asyncio.run(started.stop())


@contextmanager
def a_place() -> Iterator[Path]:
    """A path to be; not under pytest's own directory, which root's server could not enter."""
    with tempfile.TemporaryDirectory(prefix="pghub-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder, "data")


def of_process(process_id: int, name: str) -> Path:
    """What the system says of a process."""
    return Path("/proc", str(process_id), name)


def names(home: Path) -> list[str]:
    """What is in the directory."""
    return sorted(path.name for path in home.iterdir())


def pid(home: Path) -> int:
    """The process id of the server on this directory."""
    found = postmaster.read(home / "postgres")
    assert found is not None
    return found.pid


async def eventually(true: Callable[[], bool]) -> None:
    """Return as soon as the condition holds; fail if it never does."""
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def await_end(process_id: int) -> None:
    """Return as soon as the process, which need not be a child, has ended."""
    try:
        handle = os.pidfd_open(process_id)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 30)[0], "the process runs on"
    finally:
        os.close(handle)


async def fetch(dsn: str, query: str) -> object:
    """The one value of a query, over a connection of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def child(home: Path) -> subprocess.Popen[str]:
    """Another process with an Embedded on this directory; it says `started` or `attached` and its DSN."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, home],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


@asynccontextmanager
async def supervised(server: Embedded) -> AsyncIterator[asyncio.Task[None]]:
    """The server with somebody who watches over it."""
    watch = asyncio.create_task(server.supervise(), name="supervise")
    try:
        yield watch
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError, SetupError):
            await watch


@pytest.mark.parametrize("programs", binaries.installed(), ids=lambda programs: str(programs.major))
async def test_every_version_here_starts_and_delivers_a_notification(home: Path, programs: binaries.Binaries) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with Embedded(home, bin_dir=programs.bin, options=FAST) as server:
        connection = await asyncpg.connect(server.dsn)
        assert connection.get_server_version().major == programs.major
        await connection.add_listener("orders", lambda *received: heard.put_nowait(received[3]))
        await connection.execute("NOTIFY orders, 'paid'")
        assert await heard.get() == "paid"
        await connection.close()


async def test_a_new_cluster_is_utf8_with_checksums_and_no_door_but_its_socket(shared: Embedded) -> None:
    for setting, value in {
        "server_encoding": "UTF8",
        "data_checksums": "on",
        "listen_addresses": "",
        "max_connections": "200",
        "full_page_writes": "on",
    }.items():
        assert await fetch(shared.dsn, f"SHOW {setting}") == value


async def test_fsync_stays_on_unless_the_caller_says_otherwise(home: Path) -> None:
    async with Embedded(home) as server:
        assert await fetch(server.dsn, "SHOW fsync") == "on"


async def test_data_is_there_again_at_the_second_start(home: Path) -> None:
    async with Embedded(home, options=FAST) as server:
        await fetch(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    async with Embedded(home, options=FAST) as server:
        assert await fetch(server.dsn, "SELECT n FROM kept") == 7


async def test_stopping_ends_the_server_and_may_be_repeated(home: Path) -> None:
    server = Embedded(home, options=FAST)
    await server.stop()
    await server.start()
    running = pid(home)
    await server.start()
    assert pid(home) == running
    await server.stop()
    await server.stop()
    await_end(running)
    assert running_dsn(home) is None


def test_a_server_belongs_to_no_event_loop(home: Path) -> None:
    server = Embedded(home, options=FAST)
    asyncio.run(server.start())
    assert asyncio.run(fetch(server.dsn, "SELECT 1")) == 1
    asyncio.run(server.stop())
    assert running_dsn(home) is None


async def test_the_dsn_of_a_running_server_can_be_asked_for(shared: Embedded, shared_home: Path) -> None:
    assert running_dsn(shared_home) == shared.dsn


def test_where_nothing_ever_ran_there_is_no_dsn(home: Path) -> None:
    assert running_dsn(home) is None


def test_psql_and_asyncpg_take_the_dsn_whatever_the_environment_says(
    shared: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGHOST": "192.0.2.1",
        "PGPORT": "1",
        "PGUSER": "nobody",
        "PGDATABASE": "none",
    }.items():
        monkeypatch.setenv(name, value)
    psql = binaries.find().program("psql")
    assert psql is not None
    done = subprocess.run([psql, shared.dsn, "-XAtc", "SELECT 5"], capture_output=True, text=True, check=True)
    assert done.stdout == "5\n"
    assert asyncio.run(fetch(shared.dsn, "SELECT 5")) == 5


async def test_secrets_in_the_hub_s_environment_do_not_reach_the_server(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUB_SECRET", "hush")
    monkeypatch.setenv("PGOPTIONS", "-c fsync=off")
    async with Embedded(home, options=FAST):
        environment = of_process(pid(home), "environ").read_bytes()
    assert b"hush" not in environment
    assert b"PGOPTIONS" not in environment


async def test_a_ctrl_c_at_the_terminal_does_not_reach_the_server(shared: Embedded, shared_home: Path) -> None:
    """It goes to the foreground's session; the server has one of its own."""
    assert os.getsid(pid(shared_home)) == pid(shared_home)


async def test_a_path_too_long_for_a_socket_works(home: Path) -> None:
    longer = home / ("long" * 25) / "with, comma"
    longer.parent.mkdir(parents=True)
    async with Embedded(longer, options=FAST) as server:
        assert await fetch(server.dsn, "SELECT 1") == 1
        assert running_dsn(longer) == server.dsn
    first = server.dsn
    async with Embedded(longer, options=FAST) as server:
        assert server.dsn == first
    (longer / "socket-elsewhere").readlink().rmdir()


async def test_a_log_that_has_grown_long_is_emptied_at_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Embedded(home, options=FAST):
        pass
    before = (home / "postgres.log").read_text()
    monkeypatch.setattr(cluster, "_LOG_BYTES", 10)
    async with Embedded(home, options=FAST):
        assert before not in (home / "postgres.log").read_text()


# Ends that nobody planned


def test_a_hub_that_is_killed_takes_its_server_along_which_shuts_down_cleanly(home: Path) -> None:
    with child(home) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("started")
        running = pid(home)
        process.kill()
        await_end(running)
    assert running_dsn(home) is None
    assert "database system is shut down" in (home / "postgres.log").read_text()


async def test_a_server_that_is_killed_is_started_again_with_all_that_was_committed(
    server: Embedded, home: Path
) -> None:
    await fetch(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    killed = pid(home)
    async with supervised(server):
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: running_dsn(home) is not None and pid(home) != killed)
        assert await fetch(server.dsn, "SELECT n FROM kept") == 7


async def test_a_server_that_cannot_be_brought_back_is_given_up_with_the_reason(
    server: Embedded, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_WATCH", 0.001)
    async with supervised(server) as watch:
        (home / "postgres" / "PG_VERSION").write_text("12\n")
        os.kill(pid(home), signal.SIGKILL)
        with pytest.raises(SetupError, match=r"failed 5 times in a row.*Postgres 12"):
            await watch


async def test_a_cancelled_first_start_leaves_no_half_made_cluster(home: Path) -> None:
    start = asyncio.create_task(Embedded(home, options=FAST).start())
    await eventually(lambda: any(home.glob(".unfinished-*/PG_VERSION")))
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert names(home) == ["postgres.log"]
    async with Embedded(home, options=FAST) as server:
        assert await fetch(server.dsn, "SELECT 1") == 1


async def test_a_hub_killed_in_its_first_start_is_followed_by_one_that_starts(home: Path) -> None:
    with child(home) as process:
        await eventually(lambda: any(home.glob(".unfinished-*/PG_VERSION")))
        process.kill()
    assert not (home / "postgres").exists()
    for _ in range(2):  # at the first, the dying initdb may still be writing
        async with Embedded(home, options=FAST) as server:
            assert await fetch(server.dsn, "SELECT 1") == 1
    assert names(home) == ["postgres", "postgres.log", "socket"]


async def test_a_start_that_is_cancelled_late_leaves_no_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Embedded(home, options=FAST):
        pass
    monkeypatch.setattr(Embedded, "_ready", lambda *_: asyncio.Event().wait())
    start = asyncio.create_task(Embedded(home, options=FAST).start())
    await eventually(lambda: postmaster.read(home / "postgres") is not None)
    running = pid(home)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await_end(running)


# Several on one directory


async def test_the_second_attaches_and_leaves_the_server_alone_when_it_stops(
    shared: Embedded, shared_home: Path
) -> None:
    running = pid(shared_home)
    async with Embedded(shared_home) as second:
        assert second.attached
        assert second.dsn == shared.dsn
    assert not shared.attached
    assert pid(shared_home) == running
    assert await fetch(shared.dsn, "SELECT 1") == 1


async def test_the_attached_one_takes_over_when_the_owner_goes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_WATCH_ATTACHED", 0.01)
    owner, second = Embedded(home, options=FAST), Embedded(home, options=FAST)
    await owner.start()
    async with second, supervised(second):
        await owner.stop()
        await eventually(lambda: not second.attached and running_dsn(home) is not None)
        assert await fetch(second.dsn, "SELECT 1") == 1
    assert running_dsn(home) is None


async def test_of_two_that_start_at_once_on_a_new_directory_one_runs_the_server(home: Path) -> None:
    both = Embedded(home, options=FAST), Embedded(home, options=FAST)
    await asyncio.gather(*(each.start() for each in both))
    assert sorted(each.attached for each in both) == [False, True]
    assert both[0].dsn == both[1].dsn
    for each in both:
        await each.stop()


def test_of_two_processes_that_start_at_once_one_runs_the_server(home: Path) -> None:
    with child(home) as first, child(home) as second:
        said = [each.stdout.readline().split() for each in (first, second) if each.stdout]
        assert sorted(word for word, _ in said) == ["attached", "started"]
        assert len({dsn for _, dsn in said}) == 1
        for each in (first, second):
            each.communicate()
    assert running_dsn(home) is None


# What is refused


async def test_a_setting_that_postgres_does_not_know_is_quoted(home: Path) -> None:
    server = Embedded(home, options={"no_such_setting": "1"})
    with pytest.raises(SetupError, match='did not start: unrecognized configuration parameter "no_such_setting"'):
        await server.start()
    await server.stop()


async def test_data_of_another_major_version_is_refused_naming_both(home: Path) -> None:
    async with Embedded(home, options=FAST):
        pass
    (home / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(SetupError, match=rf"written by Postgres 12, .*{binaries.find().major} \("):
        await Embedded(home).start()


@pytest.mark.parametrize("place", ["", "postgres", "socket"])
def test_a_file_in_the_way_is_named(home: Path, place: str) -> None:
    if place:
        home.mkdir()
        home.chmod(0o711)
    (home / place).write_text("in the way")
    with pytest.raises(SetupError, match=rf"cannot use {home / place}.*in the way.*HUB_DATA_DIR"):
        asyncio.run(Embedded(home).start())


async def test_without_any_postgres_the_advice_is_the_extra(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_search", lambda: iter(()))
    with pytest.raises(SetupError, match=r"pip install 'pghub\[embedded\]'"):
        await Embedded(home).start()


# As root, and as somebody else

needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")


@needs_root
def test_root_s_server_runs_as_somebody_else_who_owns_the_cluster_only(shared: Embedded, shared_home: Path) -> None:
    user = postmaster.account(shared_home / "postgres")
    assert of_process(pid(shared_home), "").stat().st_uid == user.pw_uid != 0
    assert shared_home.stat().st_uid == 0
    assert (shared_home / "postgres").stat().st_uid == user.pw_uid


@needs_root
async def test_where_there_is_no_user_postgres_the_server_runs_as_nobody(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postmaster, "LESSER", ("no_such_user", "nobody"))
    async with Embedded(home, options=FAST):
        assert of_process(pid(home), "").owner() == "nobody"


@needs_root
async def test_a_cluster_that_root_has_copied_is_made_over_to_the_server_s_user(home: Path) -> None:
    async with Embedded(home, options=FAST) as server:
        await fetch(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    copy = home.with_name("copy")
    shutil.copytree(home / "postgres", copy / "postgres")  # the copies are root's
    async with Embedded(copy, options=FAST) as server:
        assert await fetch(server.dsn, "SELECT n FROM kept") == 7


@needs_root
async def test_a_directory_that_the_server_s_user_may_not_enter_is_named_and_stays_as_it_is(
    home: Path,
) -> None:
    home.parent.chmod(0o700)
    with pytest.raises(SetupError, match=f"who may not enter {home.parent}. Set HUB_DATA_DIR"):
        await Embedded(home).start()
    assert home.parent.stat().st_mode & 0o777 == 0o700


@needs_root
async def test_a_wheel_that_the_server_s_user_may_not_enter_is_copied_beside_the_data(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a virtual environment under root's home."""
    closed = home.with_name("closed")
    closed.mkdir(mode=0o700)
    wheel = binaries.find()
    package = wheel.bin.parents[1]
    shutil.copytree(wheel.bin.parent, closed / package.name / wheel.bin.parent.name)
    shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs")
    (closed / package.name / "__init__.py").touch()
    monkeypatch.syspath_prepend(closed)
    for _ in range(2):
        async with Embedded(home, options=FAST):
            assert of_process(pid(home), "exe").readlink().is_relative_to(home / "binaries")
    assert closed.stat().st_mode & 0o777 == 0o700


@needs_root
async def test_a_system_s_postgres_that_the_server_s_user_may_not_enter_is_refused(home: Path) -> None:
    closed = home.with_name("closed")
    closed.mkdir(mode=0o700)
    shutil.copytree(binaries.find().bin.parent, closed / "pg", symlinks=True)
    with pytest.raises(SetupError, match=f"may not enter {closed} and so cannot run .* Set HUB_PG_BIN"):
        await Embedded(home, bin_dir=closed / "pg" / "bin").start()


def as_nobody(home: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run the code as user `nobody`, with a Python that this user may run."""
    nobody = pwd.getpwnam("nobody")
    pythons = [sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"]
    reachable = (
        each for each in pythons if Path(each).exists() and not postmaster.closed_to(nobody, Path(each).resolve())
    )
    python = next(reachable, None)
    if python is None:
        pytest.skip("no Python here that user nobody may run; a system package of Python would be one")
    search = [str(Path(hub.__file__).parents[1]), *sys.path]
    return subprocess.run(
        [python, "-c", code, home],
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=(),
        cwd="/",
        env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(search)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_root
def test_an_ordinary_user_runs_the_server_themself(home: Path) -> None:
    home.mkdir()
    os.chown(home, pwd.getpwnam("nobody").pw_uid, -1)
    done = as_nobody(home, CHILD)
    assert done.stdout.startswith("started"), done.stderr
    assert (home / "postgres").owner() == "nobody"
    assert running_dsn(home) is None


@needs_root
def test_an_ordinary_user_reads_what_to_do_about_a_directory_that_is_read_only(home: Path) -> None:
    home.mkdir(mode=0o755)
    done = as_nobody(home, CHILD)
    assert f"cannot use {home}" in done.stderr
    assert "Permission denied. Set HUB_DATA_DIR" in done.stderr
