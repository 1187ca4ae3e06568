"""LISTEN: one connection of its own for all channels, and word of every moment it was deaf.

A session in Postgres listens only as long as it is connected, and nobody keeps what is notified meanwhile. So
whenever the connection was lost, every channel concerned gets a gap: after LISTEN is confirmed again, and before
anything that came since. A hole always lies between two receipts with a gap between them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NoReturn

import asyncpg
import structlog

from hub import backoff
from hub.errors import Code, CommandError, SetupError
from hub.postgres.listening import ListeningConnection, Notification

_BACKOFF_FIRST: Final = 0.1  # seconds
_BACKOFF_MOST: Final = 10.0
_HELD_BACK: Final = 100_000  # notifications that may arrive while channels are listened to again

_UNPROVEN: Final = (
    "A NOTIFY by the database URL does not reach the listening connection. If PgBouncer is between in transaction "
    "mode, it swallows LISTEN: set HUB_DIRECT_URL to the same database without it. If HUB_DIRECT_URL is set, "
    "see that both lead to one database."
)

log = structlog.get_logger()


class Listener:
    """Listens to the channels that somebody holds.

    `on_batch` gets what one turn of the loop brought, in order; `on_gap` the channels that events of were lost.
    `linger` is how many seconds a channel without holders is still listened to; every `heartbeat` seconds a
    query shows that the connection lives, within `timeout` seconds, since asyncpg never notices a dead peer.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[ListeningConnection]],
        *,
        on_batch: Callable[[Sequence[Notification]], None],
        on_gap: Callable[[Sequence[str]], None],
        linger: float = 5.0,
        heartbeat: float = 10.0,
        timeout: float = 5.0,
        max_channels: int = 50_000,
    ) -> None:
        self._connect = connect
        self._on_batch = on_batch
        self._on_gap = on_gap
        self._linger = linger
        self._heartbeat = heartbeat
        self._timeout = timeout
        self._max_channels = max_channels
        self._holders: Counter[str] = Counter()
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._listened: set[str] = set()  # confirmed on the live connection
        self._promised: set[str] = set()  # confirmed on some connection: a loss of theirs is announced
        self._waiters: dict[asyncio.Future[None], set[str]] = {}  # what each still waits for
        self._batch: list[Notification] = []
        self._deaf = True  # batches are held back until the gap is told
        self._flushing = False
        self._refused: set[str] = set()  # held, but Postgres does not take the name
        self._probe: tuple[str, asyncio.Future[None]] | None = None
        self._wake = asyncio.Event()
        self.connected = False

    def __repr__(self) -> str:
        state = "connected" if self.connected else "lost"
        return f"<Listener {state} channels={len(self._listened)} wanted={len(self._wanted())}>"

    # What others ask for

    def hold(self, channel: str) -> None:
        """Want `channel` listened to, until `release`. Raises CommandError (`too_many`) over `max_channels`."""
        if channel not in self._holders and len(self._holders) >= self._max_channels:
            message = f"This hub listens to {self._max_channels} channels already, which are the most."
            raise CommandError(Code.TOO_MANY, message)
        self._holders[channel] += 1
        if timer := self._lingering.pop(channel, None):
            timer.cancel()
        if channel not in self._listened:
            self._wake.set()

    def release(self, channel: str) -> None:
        """Take one `hold` back."""
        self._holders[channel] -= 1
        if self._holders[channel] > 0:
            return
        del self._holders[channel]
        loop = asyncio.get_running_loop()
        self._lingering[channel] = loop.call_later(self._linger, self._forget, channel)

    def _forget(self, channel: str) -> None:
        del self._lingering[channel]
        self._refused.discard(channel)
        self._wake.set()

    async def listening(self, channels: Iterable[str]) -> None:
        """Return once all `channels`, which the caller holds, are listened to on the live connection.

        Raises CommandError: `unavailable` when that takes too long, `bad_channel` where Postgres refuses one.
        """
        missing = set(channels) - self._listened
        if not missing:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = missing
        self._wake.set()
        try:
            async with asyncio.timeout(self._timeout):
                await waiter
        except TimeoutError:
            message = "Postgres does not answer, so the hub cannot listen now; try again."
            raise CommandError(Code.UNAVAILABLE, message) from None
        finally:
            self._waiters.pop(waiter, None)

    async def prove(self, send: Callable[[str], Awaitable[object]]) -> None:
        """Show that notifications come through: `send` a NOTIFY on the channel it is given, by another connection.

        Raises SetupError where it does not arrive in time.
        """
        channel = f"hub_probe_{secrets.token_hex(8)}"
        self._probe = channel, asyncio.get_running_loop().create_future()
        self.hold(channel)
        try:
            await self.listening([channel])
            async with asyncio.timeout(self._timeout):
                await send(channel)
                await self._probe[1]
        except (CommandError, TimeoutError):
            raise SetupError(_UNPROVEN) from None
        finally:
            self.release(channel)
            self._probe = None

    def _wanted(self) -> set[str]:
        return (self._holders.keys() | self._lingering.keys()) - self._refused

    # The connection

    async def run(self) -> NoReturn:
        """Listen until cancelled: connect, and connect again whenever the connection is lost."""
        attempt = 0
        while True:
            try:
                connection = await self._connect()
            except Exception as error:
                log.warning("listener_not_connected", error=str(error))
            else:
                attempt = 0
                try:
                    await self._serve(connection)
                except Exception as error:
                    log.warning("listener_lost", error=str(error) or type(error).__name__)
                finally:
                    self._lose(connection)
            await asyncio.sleep(backoff.delay(attempt, first=_BACKOFF_FIRST, most=_BACKOFF_MOST))
            attempt += 1

    def _lose(self, connection: ListeningConnection) -> None:
        """Let go of a connection; what it still brought goes out, what comes from now on is held back."""
        connection.on_notification = None
        connection.terminate()
        self._flush()
        self._batch.clear()  # what the gap was not told for yet: the next one covers it
        self._deaf = True
        self.connected = False
        self._listened.clear()

    async def _serve(self, connection: ListeningConnection) -> NoReturn:
        """Catch up with what is wanted, and go on doing so. Raises when the connection is lost."""
        lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connection.on_notification = self._take

        def on_termination(_: object) -> None:
            if not lost.done():
                lost.set_result(None)

        connection.add_termination_listener(on_termination)
        await self._adjust(connection)
        self._hear_again()
        log.info("listening", channels=len(self._listened))
        while True:
            await self._sleep(lost)
            if lost.done():
                raise ConnectionResetError("the connection was closed")
            if not self._wake.is_set():
                async with asyncio.timeout(self._timeout):
                    await connection.execute("SELECT 1")
            await self._adjust(connection)

    async def _sleep(self, lost: asyncio.Future[None]) -> None:
        """Until something is wanted, the connection is lost, or a heartbeat is due."""
        waking = asyncio.create_task(self._wake.wait(), name="listener wakes")
        ends: list[asyncio.Future[Any]] = [waking, lost]
        await asyncio.wait(ends, timeout=self._heartbeat, return_when=asyncio.FIRST_COMPLETED)
        waking.cancel()

    async def _adjust(self, connection: ListeningConnection) -> None:
        """LISTEN and UNLISTEN until what is listened to is what is wanted.

        A channel counts as unlistened before the statement is sent: who wants it again meanwhile waits for the
        next round.
        """
        while True:
            self._wake.clear()
            wanted = self._wanted()
            gone, new = self._listened - wanted, wanted - self._listened
            self._promised -= gone
            self._listened -= gone
            if not gone and not new:
                return
            async with asyncio.timeout(self._timeout + len(gone | new) / 1_000):
                await connection.unlisten(sorted(gone))
                await self._listen(connection, sorted(new))

    async def _listen(self, connection: ListeningConnection, new: list[str]) -> None:
        """LISTEN to all of `new`; where Postgres refuses, to each, so that one bad name harms no other."""
        try:
            await connection.listen(new)
        except asyncpg.PostgresError as error:
            if connection.is_closed():
                raise
            if len(new) > 1:
                for channel in new:
                    await self._listen(connection, [channel])
            else:
                self._refuse(new[0], error)
            return
        self._listened.update(new)
        if not self._deaf:
            self._promised.update(new)
        self._confirm()

    def _refuse(self, channel: str, error: asyncpg.PostgresError) -> None:
        log.warning("channel_refused", channel=channel, error=str(error))
        self._refused.add(channel)
        refusal = CommandError(Code.BAD_CHANNEL, f"Postgres refuses this name: {error}.", channels=(channel,))
        for waiter, missing in self._waiters.items():
            if channel in missing and not waiter.done():
                waiter.set_exception(refusal)

    def _confirm(self) -> None:
        for waiter, missing in self._waiters.items():
            missing -= self._listened
            if not missing and not waiter.done() and not self._deaf:
                waiter.set_result(None)

    def _hear_again(self) -> None:
        """All that is wanted is listened to: tell what was lost, then what has come since."""
        if lost := sorted(self._promised & self._listened):
            log.warning("listener_gap", channels=len(lost))
            self._on_gap(lost)
        self._promised = set(self._listened)
        self._deaf = False
        self.connected = True
        self._confirm()
        self._flush()

    # What comes in

    def _take(self, notification: Notification) -> None:
        if self._probe and self._probe[0] == notification.channel:
            if not self._probe[1].done():
                self._probe[1].set_result(None)
            return
        if self._deaf and len(self._batch) >= _HELD_BACK:
            return  # the gap that is about to be told covers it
        self._batch.append(notification)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._deaf or not self._batch:
            return
        batch, self._batch = self._batch, []
        try:
            self._on_batch(batch)
        except Exception:
            log.exception("batch_failed", events=len(batch))
