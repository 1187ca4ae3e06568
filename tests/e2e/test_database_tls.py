"""Every road to Postgres that has TLS on it, to a real one, with certificates of a throw-away authority."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from websockets.asyncio.client import connect as connect_websocket

from hub.errors import SetupError
from hub.postgres.connect import Connection, Target, connect, pool
from hub.postgres.tls import Files
from hub.settings import Settings
from tests.conftest import running, temporary_folder
from tests.e2e.test_cli import pghub, serving
from tests.tls import PAST, Authority, Secured, terminating, with_tls

PROGRAMS = with_tls()
pytestmark = pytest.mark.skipif(
    PROGRAMS is None, reason="No Postgres with TLS is installed (Debian: apt-get install postgresql-15)"
)
ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    assert PROGRAMS is not None
    with temporary_folder() as folder:
        made = Secured(folder, PROGRAMS)
        asyncio.run(made.start())
        try:
            yield made
        finally:
            asyncio.run(made.server.stop())


@pytest.fixture(scope="module")
def ours(secured: Secured) -> Files:
    return Files(secured.authority.ca)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(autouse=True)
async def goodbyes() -> AsyncIterator[None]:
    """A connection by TLS that was refused still says goodbye when that is told, and no loop may end before."""
    before = sockets()
    yield
    async with asyncio.timeout(20):
        while sockets() > before:
            await asyncio.sleep(0.01)  # nobody else tells when it is over


def sockets() -> int:
    """How many this process has."""
    return sum("socket:" in os.path.realpath(each) for each in Path("/proc/self/fd").iterdir())


@contextlib.asynccontextmanager
async def opened(target: Target) -> AsyncIterator[Connection]:
    connection = await connect(target, purpose="test")
    try:
        yield connection
    finally:
        await connection.close()


async def refusal(target: Target) -> str:
    """The sentence that a failed attempt ends with, the same for a pool."""
    with pytest.raises(SetupError) as alone:
        await connect(target, purpose="test")
    with pytest.raises(SetupError) as pooled:
        async with pool(target, min_size=1, max_size=1):
            pass
    assert str(alone.value) == str(pooled.value)
    return str(alone.value)


# The URL's sslmode


@pytest.mark.parametrize(
    ("mode", "found"),  # of roles that may come by TLS only, without it only, and either way
    [
        ("disable", {"secured": None, "plain": False, "either": False}),
        ("allow", {"secured": True, "plain": False, "either": False}),
        ("prefer", {"secured": True, "plain": False, "either": True}),
        ("require", {"secured": True, "plain": None, "either": True}),
        ("verify-ca", {"secured": True, "plain": None, "either": True}),
        ("verify-full", {"secured": True, "plain": None, "either": True}),
    ],
)
async def test_each_sslmode_is_what_libpq_says(secured: Secured, mode: str, found: dict[str, bool | None]) -> None:
    query = f"?sslmode={mode}" + (f"&sslrootcert={secured.authority.ca}" if mode.startswith("verify") else "")
    for role, encrypted in found.items():
        target = Target(secured.url(role, query))
        if encrypted is None:
            assert "no pg_hba.conf entry" in await refusal(target)
        else:
            async with opened(target) as connection:
                assert await connection.fetchval(ENCRYPTED) is encrypted, role


async def test_require_looks_at_no_certificate_unless_there_is_a_ca(secured: Secured, stranger: Authority) -> None:
    async with opened(Target(secured.url(query="?sslmode=require", host="127.0.0.1"))) as connection:
        assert await connection.fetchval(ENCRYPTED)
    text = await refusal(Target(secured.url(query=f"?sslmode=require&sslrootcert={stranger.ca}")))
    assert "is not trusted" in text


async def test_verify_full_checks_the_name_and_verify_ca_does_not(secured: Secured, ours: Files) -> None:
    by_url = f"&sslrootcert={ours.ca}"
    for files, own in ((Files(), by_url), (ours, "")):
        text = await refusal(Target(secured.url(query=f"?sslmode=verify-full{own}", host="127.0.0.1"), files=files))
        assert "IP address mismatch, certificate is not valid for '127.0.0.1'. Write the host as" in text
        async with opened(
            Target(secured.url(query=f"?sslmode=verify-ca{own}", host="127.0.0.1"), files=files)
        ) as connection:
            assert await connection.fetchval(ENCRYPTED)


async def test_verifying_without_a_ca_says_which_file_is_missing(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = await refusal(Target(secured.url(query="?sslmode=verify-full")))
    assert "root.crt" in text
    assert "Set HUB_DATABASE_CA to a file" in text


# The settings


async def test_the_right_ca_connects(secured: Secured, ours: Files) -> None:
    async with opened(Target(secured.url(), files=ours)) as connection:
        assert await connection.fetchval(ENCRYPTED)


async def test_a_wrong_ca_is_told(secured: Secured, stranger: Authority) -> None:
    text = await refusal(Target(secured.url(), files=Files(stranger.ca)))
    assert f"The certificate of localhost:{secured.port}, database 'postgres' is not trusted: " in text
    assert "Set HUB_DATABASE_CA to the certificate of the CA that has signed it." in text


async def test_an_expired_certificate_is_told(secured: Secured, ours: Files) -> None:
    target = Target(secured.url(), files=ours)
    good = secured.certificate.read_bytes()
    await secured.present(secured.authority.issue("expired", "localhost", expires=PAST))
    try:
        text = await until(target, refused=True)
    finally:
        await secured.present(secured.authority.write("good.pem", good))
        await until(target, refused=False)
    assert "is not trusted: certificate has expired. Renew it there." in text


async def until(target: Target, *, refused: bool) -> str:
    """What is said once connecting fails, or does not; Postgres tells nobody when it has read its files again."""
    async with asyncio.timeout(20):
        while True:
            try:
                async with opened(target):
                    text = ""
            except SetupError as error:
                text = str(error)
            if bool(text) is refused:
                return text
            await asyncio.sleep(0.02)


async def test_a_revoked_certificate_of_the_server_is_told(secured: Secured) -> None:
    crl = secured.authority.revoke("servers", secured.certificate)
    text = await refusal(
        Target(secured.url(query=f"?sslmode=verify-full&sslrootcert={secured.authority.ca}&sslcrl={crl}"))
    )
    assert "is not trusted: certificate revoked" in text


async def test_a_client_certificate_logs_in(secured: Secured, ours: Files) -> None:
    both = secured.authority.issue("client", user="certified")
    async with opened(Target(secured.url("certified"), files=Files(ours.ca, both))) as connection:
        row = await connection.fetchrow("SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert row is not None
    assert row["ssl"]
    assert row["client_dn"].endswith("/CN=certified")


async def test_a_client_certificate_that_is_not_good_is_told(
    secured: Secured, ours: Files, stranger: Authority
) -> None:
    issue = secured.authority.issue
    said = {
        None: "there is none. Set HUB_DATABASE_CERT.",
        stranger.issue("client", user="certified"): "it is of a CA that is unknown there.",
        issue("old", user="certified", expires=PAST): "it has expired.",
        secured.revoked: "it is revoked.",
        issue("other", user="somebody"): "Its common name has to be the user.",
    }
    for certificate, words in said.items():
        text = await refusal(Target(secured.url("certified"), files=Files(ours.ca, certificate)))
        assert "refuses the hub's certificate: " in text
        assert words in text


async def test_a_ca_that_is_replaced_counts_for_the_next_connection(
    secured: Secured, stranger: Authority, tmp_path: Path
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(secured.authority.ca.read_bytes())
    async with pool(Target(secured.url(), files=Files(ca)), min_size=1, max_size=2) as pooled, pooled.acquire() as one:
        ca.write_bytes(stranger.ca.read_bytes())
        with pytest.raises(OSError, match="certificate verify failed"):
            await pooled.acquire()
        ca.unlink()
        with pytest.raises(OSError, match=r"HUB_DATABASE_CA is .* which cannot be read"):
            await pooled.acquire()
        assert await one.fetchval(ENCRYPTED)  # those that are there stay
        ca.write_bytes(secured.authority.ca.read_bytes())
        async with pooled.acquire() as other:
            assert await other.fetchval(ENCRYPTED)


async def test_a_statement_that_takes_too_long_is_cancelled_by_tls_too(secured: Secured, ours: Files) -> None:
    async with opened(Target(secured.url(), files=ours, command_timeout=0.05)) as connection:
        await is_cancelled(connection)


async def is_cancelled(connection: Connection) -> None:
    with pytest.raises(TimeoutError):
        await connection.execute("SELECT pg_sleep(600)")
    assert await connection.fetchval("SELECT 1", timeout=20)  # which has waited for the end of the other


# TLS from the first byte


async def test_a_proxy_that_ends_tls_is_reached_by_tls_from_the_first_byte(
    database: str, secured: Secured, ours: Files
) -> None:
    name = database.partition("?")[0].rpartition("/")[2]
    async with terminating(database, secured.certificate) as port:
        url = f"postgresql://postgres@localhost:{port}/{name}"
        async with opened(Target(url, files=ours, direct_tls=True, command_timeout=0.05)) as connection:
            assert await connection.fetchval("SELECT current_database()", timeout=20) == name
            with pytest.raises(TimeoutError):
                await connection.execute("SELECT pg_sleep(600)")
        admin = await asyncpg.connect(database)
        async with asyncio.timeout(20):
            while await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'"):
                await asyncio.sleep(0.1)  # it goes within a second; asyncpg's cancel request does not get there
        await admin.close()
        async with opened(Target(f"{url}?sslmode=verify-full&sslrootcert={ours.ca}", direct_tls=True)):
            pass
        text = await refusal(Target(url.replace("localhost", "127.0.0.1"), files=ours, direct_tls=True))
    assert "IP address mismatch" in text


async def test_a_postgres_that_is_too_old_for_tls_from_the_first_byte_is_told(secured: Secured, ours: Files) -> None:
    target = Target(secured.url(), files=ours, direct_tls=True)
    assert PROGRAMS is not None
    if PROGRAMS.major < 17:
        assert "hangs up on TLS from the first byte. Unset HUB_DIRECT_TLS" in await refusal(target)
    else:
        async with opened(target) as connection:
            assert await connection.fetchval(ENCRYPTED)


async def test_tls_from_the_first_byte_needs_a_url_that_demands_tls(secured: Secured) -> None:
    text = await refusal(Target(secured.url(query="?sslmode=prefer"), direct_tls=True))
    assert "Write sslmode=verify-full into the database URL, or unset HUB_DIRECT_TLS." in text


# The hub


async def test_all_connections_of_the_hub_go_by_tls_and_come_back_by_it(secured: Secured, ours: Files) -> None:
    """The listener's too, after a cut; the pool's by the one URL, those of their own by the other."""
    admin = await asyncpg.connect(secured.server.dsn)
    purposes = (
        "SELECT application_name FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl = $1 AND usename = $2"
    )
    async with running(
        secured.url("either"), direct_url=secured.url("secured"), database_ca=ours.ca, heartbeat=0.2
    ) as hub:
        async with connect_websocket(f"{hub.ws}?channel=a") as client:
            await heard(client, '"subscribed"')
            assert {row[0] for row in await admin.fetch(purposes, True, "either")} == {"pghub pool"}
            direct = {row[0] for row in await admin.fetch(purposes, True, "secured")}
            assert direct >= {"pghub listener", "pghub tail"}
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pghub listener'"
            )
            await heard(client, '"gap"')
            await admin.execute("NOTIFY a, '42'")
            await heard(client, "42")
            assert "pghub listener" in {row[0] for row in await admin.fetch(purposes, True, "secured")}
        assert not await admin.fetch(purposes, False, "either")
    await admin.close()


async def heard(client: object, word: str) -> None:
    async with asyncio.timeout(10):
        while word not in str(await client.recv()):  # type: ignore[attr-defined]
            pass


# The command line


def test_the_command_line_says_why_a_road_is_barred(secured: Secured, stranger: Authority) -> None:
    env = {"HUB_DATABASE_URL": secured.url("secured:s3cret"), "HUB_DATABASE_CA": str(stranger.ca)}
    for command in ("doctor", "migrate"):
        run = pghub(command, env=env)
        assert run.returncode == 1, command
        assert "is not trusted" in run.stdout + run.stderr
        assert "Traceback" not in run.stderr
        assert "s3cret" not in run.stdout + run.stderr
    env = {"HUB_DATABASE_URL": secured.url(), "HUB_DATABASE_CA": str(secured.authority.ca)}
    assert pghub("doctor", env=env).returncode == 0


def test_psql_goes_by_the_certificates_of_the_settings_and_ps_shows_no_password(secured: Secured) -> None:
    """`\\!` lets psql start a shell, which looks at the arguments of psql."""
    env = {"HUB_DATABASE_URL": secured.url("visitor:right"), "HUB_DATABASE_CA": str(secured.authority.ca)}
    shown = r"\! tr '\0' ' ' < /proc/$PPID/cmdline"
    run = pghub("psql", "-Atc", ENCRYPTED, "-c", shown, env=env)
    assert run.returncode == 0, run.stderr
    encrypted, command = run.stdout.splitlines()
    assert encrypted == "t"
    assert f"visitor@localhost:{secured.port}" in command
    assert "right" not in command


def test_no_secret_is_shown_whatever_fails(secured: Secured, stranger: Authority) -> None:
    """A hub with a password in each URL, from its start through the death of its connections to its end."""
    env = {
        "HUB_DATABASE_URL": secured.url("visitor:right"),
        "HUB_DIRECT_URL": secured.url("visitor:right"),
        "HUB_LOG_LEVEL": "debug",
    }
    with serving(env=env) as (process, greeting):
        shown = Path(f"/proc/{process.pid}/cmdline").read_text() if sys.platform == "linux" else ""
        asyncio.run(cut_off(secured))
        process.terminate()
        out, err = process.communicate(timeout=20)
    everything = greeting + shown + out + err + repr(Settings(database_url=secured.url("visitor:right")))
    assert "listener_lost" in err
    wrong = {"HUB_DATABASE_URL": secured.url("visitor:right", f"?sslmode=verify-full&sslrootcert={stranger.ca}")}
    for command in (["doctor"], ["psql", "-c", "SELECT 1/0"], ["serve"]):
        run = pghub(*command, env=wrong)
        assert run.returncode, command
        everything += run.stdout + run.stderr
    assert "right" not in everything


async def cut_off(secured: Secured) -> None:
    """End the hub's connections, and wait for the listener's that comes instead."""
    admin = await asyncpg.connect(secured.server.dsn)
    listeners = "FROM pg_stat_activity WHERE application_name = 'pghub listener'"
    gone = await admin.fetch(
        "SELECT pid, pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'pghub %'"
    )
    async with asyncio.timeout(20):
        while not await admin.fetchval(f"SELECT count(*) {listeners} AND pid <> ALL($1)", [row["pid"] for row in gone]):
            await asyncio.sleep(0.05)  # the hub says so in its log, which is read later
    await admin.close()
