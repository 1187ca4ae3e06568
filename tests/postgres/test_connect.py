"""The one way to Postgres, and what it says when the way is barred."""

from __future__ import annotations

import asyncio
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from hub.errors import SetupError
from hub.postgres import binaries
from hub.postgres.connect import Connection, Target, connect, connect_listening, connected, pool
from hub.postgres.embedded import Embedded
from hub.postgres.listening import ListeningConnection
from hub.postgres.record import Record
from tests.conftest import renamed
from tests.postgres.conftest import as_role, opened
from tests.proxy import proxy


async def refusal(target: Target) -> str:
    """The sentence that a failed attempt ends with, the same for both ways to connect."""
    with pytest.raises(SetupError) as alone:
        await connect(target, purpose="test")
    with pytest.raises(SetupError) as pooled:
        async with pool(target, min_size=1, max_size=1):
            pass
    assert str(alone.value) == str(pooled.value)
    return str(alone.value)


# Connections that come about


async def test_a_connection_says_what_it_is_for_and_lives_in_utc(connection: Connection) -> None:
    assert await connection.fetchval("SELECT current_setting('application_name')") == "pghub test"
    assert await connection.fetchval("SELECT current_setting('timezone')") == "UTC"
    row = await connection.fetchrow("SELECT 1 AS n")
    assert type(row) is Record


async def test_a_listening_connection_is_one(database: str) -> None:
    connection = await connect_listening(Target(database))
    name = await connection.fetchval("SELECT current_setting('application_name')")
    await connection.close()
    assert (type(connection), name) == (ListeningConnection, "pghub listener")


async def test_the_server_watches_a_tcp_connection_for_a_hub_that_is_gone(database: str) -> None:
    """asyncpg sets no keepalive, so the server does; over a Unix socket the settings read as 0."""
    async with proxy(database) as between, opened(Target(between.dsn)) as connection:
        rows = await connection.fetch(
            "SELECT name, source FROM pg_settings WHERE name IN ('tcp_keepalives_idle', 'tcp_user_timeout')"
        )
    assert {row["name"]: row["source"] for row in rows} == dict.fromkeys(
        ("tcp_keepalives_idle", "tcp_user_timeout"), "client"
    )


async def test_every_connection_of_a_pool_is_made_the_same_way(database: str) -> None:
    async with pool(Target(database), min_size=1, max_size=3) as made:
        everyone = [await made.acquire() for _ in range(3)]
        for each in everyone:
            row = await each.fetchrow("SELECT current_setting('application_name') AS name, '[1]'::jsonb AS list")
            assert isinstance(row, Record)
            assert (row.name, row.list) == ("pghub pool", [1])
            await made.release(each)


async def test_a_pool_is_closed_even_while_a_connection_is_out(database: str, connection: Connection) -> None:
    async with pool(Target(database), min_size=1, max_size=1) as made:
        lent = await made.acquire()
        backend = lent.get_server_pid()
    async with asyncio.timeout(10):
        while await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", backend):
            pass  # the server takes a moment to see it


async def test_saying_goodbye_to_a_server_that_has_gone_is_no_failure(database: str, connection: Connection) -> None:
    """The loop does not run between the end of the backends and the goodbye, so that asyncpg still believes in them."""
    async with (
        pool(Target(database), min_size=1, max_size=1) as made,
        connected(Target(database), purpose="test") as one,
    ):
        backends = [await made.fetchval("SELECT pg_backend_pid()"), one.get_server_pid()]
        end = "; ".join(f"SELECT pg_terminate_backend({backend}, 10000)" for backend in backends)
        subprocess.run([binaries.installed()[0].program("psql"), database, "-c", end], check=True)  # noqa: ASYNC221


async def test_a_statement_that_takes_too_long_is_cancelled(database: str) -> None:
    async with opened(Target(database, command_timeout=0.05)) as connection:
        with pytest.raises(TimeoutError):
            await connection.execute("SELECT pg_sleep(60)")
        assert await connection.fetchval("SELECT 1", timeout=60) == 1


@pytest.mark.parametrize(("pgbouncer", "kept"), [(False, 1), (True, 0)])
async def test_through_pgbouncer_no_statement_stays_prepared(database: str, pgbouncer: bool, kept: int) -> None:
    async with opened(Target(database, pgbouncer=pgbouncer)) as connection:
        await connection.fetchval("SELECT $1::int", 1)
        left = await connection.fetch("SELECT FROM pg_prepared_statements WHERE statement = 'SELECT $1::int'")
        assert len(left) == kept


async def test_through_pgbouncer_no_unusual_startup_parameter_is_sent() -> None:
    """PgBouncer refuses connections for any but these, unless it is told to ignore them."""
    sent: dict[str, str] = {}
    async with impostor("13.1", sent) as dsn:
        await refusal(Target(dsn, pgbouncer=True))
    assert sorted(sent) == ["application_name", "client_encoding", "database", "user"]


# Ways that are barred


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "host=localhost dbname=x",
        "mysql://localhost/x",
        "postgresql://[::1/x",
        "postgresql://u:s3cret@h:port/x",
        "postgresql://u:s3cret@h/x?nonsense",
        "postgresql://u:s3cret/word@h/x",
        "postgresql://u:33/s3cret@h/x",
        "postgresql://u:33#s3cret@h/x",
        "postgresql://u:33?s3cret@h/x",
        "postgresql://u:s3@s3cret@h/x",
        "postgresql://u:33?s3=cret@h/x",
    ],
)
async def test_a_url_that_cannot_be_meant_is_explained_without_quoting_it(dsn: str) -> None:
    """Most of these hold a password with a character that had to be encoded."""
    text = await refusal(Target(dsn))
    assert text.startswith("The database URL cannot be read. One looks like postgresql://")
    assert "s3" not in text


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("postgresql://u:s3cret@nowhere.invalid/x", "nowhere.invalid"),
        ("postgresql://u:s3cret@127.0.0.1:1/x", "cannot be reached at 127.0.0.1:1"),
        ("postgresql://u:s3cret@127.0.0.1:1,127.0.0.1:2/x", "cannot be reached at 127.0.0.1:1,127.0.0.1:2"),
        ("postgresql://u:s3cret@127.0.0.1:99999/x", "127.0.0.1:99999"),
        ("postgresql:///x?host=/nowhere&password=s3cret", "cannot be reached at /nowhere"),
        ("postgresql://u:s3cret@127.0.0.1:1/x?sslmode=maybe", "sslmode"),
    ],
)
async def test_a_server_that_cannot_be_found_is_named_and_the_password_is_not(dsn: str, words: str) -> None:
    text = await refusal(Target(dsn))
    assert words in text
    assert "s3cret" not in text
    assert "s3cret" not in repr(Target(dsn))


async def test_an_unknown_database_is_told(server: str) -> None:
    assert 'has no such database: database "nowhere" does not exist' in await refusal(
        Target(renamed(server, "nowhere"))
    )


async def test_an_unknown_user_is_told(server: str) -> None:
    text = await refusal(Target(as_role(server, "stranger:s3cret")))
    assert 'refuses the login: role "stranger" does not exist' in text
    assert "s3cret" not in text


async def test_a_wrong_password_is_told_and_not_repeated(data_dir: Path) -> None:
    rules = data_dir.with_name("pg_hba.conf")
    rules.write_text("local all visitor scram-sha-256\nlocal all all trust\n")
    rules.chmod(0o644)
    async with Embedded(data_dir, options={"hba_file": str(rules), "fsync": "off"}) as embedded:
        admin = await asyncpg.connect(embedded.dsn)
        await admin.execute("CREATE ROLE visitor LOGIN PASSWORD 'right'")
        await admin.close()
        text = await refusal(Target(as_role(embedded.dsn, "visitor:s3cret")))
        async with opened(Target(as_role(embedded.dsn, "visitor:right"))):
            pass
    assert 'password authentication failed for user "visitor"' in text
    assert "s3cret" not in text


@pytest.mark.parametrize("visitor", ["CONNECTION LIMIT 0"], indirect=True)
async def test_too_many_connections_are_told(server: str, visitor: str) -> None:
    text = await refusal(Target(as_role(server, visitor)))
    assert "too many connections" in text
    assert "HUB_POOL_MAX" in text


@pytest.mark.parametrize("blank", ["TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"], indirect=True)
async def test_a_database_that_is_not_utf8_is_refused(blank: str) -> None:
    text = await refusal(Target(blank))
    assert "encoding is SQL_ASCII" in text
    assert "ENCODING 'UTF8'" in text


async def test_a_postgres_that_is_too_old_is_refused() -> None:
    async with impostor("13.14") as dsn:
        assert "This is Postgres 13; the hub needs 14 or later." in await refusal(Target(dsn))


async def test_a_server_that_does_not_answer_is_given_up(database: str) -> None:
    async with proxy(database) as between:
        between.silence()
        assert "did not answer within 0.1 s" in await refusal(Target(between.dsn, timeout=0.1))


async def test_a_server_without_tls_is_told_when_tls_is_asked_for(database: str) -> None:
    async with proxy(database) as between:
        assert "speaks no TLS" in await refusal(Target(f"{between.dsn}?sslmode=require"))


async def test_tls_from_the_first_byte_needs_tls(database: str) -> None:
    async with proxy(database) as between:
        text = await refusal(Target(between.dsn, direct_tls=True))
    assert "direct TLS requires sslmode=require" in text


async def test_a_server_that_knows_no_tls_from_the_first_byte_is_told(database: str) -> None:
    async with proxy(database) as between:
        text = await refusal(Target(f"{between.dsn}?sslmode=require", direct_tls=True))
    assert "HUB_DIRECT_TLS" in text


async def test_a_refused_setting_is_told_in_the_words_of_postgres(database: str) -> None:
    text = await refusal(Target(f"{database}&nonsense=1"))
    assert 'unrecognized configuration parameter "nonsense"' in text


async def test_a_connection_that_is_refused_is_closed(
    database: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.postgres.connect.OLDEST", 99)
    with pytest.raises(SetupError, match="needs 99"):
        await connect(Target(database), purpose="refused")
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pghub refused'"
    async with asyncio.timeout(10):
        while await connection.fetchval(count):
            pass  # the server takes a moment to see it


@asynccontextmanager
async def impostor(version: str, sent: dict[str, str] | None = None) -> AsyncIterator[str]:
    """What says it is a Postgres of this version, up to its first ReadyForQuery. `sent` gets the startup parameters."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!i", len(body) + 4) + body

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack("!i", await reader.readexactly(4))
        fields = (await reader.readexactly(size - 4))[4:].decode().split("\0")
        if sent is not None:
            sent.update(zip(fields[::2], fields[1::2], strict=False))
            sent.pop("", None)
        status = {"server_version": version, "server_encoding": "UTF8", "client_encoding": "UTF8"}
        writer.write(message(b"R", struct.pack("!i", 0)))
        for name, value in status.items():
            writer.write(message(b"S", f"{name}\0{value}\0".encode()))
        writer.write(message(b"K", struct.pack("!ii", 1, 1)) + message(b"Z", b"I"))
        await reader.read(1)  # goodbye
        writer.close()

    listening = await asyncio.start_server(greet, "127.0.0.1", 0)
    try:
        yield f"postgresql://u@127.0.0.1:{listening.sockets[0].getsockname()[1]}/x?sslmode=disable"
    finally:
        listening.close()
