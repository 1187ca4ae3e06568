"""The doctor's self-test: what is published by the way of the pool has to come by that of the listener and the tail."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Final

import asyncpg

from hub.postgres.connect import Connection, Target, connect_listening, connected
from hub.postgres.finding import Finding
from hub.postgres.listening import ListeningConnection

CHANNEL: Final = "pghub.doctor"
"""Where the self-test publishes. Its event stays in the log, as all do, until retention takes it."""

_ROUND_TRIP: Final = 5.0  # seconds
_POLL: Final = 0.002  # seconds between two looks; the log gives no signal
_FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


async def ways(pooled: Target, direct: Target, *, durable: bool) -> AsyncIterator[Finding]:
    """Whether the way of the pool is what the settings say, and whether each tier brings what it is to bring.

    `durable` says that there is a log.
    """
    listening = await connect_listening(direct, purpose="doctor")
    try:
        async with connected(pooled, purpose="doctor") as sending:
            if (found := await _pooler(pooled, sending)) is not None:
                yield found
            yield await _notifications(listening, sending)
            if durable:
                yield await _log(listening, sending)
    finally:
        listening.terminate()


async def _pooler(pooled: Target, sending: Connection) -> Finding | None:
    """PgBouncer, and what is like it, gives its clients other process numbers than Postgres's."""
    if pooled.pgbouncer or await sending.fetchval("SELECT pg_catalog.pg_backend_pid()") == sending.get_server_pid():
        return None
    return Finding(
        "warn", "pool", "PgBouncer, or what is like it, answers. Unless it pools sessions, set HUB_PGBOUNCER=1."
    )


async def _notifications(listening: ListeningConnection, sending: Connection) -> Finding:
    """Send a NOTIFY by the way of the pool and wait for it on a connection like the listener's."""
    channel, arrived = f"hub_probe_{secrets.token_hex(8)}", asyncio.Event()
    try:
        listening.on_notification = lambda _: arrived.set()
        await listening.listen([channel])
        started = time.perf_counter()
        await sending.execute("SELECT pg_catalog.pg_notify($1, '')", channel)
        async with asyncio.timeout(_ROUND_TRIP):
            await arrived.wait()
    except TimeoutError:
        text = (
            "A NOTIFY did not arrive. PgBouncer in transaction mode swallows LISTEN: "
            "set HUB_DIRECT_URL to the same database without it."
        )
        return Finding("fail", "notify", text)
    except _FAILURES as error:
        return Finding("fail", "notify", f"A NOTIFY cannot be sent: {_said(error)}.")
    return Finding("ok", "notify", f"arrives, in {_ms(started)} ms")


async def _log(reading: Connection, sending: Connection) -> Finding:
    """Publish an event by the way of the pool, and look for it by the way of the tail until it is there."""
    started = time.perf_counter()
    try:
        number = await sending.fetchval("SELECT hub.publish($1, '{}'::jsonb)", CHANNEL, timeout=_ROUND_TRIP)
        published = _ms(started)
        async with asyncio.timeout(_ROUND_TRIP):
            while not await reading.fetchval(
                "SELECT EXISTS (SELECT FROM hub.events WHERE channel = $1 AND id = $2)", CHANNEL, number
            ):
                await asyncio.sleep(_POLL)
    except TimeoutError:
        text = "An event that was published does not come to the log. See that both URLs lead to one database."
        return Finding("fail", "publish", text)
    except _FAILURES as error:
        return Finding("fail", "publish", f"No event can be published, or read: {_said(error)}.")
    return Finding("ok", "publish", f"is done in {published} ms, and read in {_ms(started)} ms, on {CHANNEL}")


def _ms(started: float) -> str:
    return f"{1000 * (time.perf_counter() - started):.1f}"


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")
