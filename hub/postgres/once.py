"""A single event, over a connection that is there for nothing else: what goes wrong is told to a person, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg

from hub.errors import SetupError
from hub.postgres.connect import Connection

_FAILURES: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_LIMITS: Final = {
    "legal_channel": "The channel's name is none that an event can have: 1 to 63 bytes, without control characters and "
    "*, and not beginning with $ or hub_.",
    "payload_fits": "The payload is too large: as Postgres writes it, 786432 bytes are the most.",
    "tags_fit": "The tags are too many or too long: 32 are the most, with 4096 bytes together.",
    "key_fits": "The key is empty or too long: it may have 1 to 255 bytes.",
}
"""What the constraints of the log's tables say to whoever breaks them."""


async def publish(
    connection: Connection, channel: str, payload: str, tags: Sequence[str] = (), key: str | None = None
) -> int:
    """Publish a durable event, whose `payload` is JSON, and return its id: after the commit.

    A `key` that was used within 24 hours gives the id of then. Raises SetupError where nothing was published, or
    nobody knows whether it was.
    """
    arguments = channel, payload, list(tags)
    try:
        if key is None:
            number: int = await connection.fetchval("SELECT hub.publish($1, $2::text::jsonb, $3)", *arguments)
        else:
            once = "SELECT hub.publish_once($1, $2::text::jsonb, tags => $3, key => $4)"
            number = await connection.fetchval(once, *arguments, key)
    except _FAILURES as error:
        raise SetupError(
            await _reason(connection, error, "hub.publish" if key is None else "hub.publish_once")
        ) from None
    return number


async def notify(connection: Connection, channel: str, payload: str) -> None:
    """Send a NOTIFY. Raises SetupError as `publish` does."""
    try:
        await connection.execute("SELECT pg_catalog.pg_notify($1, $2)", channel, payload)
    except _FAILURES as error:
        raise SetupError(await _reason(connection, error)) from None


async def _reason(connection: Connection, error: Exception, function: str = "hub.publish") -> str:
    match error:
        case asyncpg.CheckViolationError() if limit := _LIMITS.get(getattr(error, "constraint_name", "")):
            return limit
        case asyncpg.InvalidSchemaNameError() | asyncpg.UndefinedFunctionError():
            return "This database has no durable log yet. Run `pghub migrate` on it."
        case asyncpg.InsufficientPrivilegeError():
            role = await connection.fetchval("SELECT pg_catalog.quote_ident(current_user)")
            return (
                f"The role {role} may not publish: {_text(error)}. Run GRANT USAGE ON SCHEMA hub TO {role}; "
                f"GRANT EXECUTE ON FUNCTION {function} TO {role};"
            )
        case asyncpg.PostgresError() | asyncpg.DataError():
            return f"Postgres refuses the event: {_text(error)}."
        case _:
            return f"The connection to Postgres was lost ({_text(error)}); the event may have been published or not."


def _text(error: Exception) -> str:
    """The error on one line; Postgres puts its details on further ones."""
    return " ".join((str(error) or type(error).__name__).split()).rstrip(".")
