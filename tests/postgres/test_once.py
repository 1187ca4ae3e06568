"""One event for whoever is at a terminal: published, or refused in words."""

from __future__ import annotations

import pytest

from hub.errors import SetupError
from hub.postgres import once
from hub.postgres.connect import Connection, Target, connect
from tests.postgres.conftest import as_role, opened


async def test_an_event_is_in_the_log_as_it_was_given(connection: Connection) -> None:
    number = await once.publish(connection, "a", '{"n":12345678901234567890}', ["x", "ü"])
    ((payload, tags),) = await connection.fetch("SELECT payload::text, tags FROM hub.events WHERE id = $1", number)
    assert (payload, tags) == ('{"n": 12345678901234567890}', ["x", "ü"])


async def test_a_key_publishes_once(connection: Connection) -> None:
    first = await once.publish(connection, "a", "1", key="k")
    assert await once.publish(connection, "a", "2", key="k") == first
    assert await connection.fetchval("SELECT count(*) FROM hub.events") == 1


@pytest.mark.parametrize(
    ("channel", "payload", "tags", "key", "words"),
    [
        ("hub_x", "1", [], None, "channel's name"),
        ("a", f"[{','.join(['1e300'] * 3_000)}]", [], None, "786432 bytes"),
        ("a", "1", ["x"] * 33, None, "32 are the most"),
        ("a", "1", ["x" * 5_000], None, "4096 bytes"),
        ("a", "1", [], "", "1 to 255"),
        ("a", "1", [], "k" * 256, "1 to 255"),
        ("a", '"\\u0000"', [], None, "cannot be converted to text"),
        ("a", "1e200000", [], None, "Postgres refuses the event: .*numeric"),
        ("a", "1", ["a\0b"], None, "Postgres refuses the event"),
    ],
)
async def test_what_postgres_refuses_is_said(
    connection: Connection, channel: str, payload: str, tags: list[str], key: str | None, words: str
) -> None:
    with pytest.raises(SetupError, match=words) as refusal:
        await once.publish(connection, channel, payload, tags, key)
    assert "\n" not in str(refusal.value)
    assert await connection.fetchval("SELECT count(*) FROM hub.events") == 0


async def test_a_role_that_may_not_publish_is_told_which_grants_it_needs(
    connection: Connection, database: str, visitor: str
) -> None:
    async with opened(Target(as_role(database, visitor))) as theirs:
        with pytest.raises(SetupError) as refusal:
            await once.publish(theirs, "a", "1")
        function = "hub.publish(text, jsonb, text[])"
        grants = f"GRANT USAGE ON SCHEMA hub TO {visitor}; GRANT EXECUTE ON FUNCTION {function} TO {visitor};"
        assert grants in str(refusal.value)
        await connection.execute(grants)
        assert await once.publish(theirs, "a", "1")
        await connection.execute(f"DROP OWNED BY {visitor}")


async def test_a_database_without_the_log_is_told(blank: str) -> None:
    async with opened(Target(blank)) as connection:
        for statement in ("SELECT 1", "CREATE SCHEMA hub"):
            await connection.execute(statement)
            with pytest.raises(SetupError, match="pghub migrate"):
                await once.publish(connection, "a", "1")


async def test_a_connection_that_is_lost_is_told(database: str, connection: Connection) -> None:
    theirs = await connect(Target(database), purpose="test")
    await connection.execute("SELECT pg_terminate_backend($1)", theirs.get_server_pid())
    for work in (once.publish, once.notify, once.publish):
        with pytest.raises(SetupError, match=r"lost|refuses"):
            await work(theirs, "a", "1")
    theirs.terminate()


async def test_a_notify_is_sent_as_it_was_given(connection: Connection, database: str) -> None:
    heard: list[str] = []
    async with opened(Target(database)) as listener:
        await listener.add_listener("a", lambda *message: heard.append(message[3]))
        await once.notify(connection, "a", "plain text")
        await listener.execute("SELECT 1")
    assert heard == ["plain text"]
    with pytest.raises(SetupError, match="Postgres refuses"):
        await once.notify(connection, "a", "x" * 8000)
