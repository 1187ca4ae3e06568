"""A real PgBouncer in transaction mode between the hub and Postgres."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import asyncpg
import orjson
import pytest

from hub import doctor
from hub.errors import SetupError
from hub.postgres import once, selftest
from hub.postgres.authorize import Authorizing
from hub.postgres.connect import Target, connect, pool
from hub.postgres.listener import Listener
from hub.settings import Settings
from tests.conftest import running, temporary_folder
from tests.e2e.test_durable import PATIENCE, Follower
from tests.tls import free_port
from tests.web.events import Received

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="PgBouncer is not installed (Debian: apt-get install pgbouncer)"
)


IGNORING = "ignore_startup_parameters = timezone, search_path, tcp_keepalives_idle, tcp_user_timeout"

# What anybody may put into `public` before Postgres 15, for statements whose search path PgBouncer leaves open: each
# fits better than what Postgres has itself, which takes any array.
TRAPS = """
    CREATE FUNCTION public.overlap(text[], text[]) RETURNS boolean LANGUAGE plpgsql
        AS $$ BEGIN RAISE 'trapped'; END $$;
    CREATE OPERATOR public.&& (LEFTARG = text[], RIGHTARG = text[], FUNCTION = public.overlap);
    CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
    CREATE FUNCTION public.array_to_json(text[]) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
"""


class Bouncer:
    """A PgBouncer in front of the database at `dsn`, which a test may stop and start."""

    def __init__(self, folder: Path, dsn: str, extra: str = IGNORING) -> None:
        query = parse_qs(urlsplit(dsn).query)
        self._host, self._upstream = query["host"][0], query["port"][0]
        self._folder = folder
        self._extra = extra
        self._port = free_port()
        self._process: subprocess.Popen[str] | None = None
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}{urlsplit(dsn).path}"

    def start(self) -> None:
        self._configure()
        command = [PROGRAM or "", str(self._folder / "pgbouncer.ini")]
        if os.geteuid() == 0:  # which PgBouncer refuses to run as; Postgres's socket lets its owner in
            command = ["setpriv", f"--reuid={Path(self._host).stat().st_uid}", "--clear-groups", *command]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._wait(self._process)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _configure(self) -> None:
        (self._folder / "users.txt").write_text('"postgres" ""\n')
        (self._folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={self._host} port={self._upstream} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self._port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {self._folder}/users.txt\npool_mode = transaction\n"
            f"default_pool_size = 2\n{self._extra}\n"
        )

    def _wait(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except ConnectionRefusedError:
                time.sleep(0.02)  # PgBouncer gives no signal when it is up
            else:
                return
        raise AssertionError(f"PgBouncer did not start: {process.stderr.read() if process.stderr else ''}")


@pytest.fixture
def bouncer(database: str, request: pytest.FixtureRequest) -> Iterator[Bouncer]:
    """One in front of the test's database."""
    with temporary_folder() as folder:
        made = Bouncer(folder, database, getattr(request, "param", IGNORING))
        made.start()
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def at_once(hub: Any, http: aiohttp.ClientSession) -> Counter[int]:
    """How 100 requests for history and 100 posted events, all at the same time, were answered."""
    answers: Counter[int] = Counter()

    async def look() -> None:
        async with http.get(f"{hub.url}/events?channel=a&tag=t&last=5") as answer:
            answers[answer.status] += 1
            if answer.status == 503:
                assert "\n" not in (await answer.json())["error"]["message"]  # asyncpg has advice for programmers

    async def post(number: int) -> None:
        async with http.post(f"{hub.url}/events", json={"channel": "a", "payload": number, "tags": ["t"]}) as answer:
            answers[answer.status] += 1

    await asyncio.gather(*(work for number in range(100) for work in (look(), post(number))))
    return answers


async def test_all_works_at_once_through_pgbouncer_with_a_direct_url_beside_it(
    database: str, bouncer: Bouncer, http: aiohttp.ClientSession
) -> None:
    """Whatever stands in `public`."""
    await execute(database, TRAPS)
    async with running(bouncer.url, pgbouncer=True, direct_url=database) as hub:
        follower = await Follower(["a"]).connect(hub)
        begun = asyncio.Event()
        live = asyncio.create_task(streamed(hub, http, 300, begun))
        await begun.wait()
        commands = [
            {"type": "publish", "id": number, "channel": "a", "payload": number, "durable": number < 200}
            for number in range(100, 220)
        ]
        for command in commands:
            await follower.socket.send(orjson.dumps(command).decode())
        assert await at_once(hub, http) == {200: 100, 201: 100}
        async with asyncio.timeout(PATIENCE):
            while len(follower.events) < 220:
                assert (await follower.take())["type"] != "error"
        assert sorted(follower.payloads) == list(range(220))
        await execute(database, "SELECT count(hub.publish('a', n::text::jsonb)) FROM generate_series(200, 299) AS n")
        assert await live == set(range(300))
        await follower.socket.close()


async def streamed(hub: Any, http: aiohttp.ClientSession, count: int, begun: asyncio.Event) -> set[int]:
    """The payloads of `count` different events, as an EventSource gets them."""
    received, found = Received(), set[int]()
    async with http.get(f"{hub.url}/events?channel=a", headers={"Accept": "text/event-stream"}) as answer:
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                data = await answer.content.readany()
                assert data
                received.feed(data)
                begun.set()
                found = {event["payload"] for frame in received.frames for event in frame.get("events", ())}
    return found


async def execute(dsn: str, statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statements)
    await connection.close()


async def test_keys_loads_exports_and_tables_work_through_pgbouncer(
    database: str, bouncer: Bouncer, http: aiohttp.ClientSession
) -> None:
    table = "CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (7); SELECT hub.watch('orders')"
    await execute(database, TRAPS + table)
    async with running(bouncer.url, pgbouncer=True, direct_url=database) as hub:
        ids = set()
        for _ in range(3):
            event = {"channel": "a", "payload": 0, "tags": ["t"]}
            async with http.post(f"{hub.url}/events", json=event, headers={"Idempotency-Key": "k"}) as answer:
                ids.add((await answer.json())["event"])
        assert len(ids) == 1
        each = [event, event | {"payload": "\0"}]
        async with http.post(f"{hub.url}/events?atomic=false", json=each) as answer:
            assert answer.status == 207
        lines = b"".join(b'{"channel":"b","payload":%d,"tags":["t"]}\n' % number for number in range(500))
        form = {"Content-Type": "application/x-ndjson"}
        async with http.post(f"{hub.url}/events", data=lines, headers=form) as answer:
            assert await answer.json() == {"events": 500}
        for kind, head in (("application/x-ndjson", 0), ("text/csv", 1)):
            async with http.get(f"{hub.url}/events?channel=b&tag=t", headers={"Accept": kind}) as answer:
                assert len((await answer.text()).splitlines()) == head + 500
        async with http.get(f"{hub.url}/watched/orders") as answer:
            assert (await answer.json())["rows"] == [{"id": 7}]
        async with http.get(f"{hub.url}/watched") as answer:
            assert answer.status == 200


async def test_commands_and_authorize_work_through_pgbouncer(database: str, bouncer: Bouncer) -> None:
    await execute(
        database,
        TRAPS + "CREATE FUNCTION hub.authorize(claims jsonb, action text, channel text) RETURNS boolean LANGUAGE sql"
        " RETURN channel OPERATOR(pg_catalog.=) 'a'",
    )
    connection = await connect(Target(bouncer.url, pgbouncer=True), purpose="test")
    assert await once.publish(connection, "a", "1", ["t"]) > 0
    assert await once.publish(connection, "a", "1", ["t"], "key") == await once.publish(connection, "a", "1", [], "key")
    await connection.close()
    async with pool(Target(bouncer.url, pgbouncer=True), min_size=1, max_size=4) as opened:
        asking = Authorizing(opened, keep=0)
        await asking.look()
        refused = await asyncio.gather(*(asking.refused("{}", "subscribe", ["a", "b"]) for _ in range(20)))
        assert refused == [["b"]] * 20


async def test_the_hub_goes_on_when_pgbouncer_is_restarted(
    database: str, bouncer: Bouncer, http: aiohttp.ClientSession
) -> None:
    async with running(bouncer.url, pgbouncer=True, direct_url=database) as hub:
        follower = await Follower(["a"]).connect(hub)
        assert await posted(hub, http, 1) == 201
        bouncer.stop()
        assert await posted(hub, http, 2) == 503
        await execute(database, "SELECT hub.publish('a', '3'); NOTIFY a, '4'")  # what others publish is not held up
        await follower.until(3)
        await follower.until(4)
        bouncer.start()
        async with asyncio.timeout(PATIENCE):
            while await posted(hub, http, 5) != 201:
                pass
        await follower.until(5)
        assert not follower.gaps
        await follower.socket.close()


async def posted(hub: Any, http: aiohttp.ClientSession, number: int) -> int:
    async with http.post(f"{hub.url}/events", json={"channel": "a", "payload": number}) as answer:
        return answer.status


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not arrive is waited for half a second, not five."""
    monkeypatch.setitem(Listener.__init__.__kwdefaults__, "timeout", 0.5)
    monkeypatch.setattr(selftest, "_ROUND_TRIP", 0.5)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("bouncer", [IGNORING, ""], indirect=True, ids=["lenient", "strict"])
async def test_a_listener_behind_pgbouncer_is_noticed_at_start_and_explained(bouncer: Bouncer) -> None:
    with pytest.raises(SetupError, match="HUB_DIRECT_URL"):
        async with running(bouncer.url, pgbouncer=True):
            pass


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("bouncer", [IGNORING, ""], indirect=True, ids=["lenient", "strict"])
async def test_the_doctor_says_what_pgbouncer_cannot_carry(bouncer: Bouncer, database: str) -> None:
    async def worst(**settings: Any) -> str:
        made = Settings(database_url=bouncer.url, **settings)
        found = [finding async for finding in doctor.examine(made) if finding.level != "ok"]
        # What is not as it should be with the tests' own server: it need not survive a crash.
        return " ".join([finding.text for finding in found if "is off: a crash" not in finding.text])

    assert "HUB_DIRECT_URL" in await worst(pgbouncer=True)
    assert "HUB_PGBOUNCER=1" in await worst(direct_url=database)
    assert await worst(pgbouncer=True, direct_url=database) == ""


async def test_without_the_setting_requests_fail_as_prepared_statements_conflict(
    database: str, bouncer: Bouncer, http: aiohttp.ClientSession
) -> None:
    """What HUB_PGBOUNCER is for, where PgBouncer is told to ignore what it would refuse the hub for."""
    async with running(bouncer.url, direct_url=database) as hub:
        answers = await at_once(hub, http)
    assert answers[503] > 0


async def test_without_the_setting_prepared_statements_conflict(bouncer: Bouncer) -> None:
    """A statement prepared on one server is executed on another, or prepared where its name is taken."""
    conflict = {"InvalidSQLStatementNameError", "DuplicatePreparedStatementError"}

    async def conflicts(*, pgbouncer: bool) -> set[str]:
        found = set()
        async with (
            pool(Target(bouncer.url, pgbouncer=pgbouncer), min_size=2, max_size=2) as opened,
            opened.acquire() as one,
            opened.acquire() as two,
        ):
            for number in range(20):
                # Whoever begins first gets the server that was used last, so that the two change places.
                first, second = (one, two) if number % 2 else (two, one)
                held = first.transaction()
                await held.start()
                try:
                    await first.fetchval("SELECT $1::int + 1", number)
                    await second.fetchval("SELECT $1::int + 1", number)
                except asyncpg.PostgresError as error:
                    found.add(type(error).__name__)
                finally:
                    await held.rollback()
        return found

    assert await conflicts(pgbouncer=True) == set()
    found = await conflicts(pgbouncer=False)
    assert found
    assert found <= conflict
