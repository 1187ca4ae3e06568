"""What can go wrong: each fault is done to a world, and returns when it is over."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable

import asyncpg

from tests.faults.world import World, until

Fault = Callable[[World], Awaitable[None]]
FAULTS: dict[str, Fault] = {}
DISK_FULL = "Postgres: disk full"


def fault(name: str) -> Callable[[Fault], Fault]:
    """Enter it into FAULTS."""

    def enter(strike: Fault) -> Fault:
        FAULTS[name] = strike
        return strike

    return enter


# Between the hub and Postgres


@fault("Postgres: 20 ms of latency")
async def _(world: World) -> None:
    world.database.delay = 0.02
    await world.traffic()
    world.database.delay = 0.0


@fault("Postgres: bytes come one at a time")
async def _(world: World) -> None:
    world.database.drips = True
    await world.traffic()
    world.database.drips = False


@fault("Postgres: connections cut by RST")
async def _(world: World) -> None:
    await world.traffic()
    world.database.cut()


@fault("Postgres: FIN to the hub only")
async def _(world: World) -> None:
    await world.traffic()
    world.database.half_close(far=False)


@fault("Postgres: FIN to Postgres only")
async def _(world: World) -> None:
    await world.traffic()
    world.database.half_close(far=True)


@fault("Postgres: a black hole without RST")
async def _(world: World) -> None:
    """Noticed by what the hub itself does: its heartbeat gets no answer within its timeout."""
    await world.traffic()
    before = world.lines()
    world.database.swallow()
    lines = await world.logged("listener_lost", before)
    reasons = [line["reason"] for line in lines if line["event"] == "listener_lost"]
    assert reasons[0].startswith("no answer within")


@fault("Postgres: silence, then all of it")
async def _(world: World) -> None:
    before = world.lines()
    world.database.silence()
    await world.logged("listener_lost", before)
    world.database.speak()


@fault("Postgres: garbage to the hub")
async def _(world: World) -> None:
    await world.traffic()
    world.database.garble(far=False)


@fault("Postgres: garbage from the hub")
async def _(world: World) -> None:
    await world.traffic()
    world.database.garble(far=True)


# Between the clients and the hub


@fault("clients: 20 ms of latency")
async def _(world: World) -> None:
    world.network.delay = 0.02
    await world.traffic()
    world.network.delay = 0.0


@fault("clients: bytes come one at a time")
async def _(world: World) -> None:
    world.network.drips = True
    await world.traffic(5)
    world.network.drips = False


@fault("clients: connections cut by RST")
async def _(world: World) -> None:
    await world.traffic()
    world.network.cut()


@fault("clients: FIN to the clients only")
async def _(world: World) -> None:
    await world.traffic()
    world.network.half_close(far=False)


@fault("clients: FIN to the hub only")
async def _(world: World) -> None:
    await world.traffic()
    world.network.half_close(far=True)


@fault("clients: a black hole without RST")
async def _(world: World) -> None:
    await world.traffic()
    world.network.swallow()


@fault("clients: silence, then all of it")
async def _(world: World) -> None:
    world.network.silence()
    await world.traffic()
    world.network.speak()


@fault("clients: garbage to the clients")
async def _(world: World) -> None:
    await world.traffic()
    world.network.garble(far=False)


@fault("clients: garbage to the hub")
async def _(world: World) -> None:
    await world.traffic()
    world.network.garble(far=True)


# The hub


@fault("hub: SIGKILL")
async def _(world: World) -> None:
    await world.traffic()
    assert await world.hub.end(signal.SIGKILL) == -signal.SIGKILL
    await world.traffic()
    await world.hub.start()


@fault("hub: SIGTERM")
async def _(world: World) -> None:
    await world.traffic()
    assert await world.hub.end(signal.SIGTERM) == 0
    await world.hub.start()


@fault("hub: SIGSTOP, SIGCONT")
async def _(world: World) -> None:
    world.hub.signal(signal.SIGSTOP)
    await world.traffic()
    world.hub.signal(signal.SIGCONT)


# Postgres


@fault("Postgres: a backend killed by SIGKILL")
async def _(world: World) -> None:
    """All the others go down with it, and Postgres recovers."""
    await world.traffic()
    os.kill((await world.backends())[0], signal.SIGKILL)


@fault("Postgres: fast shutdown, start")
async def _(world: World) -> None:
    await world.traffic()
    await world.embedded.stop()
    await world.embedded.start()


@fault("Postgres: immediate shutdown, start")
async def _(world: World) -> None:
    await world.traffic()
    world.kill_postgres(signal.SIGQUIT)
    await world.embedded.stop()
    await world.embedded.start()


@fault("Postgres: SIGKILL, start")
async def _(world: World) -> None:
    await world.traffic()
    world.kill_postgres(signal.SIGKILL)
    await world.embedded.stop()
    await world.embedded.start()


@fault("Postgres: SIGSTOP, SIGCONT of the hub's backends")
async def _(world: World) -> None:
    stopped = await world.backends()
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    await world.ready(False)
    for process in stopped:
        os.kill(process, signal.SIGCONT)


@fault(DISK_FULL)
async def _(world: World) -> None:
    """Until a producer has been told, or Postgres itself has given up."""
    for producer in world.everybody:
        producer.failures.clear()
    world.disk.fill()
    full = asyncpg.DiskFullError
    await until(lambda: not world.postgres_runs or any(full in producer.failures for producer in world.everybody))
    world.disk.empty()
