"""A real PgBouncer in transaction mode between the hub and Postgres."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import orjson
import pytest
from websockets.asyncio.client import connect

from hub.errors import SetupError
from hub.postgres.connect import Target, pool
from tests.conftest import running, temporary_folder

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="PgBouncer is not installed (Debian: apt-get install pgbouncer)"
)


IGNORING = "ignore_startup_parameters = timezone, search_path, tcp_keepalives_idle, tcp_user_timeout"


@pytest.fixture
def bouncer(database: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of the test's database, through PgBouncer."""
    parts = urlsplit(database)
    query = parse_qs(parts.query)
    with temporary_folder() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        configure(folder, query["host"][0], query["port"][0], port, getattr(request, "param", IGNORING))
        command = [PROGRAM or "", str(folder / "pgbouncer.ini")]
        if os.geteuid() == 0:  # which PgBouncer refuses to run as; Postgres's socket lets its owner in
            owner = Path(query["host"][0]).stat().st_uid
            command = ["setpriv", f"--reuid={owner}", "--clear-groups", *command]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            wait_for(port, process)
            yield f"postgresql://postgres@127.0.0.1:{port}{parts.path}"
            process.kill()


def configure(folder: Path, host: str, upstream: str, port: int, extra: str) -> None:
    (folder / "users.txt").write_text('"postgres" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={host} port={upstream} user=postgres\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {folder}/users.txt\npool_mode = transaction\ndefault_pool_size = 2\n"
        f"{extra}\n"
    )


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)  # PgBouncer gives no signal when it is up
        else:
            return
    raise AssertionError(f"PgBouncer did not start: {process.stderr.read() if process.stderr else ''}")


async def test_the_hub_works_through_pgbouncer_with_a_direct_url_beside_it(database: str, bouncer: str) -> None:
    async with running(bouncer, pgbouncer=True, direct_url=database) as hub, connect(f"{hub.ws}?channel=a") as client:
        for number in range(1, 21):
            command = {"type": "publish", "id": number, "channel": "a", "payload": number, "durable": False}
            await client.send(orjson.dumps(command).decode())
        found = []
        while len(found) < 20:
            message = orjson.loads(await client.recv())
            assert message["type"] != "error", message
            found += [item["payload"] for item in message.get("events", ())]
        assert found == list(range(1, 21))


@pytest.mark.parametrize("bouncer", [IGNORING, ""], indirect=True, ids=["lenient", "strict"])
async def test_a_listener_behind_pgbouncer_is_noticed_at_start_and_explained(bouncer: str) -> None:
    with pytest.raises(SetupError, match="HUB_DIRECT_URL"):
        async with running(bouncer, pgbouncer=True):
            pass


async def test_without_the_setting_prepared_statements_conflict(bouncer: str) -> None:
    """What HUB_PGBOUNCER is for: a statement prepared on one server is executed on another."""

    async def conflicts(*, pgbouncer: bool) -> int:
        failed = 0
        async with (
            pool(Target(bouncer, pgbouncer=pgbouncer), min_size=2, max_size=2) as opened,
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
                except asyncpg.PostgresError:
                    failed += 1
                finally:
                    await held.rollback()
        return failed

    assert await conflicts(pgbouncer=True) == 0
    assert await conflicts(pgbouncer=False) > 0
