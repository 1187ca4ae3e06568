"""Whether the hub is fit to serve: shown by doing, when somebody asks."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from hub.errors import CommandError, SetupError
from hub.postgres.acquired import acquired
from hub.postgres.listener import Listener
from hub.postgres.publisher import Publisher
from hub.vitals import Vitals

_PROOF_GOOD: Final = 10.0  # seconds, so that probes cost Postgres next to nothing
_FRESH: Final = 5.0  # seconds within which an awake tail has read the log
_POOL_WAIT: Final = 2.0
_PATIENCE: Final = 3.0  # seconds for a proof: whoever probes does not wait long


class Readiness:
    """Tells what keeps the hub from serving.

    That NOTIFYs come through is shown by sending one, by the way that all others take, if nobody has done so lately.
    """

    def __init__(self, vitals: Vitals, listener: Listener, publisher: Publisher) -> None:
        self._vitals = vitals
        self._listener = listener
        self._publisher = publisher
        self._proven: tuple[float, str | None] = time.monotonic(), None  # when, and what spoke against it
        self._proof: asyncio.Task[str | None] | None = None

    async def reasons(self) -> list[str]:
        """One sentence for each reason; none where the hub is ready."""
        tail, listener = self._vitals.tail, self._listener
        found = []
        if self._vitals.roster.draining:
            found.append("The hub is going away.")
        if not tail.connected:
            found.append("The log cannot be read.")
        elif not tail.asleep and tail.looked_at is not None and time.monotonic() - tail.looked_at > _FRESH:
            found.append(f"The log was read last {time.monotonic() - tail.looked_at:.0f} s ago.")
        if not listener.connected:
            found.append("The listening connection to Postgres is down.")
        elif (trouble := await self._trouble()) is not None:
            found.append(trouble)
        return found

    async def _trouble(self) -> str | None:
        """What the last proof found, or a new one; those who ask meanwhile share it."""
        proven, trouble = self._proven
        if trouble is None and time.monotonic() - proven < _PROOF_GOOD:
            return None
        if self._proof is None:
            self._proof = asyncio.create_task(self._prove(), name="proof")
            self._proof.add_done_callback(self._note)
        return await asyncio.shield(self._proof)

    def _note(self, proof: asyncio.Task[str | None]) -> None:
        self._proof = None
        if not proof.cancelled():
            self._proven = time.monotonic(), proof.result()

    async def _prove(self) -> str | None:
        try:
            async with acquired(self._vitals.pool, _POOL_WAIT):
                pass
            async with asyncio.timeout(_PATIENCE):
                await self._listener.prove(self._publisher.prove)
        except TimeoutError:
            return "A NOTIFY by the database URL does not reach the listening connection in time."
        except CommandError as error:
            return f"The pool does not answer. {error.message}"
        except SetupError as error:
            return str(error)
        return None
