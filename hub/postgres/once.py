"""A single event, over a connection that is there for nothing else: what goes wrong is told to a person, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import asyncpg

from hub.errors import SetupError
from hub.postgres.connect import Connection

_FAILURES: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_PUBLISH: Final = "hub.publish(text, jsonb, text[])"  # where there are places there is another one
_PAIR: Final = re.compile(r"\s*([-+.\deE]+)\s*,\s*([-+.\deE]+)\s*")
_HOME: Final = """
SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_type AS t ON t.oid = p.proargtypes[1] JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
 WHERE p.pronamespace = pg_catalog.to_regnamespace('hub') AND p.proname = 'put_place'
"""
"""The schema of PostGIS; null where events have no places."""
_LIMITS: Final = {
    "legal_channel": "The channel's name is none that an event can have: 1 to 63 bytes, without control characters and "
    "*, and not beginning with $ or hub_.",
    "payload_fits": "The payload is too large: as Postgres writes it, 786432 bytes are the most.",
    "tags_fit": "The tags are too many or too long: 32 are the most, with 4096 bytes together.",
    "key_fits": "The key is empty or too long: it may have 1 to 255 bytes.",
}
"""What the constraints of the log's tables say to whoever breaks them."""


async def publish(
    connection: Connection,
    channel: str,
    payload: str,
    tags: Sequence[str] = (),
    key: str | None = None,
    place: str | None = None,
) -> int:
    """Publish a durable event, whose `payload` is JSON, and return its id: after the commit.

    A `key` that was used within 24 hours gives the id of then. `place` is GeoJSON, WKT, or longitude,latitude. Raises
    SetupError where nothing was published, or nobody knows whether it was.
    """
    arguments: list[object] = [channel, payload, list(tags)]
    statement = "hub.publish($1, $2::text::jsonb, $3)"
    if key is not None:
        statement = "hub.publish_once($1, $2::text::jsonb, tags => $3, key => $4)"
        arguments.append(key)
    try:
        if place is not None:
            arguments.append(_wkt(place))
            statement = f"hub.put_place({statement}, {await _geometry(connection, len(arguments), place)})"
        number: int = await connection.fetchval(f"SELECT {statement}", *arguments)
    except _FAILURES as error:
        raise SetupError(await _reason(connection, error, _PUBLISH if key is None else "hub.publish_once")) from None
    return number


async def _geometry(connection: Connection, number: int, place: str) -> str:
    """The argument of this number as a geometry; GeoJSON is in WGS 84, and PostGIS leaves that open."""
    home = await connection.fetchval(_HOME)
    if home is None:
        raise SetupError("This database has no places: CREATE EXTENSION postgis, and let a hub run for a minute.")
    read = f"${number}::text::{home}.geometry"
    return f"{home}.st_setsrid({read}, 4326)" if place.lstrip().startswith("{") else read


def _wkt(place: str) -> str:
    found = _PAIR.fullmatch(place)
    return f"SRID=4326;POINT({found[1]} {found[2]})" if found else place


async def notify(connection: Connection, channel: str, payload: str) -> None:
    """Send a NOTIFY. Raises SetupError as `publish` does."""
    try:
        await connection.execute("SELECT pg_catalog.pg_notify($1, $2)", channel, payload)
    except _FAILURES as error:
        raise SetupError(await _reason(connection, error)) from None


async def _reason(connection: Connection, error: Exception, function: str = _PUBLISH) -> str:
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
