"""LISTEN: one connection of its own for all channels, and word of every moment it was deaf.

A session in Postgres listens only as long as it is connected, and nobody keeps what is notified meanwhile. So
whenever the connection was lost, every channel concerned gets a gap: after LISTEN is confirmed again, and before
anything that came since. A hole always lies between two receipts with a gap between them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NoReturn

import asyncpg
import structlog

from hub import backoff
from hub.errors import Code, CommandError, SetupError
from hub.postgres.holds import Holds
from hub.postgres.inbox import Inbox
from hub.postgres.listening import ListeningConnection, Notification

_BACKOFF_FIRST: Final = 0.1  # seconds
_BACKOFF_MOST: Final = 10.0
_RATE: Final = 1_000  # channels a second that Postgres listens to at the least; it is slower the more there are

_UNPROVEN: Final = (
    "A NOTIFY by the database URL does not reach the listening connection. If PgBouncer is between in transaction "
    "mode, it swallows LISTEN: set HUB_DIRECT_URL to the same database without it. If HUB_DIRECT_URL is set, "
    "see that both lead to one database."
)

log = structlog.get_logger()


class Listener:
    """Listens to the channels that somebody holds.

    `on_batch` gets what one turn of the loop brought, in order; `on_gap` the channels that events of were lost, once
    they are listened to again; `on_lost` is called when the hub begins to be deaf.
    `linger` is how many seconds a channel without holders is still listened to; every `heartbeat` seconds a
    query shows that the connection lives, within `timeout` seconds, since asyncpg never notices a dead peer.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[ListeningConnection]],
        *,
        on_batch: Callable[[Sequence[Notification]], None],
        on_gap: Callable[[Sequence[str]], None],
        on_lost: Callable[[], None] = lambda: None,
        linger: float = 5.0,
        heartbeat: float = 10.0,
        timeout: float = 5.0,
        max_channels: int = 50_000,
    ) -> None:
        self._connect = connect
        self._on_lost = on_lost
        self._heartbeat = heartbeat
        self._timeout = timeout
        self._wake = asyncio.Event()  # something is to be done on the connection, or it is closed
        self._round = asyncio.Event()  # the present round of LISTEN is over; a new event for each
        self._holds = Holds(linger=linger, most=max_channels, on_change=self._wake.set)
        self._inbox = Inbox(on_batch, on_gap)
        self._listened: set[str] = set()  # confirmed on the live connection
        self._promised: set[str] = set()  # confirmed when the hub heard last: their loss is to be told
        self._probes: dict[str, asyncio.Event] = {}
        self._attempt = 0  # in vain, since the hub heard last
        self._trouble = "nothing was tried yet"
        self.blind_since: float | None = time.monotonic()
        """Since when the hub hears nothing, on the monotonic clock; None while it hears."""
        self.losses = 0
        """How often the connection was lost since it was made first."""
        self._blind = 0.0  # seconds, before `blind_since`

    def __repr__(self) -> str:
        state = "connected" if self.connected else "lost"
        return f"<Listener {state} channels={len(self._listened)} wanted={len(self._holds.wanted())}>"

    @property
    def connected(self) -> bool:
        """Whether all that was held when the connection was made is listened to."""
        return self.blind_since is None

    @property
    def blind_seconds(self) -> float:
        """How long the hub has heard nothing, all in all."""
        return self._blind + (0.0 if self.blind_since is None else time.monotonic() - self.blind_since)

    @property
    def channels(self) -> frozenset[str]:
        """What is listened to on the live connection."""
        return frozenset(self._listened)

    # What others ask for

    def hold(self, channel: str) -> None:
        """Want `channel` listened to, until `release`. Raises CommandError: `too_many` or `bad_channel`."""
        self._holds.take(channel)

    def release(self, channel: str) -> None:
        """Take one `hold` back."""
        self._holds.give(channel)

    async def listening(self, channels: Iterable[str]) -> None:
        """Return once all `channels`, which the caller holds, are listened to on the live connection.

        Raises CommandError (`unavailable`) when that takes too long. May be cancelled at any moment.
        """
        names = set(channels)
        try:
            async with asyncio.timeout(self._timeout):
                while not (self.connected and names <= self._listened):
                    await self._round.wait()
        except TimeoutError:
            message = "Postgres does not answer, so the hub cannot listen now; try again."
            raise CommandError(Code.UNAVAILABLE, message) from None

    async def prove(self, send: Callable[[str], Awaitable[object]]) -> None:
        """Show that notifications come through: `send` a NOTIFY on the channel it is given, by another connection.

        Raises SetupError where it cannot be sent or does not arrive in time.
        """
        channel = f"hub_probe_{secrets.token_hex(8)}"
        arrived = self._probes[channel] = asyncio.Event()
        self.hold(channel)
        try:
            await self.listening([channel])
            async with asyncio.timeout(self._timeout):
                await send(channel)
                await arrived.wait()
        except CommandError:
            raise SetupError(
                f"The hub cannot listen: {self._trouble.rstrip('.')}. Check HUB_DIRECT_URL, or HUB_DATABASE_URL where "
                "that is not set; it has to be the primary."
            ) from None
        except TimeoutError:
            raise SetupError(_UNPROVEN) from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise SetupError(f"NOTIFY by the database URL fails: {error}. By PgBouncer, set HUB_PGBOUNCER=1.") from None
        finally:
            self.release(channel)
            del self._probes[channel]

    # The connection

    async def run(self) -> NoReturn:
        """Listen until cancelled: connect, and connect again whenever the connection is lost."""
        while True:
            try:
                await self._serve()
            except Exception as error:  # whatever it is, the next connection may be better
                self._trouble = str(error) or type(error).__name__
                log.warning("listener_lost", reason=self._trouble, attempt=self._attempt)
            await asyncio.sleep(backoff.delay(self._attempt, first=_BACKOFF_FIRST, most=_BACKOFF_MOST))
            self._attempt += 1

    async def _serve(self) -> NoReturn:
        """Connect, listen to what is wanted, and keep it so. Raises when the connection fails or is lost."""
        connection = await self._connect()
        try:
            connection.on_notification = self._take
            connection.add_termination_listener(lambda _: self._wake.set())
            await self._adjust(connection)
            self._hear_again()
            while True:
                await self._idle(connection)
                await self._adjust(connection)
        finally:
            self._lose(connection)

    def _lose(self, connection: ListeningConnection) -> None:
        """Let go of a connection; what it brought goes out, what comes from now on waits for the gap."""
        connection.on_notification = None
        connection.terminate()
        self._inbox.shut()
        self._listened.clear()
        self._holds.begin_again()
        if self.blind_since is None:
            self.blind_since = time.monotonic()
            self.losses += 1
            self._on_lost()

    def _hear_again(self) -> None:
        """All that is wanted is listened to: tell what was lost, then what has come since."""
        lost, seconds = self._promised & self._listened, time.monotonic() - (self.blind_since or 0)
        log.info("listener_connected", channels=len(self._listened))
        if lost:
            log.warning("listener_gap", channels=len(lost), seconds=round(seconds, 3))
        self._promised = set(self._listened)
        self._blind += seconds
        self.blind_since, self._attempt = None, 0
        self._inbox.open(sorted(lost))
        self._end_round()

    async def _idle(self, connection: ListeningConnection) -> None:
        """Until something is to be done. Raises where the connection is closed or answers no heartbeat."""
        try:
            async with asyncio.timeout(self._heartbeat):
                await self._wake.wait()
        except TimeoutError:
            await self._within(connection.execute("/* heartbeat */ SELECT 1"), self._timeout)
        if connection.is_closed():
            raise ConnectionResetError("the connection was closed")

    async def _adjust(self, connection: ListeningConnection) -> None:
        """LISTEN and UNLISTEN until what is listened to is what is wanted.

        A channel counts as unlistened before the statement is sent: who wants it again meanwhile waits for the
        next round.
        """
        while True:
            self._wake.clear()
            new, gone = self._holds.changes()
            self._promised -= gone
            self._listened -= gone
            if not gone and not new:
                return
            patience = self._timeout + (len(gone) + len(new)) / _RATE
            await self._within(connection.unlisten(sorted(gone)), patience)
            await self._within(connection.listen(sorted(new)), patience)
            self._listened |= new
            if self.connected:
                self._promised |= new
                self._end_round()

    async def _within(self, answer: Awaitable[object], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await answer
        except TimeoutError:
            raise TimeoutError(f"no answer within {seconds:g} s") from None

    def _end_round(self) -> None:
        """Let all waiters look again, each for what it waits for."""
        self._round.set()
        self._round = asyncio.Event()

    # What comes in

    def _take(self, notification: Notification) -> None:
        if self._probes and (probe := self._probes.get(notification.channel)):
            probe.set()
        else:
            self._inbox.put(notification)
