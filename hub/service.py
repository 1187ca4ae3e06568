"""The composition root: builds the hub from its parts, runs it, and takes it down in order."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from aiohttp import web

from hub import assets, cursor, demo, event, loop, stats
from hub.errors import SetupError
from hub.fanout.fanout import Fanout
from hub.fanout.pulse import Pulse
from hub.postgres import retention, watched
from hub.postgres.codecs import set_stream_codecs
from hub.postgres.connect import Pool, Target, connect, connect_listening, pool
from hub.postgres.embedded import Embedded
from hub.postgres.history import History
from hub.postgres.items import Items
from hub.postgres.listener import Listener
from hub.postgres.listening import Notification
from hub.postgres.log import Log
from hub.postgres.migrate import migrate
from hub.postgres.publisher import Publisher
from hub.postgres.tail import BELL, PLAN, SESSION, Tail
from hub.postgres.watched import Watched
from hub.settings import Database, Settings
from hub.web.access import Access
from hub.web.app import Web
from hub.web.ports import Limits, Ports

_GOODBYE: Final = 1.0  # seconds that clients get to leave in
_MAX_LINE: Final = 2 * cursor.MAX_LENGTH  # of a request: a cursor may stand in the URL, and in a header
_READERS: Final = 4  # connections that replays share
_FIRST_READ: Final = 30.0  # seconds that the first look at the log may take

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Running:
    """What a started hub tells its caller."""

    url: str
    dsn: str


@contextlib.asynccontextmanager
async def database(settings: Database) -> AsyncIterator[Embedded | str]:
    """The Postgres that the settings name: its URL, or the embedded one, started and at the end stopped."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    async with Embedded(settings.folder, bin_dir=settings.pg_bin) as embedded:
        yield embedded


def target(settings: Database, dsn: str) -> Target:
    """How the pool connects."""
    return Target(dsn, pgbouncer=settings.pgbouncer, ssl=settings.tls(), direct_tls=settings.direct_tls)


def direct_target(settings: Database, dsn: str) -> Target:
    """How connections of their own connect, which PgBouncer must not come between."""
    return Target(settings.direct_url or dsn, ssl=settings.tls(), direct_tls=settings.direct_tls)


async def run(settings: Settings, *, with_demo: bool = False, on_ready: Callable[[Running], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises SetupError for what the person who started it can put right.
    """
    check_address(settings)
    settings.tls()
    raise_file_limit()
    stop = asyncio.Event()
    running_loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        running_loop.add_signal_handler(name, stop.set)
    async with database(settings) as source:
        dsn = source if isinstance(source, str) else source.dsn
        async with hub(settings, dsn, with_demo=with_demo) as (url, tasks):
            if isinstance(source, Embedded):
                tasks.append(_task(source.supervise()))
            on_ready(Running(url, dsn))
            await _until(stop, tasks)
            log.info("stopping")


@contextlib.asynccontextmanager
async def hub(
    settings: Settings, dsn: str, *, with_demo: bool = False
) -> AsyncIterator[tuple[str, list[asyncio.Task[Any]]]]:
    """The hub on a database that is there: its address, and the tasks none of which may end.

    Leaving takes it down: no new connections, goodbye to the clients, then the tasks, the pool last.
    """
    pooled, direct = target(settings, dsn), direct_target(settings, dsn)
    await _prepare(direct)
    async with contextlib.AsyncExitStack() as stack:
        opened = await stack.enter_async_context(pool(pooled, min_size=settings.pool_min, max_size=settings.pool_max))
        readers = await stack.enter_async_context(
            pool(direct, min_size=0, max_size=_READERS, purpose="replay", settings=PLAN)
        )
        streams = await stack.enter_async_context(_streams(settings, direct))
        # The parts know one another through plain calls, so who is made first is told of the others by name.
        history = Log(readers, fresh=lambda: tail.fresh())
        fanout = Fanout(history, max_buffer=settings.max_buffer)
        pulse = Pulse(fanout.heartbeat, heartbeat=settings.heartbeat, stall_timeout=settings.stall_timeout)
        listener = _listener(direct, fanout, lambda: tail.wake())
        tail = _tail(direct, fanout, listener)
        publisher = Publisher(opened)
        keep = retention.run(readers, age=settings.retention_age, count=settings.retention_count or None)
        tasks = [_task(work) for work in (listener.run(), tail.run(), publisher.run(), pulse.run(), keep)]
        stack.push_async_callback(_cancel, tasks)
        await listener.prove(publisher.prove)
        await _started(tail)
        tasks.append(_task(stats.run(fanout, listener)))
        if with_demo:
            tasks.append(_task(demo.run(lambda: connect(direct, purpose="demo"), assets.folder("sql"))))
        ports = Ports(
            fanout=fanout,
            pulse=pulse,
            listener=listener,
            publisher=publisher,
            watched=Watched(streams, opened),
            posting=Items(opened, streams),
            past=History(opened, streams, verify=history.verify),
            ready=lambda: _reasons(listener, tail),
            limits=_limits(settings),
            heartbeat=settings.heartbeat,
            stall_timeout=settings.stall_timeout,
            compression=settings.compression == "on",
        )
        url = await stack.enter_async_context(_serve(settings, ports, demo.START if with_demo else ()))
        log.info("serving", url=url, loop=loop.running())
        yield url, tasks


def _streams(settings: Settings, direct: Target) -> contextlib.AbstractAsyncContextManager[Pool]:
    """Connections that read as long as somebody reads what they read."""
    return pool(
        direct,
        min_size=0,
        max_size=settings.stream_max,
        purpose="stream",
        settings=watched.session(settings.stall_timeout),
        codecs=set_stream_codecs,
    )


def check_address(settings: Settings) -> None:
    """Refuse to be open to other machines: without tokens whoever reaches the hub may read all of it."""
    if settings.host not in ("localhost", "127.0.0.1", "::1"):
        raise SetupError(
            f"The hub has no secret, so it is open to all who can reach it, and {settings.host!r} is more "
            "than this machine. Leave HUB_HOST at 127.0.0.1 and put a proxy with a login before it."
        )


def raise_file_limit() -> None:
    """Let this process have as many connections as the system allows it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _prepare(direct: Target) -> None:
    connection = await connect(direct, purpose="migrate")
    try:
        for name in await migrate(connection, assets.folder("sql")):
            log.info("migrated", migration=name)
    finally:
        await connection.close()


def _listener(direct: Target, fanout: Fanout, wake: Callable[[], None]) -> Listener:
    def on_batch(batch: Sequence[Notification]) -> None:
        now = datetime.now(UTC)
        events = [event.ephemeral(name, payload, now) for name, payload in batch if name != BELL]
        if events:
            fanout.sink(events)
        if len(events) < len(batch):
            wake()

    listener = Listener(
        lambda: connect_listening(direct),
        on_batch=on_batch,
        on_gap=lambda names: fanout.gap(names, "listener"),
        on_lost=wake,
    )
    listener.hold(BELL)
    return listener


def _tail(direct: Target, fanout: Fanout, listener: Listener) -> Tail:
    return Tail(
        lambda: connect(direct, purpose="tail", settings=SESSION),
        sink=fanout,
        hears=lambda: listener.connected and BELL in listener.channels,
    )


async def _started(tail: Tail) -> None:
    try:
        async with asyncio.timeout(_FIRST_READ):
            await tail.started()
    except TimeoutError:
        raise SetupError(
            f"The hub cannot read its log: {tail.trouble.rstrip('.')}. Its role needs SELECT on the tables of the "
            "schema hub; `pghub doctor` may know more."
        ) from None


def _reasons(listener: Listener, tail: Tail) -> list[str]:
    """What keeps the hub from serving."""
    return [
        *([] if listener.connected else ["The listening connection to Postgres is down."]),
        *([] if tail.connected else ["The log cannot be read."]),
    ]


def _limits(settings: Settings) -> Limits:
    return Limits(
        clients=settings.max_clients,
        channels=settings.max_channels,
        frame=settings.max_frame,
        buffer=settings.max_buffer,
    )


@contextlib.asynccontextmanager
async def _serve(settings: Settings, ports: Ports, start: Sequence[tuple[str, str]]) -> AsyncIterator[str]:
    access = Access(settings.host, settings.origin_list)
    site = Web(ports, access=access, static=assets.folder("static"), start=start)
    runner = web.AppRunner(
        site.app, access_log=None, shutdown_timeout=_GOODBYE, max_line_size=_MAX_LINE, max_field_size=_MAX_LINE
    )
    await runner.setup()
    try:
        tcp = web.TCPSite(runner, settings.host, settings.port, backlog=4096, reuse_port=settings.reuse_port)
        try:
            await tcp.start()
        except OSError as error:
            raise SetupError(_bind_failure(settings, error)) from None
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield f"http://{host}:{tcp.port}"
        await tcp.stop()
        await site.drain(_GOODBYE)
    finally:
        await runner.cleanup()


def _bind_failure(settings: Settings, error: OSError) -> str:
    return (
        f"The hub cannot listen on {settings.host} port {settings.port}: {error.strerror or error}. "
        "Stop what uses it, or choose another one with --port (0 takes a free one)."
    )


def _task(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.create_task(work, name=getattr(work, "__qualname__", None))


async def _until(stop: asyncio.Event, tasks: list[asyncio.Task[Any]]) -> None:
    """Return when `stop` is set; raise what a task died of."""
    stopped = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for task in done - {stopped}:
        task.result()


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
