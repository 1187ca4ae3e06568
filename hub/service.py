"""The composition root: builds the hub from its parts, runs it, and takes it down in order."""

from __future__ import annotations

import asyncio
import contextlib
import math
import resource
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from hub import assets, demo, earth, event, loop, source, stats
from hub.certificate import Certificate
from hub.errors import CommandError, SetupError
from hub.fanout.fanout import Fanout
from hub.fanout.pulse import Pulse
from hub.journal import Journal
from hub.metrics import Metrics
from hub.postgres import retention, watched
from hub.postgres.authorize import Authorizing
from hub.postgres.codecs import set_codecs, set_stream_codecs
from hub.postgres.connect import Pool, Target, connect, connect_listening, connected, pool
from hub.postgres.embedded import Embedded
from hub.postgres.history import History
from hub.postgres.items import Items
from hub.postgres.listener import Listener
from hub.postgres.listening import Notification
from hub.postgres.log import Log
from hub.postgres.migrate import migrate
from hub.postgres.places import Places
from hub.postgres.publisher import Publisher
from hub.postgres.retention import Keep
from hub.postgres.tail import BELL, PLAN, SESSION, Tail
from hub.postgres.watched import Watched
from hub.readiness import Readiness
from hub.settings import Settings
from hub.signals import Signals
from hub.tokens import Tokens
from hub.vitals import Vitals
from hub.web.access import Access
from hub.web.addresses import Proxies, networks
from hub.web.app import Web
from hub.web.ports import Limits, Ports
from hub.web.roster import Roster
from hub.web.server import Endpoint, serving

_READERS: Final = 4  # connections that replays share
_FIRST_READ: Final = 30.0  # seconds that the first look at the log may take

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Running:
    """What a started hub tells its caller."""

    url: str
    dsn: str


async def run(settings: Settings, *, with_demo: bool = False, on_ready: Callable[[Running], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises SetupError for what the person who started it can put right.
    """
    check_address(settings)
    raise_file_limit()
    signals = Signals()
    signals.listen()
    async with source.database(settings) as found:
        dsn = source.dsn(found)
        async with hub(settings, dsn, with_demo=with_demo, signals=signals) as (url, tasks):
            if isinstance(found, Embedded):
                tasks.append(_task(found.supervise()))
            on_ready(Running(url, dsn))
            await _until(signals.stop, tasks)
            log.info("stopping")


@contextlib.asynccontextmanager
async def hub(
    settings: Settings, dsn: str, *, with_demo: bool = False, signals: Signals | None = None
) -> AsyncIterator[tuple[str, list[asyncio.Task[Any]]]]:
    """The hub on a database that is there: its address, and the tasks none of which may end.

    Leaving takes it down: no new connections, goodbye to the clients, then the tasks, the pool last.
    """
    signals = signals or Signals()
    endpoint = _endpoint(settings, signals)
    access = Access(settings.host, settings.origin_list, Proxies(networks(settings.trusted_proxies)))
    tokens = _tokens(settings, signals)
    telemetry, roster = source.telemetry_of(settings), Roster()
    pooled, direct = source.target(settings, dsn, telemetry), source.direct_target(settings, dsn, telemetry)
    await _prepare(direct)
    async with contextlib.AsyncExitStack() as stack:
        places = Places(earth.geometry if earth.is_installed() else None)
        codecs = places.codecs(set_codecs)
        opened = places.keep(
            await stack.enter_async_context(
                pool(pooled, min_size=settings.pool_min, max_size=settings.pool_max, codecs=codecs)
            )
        )
        readers = places.keep(
            await stack.enter_async_context(
                pool(direct, min_size=0, max_size=_READERS, purpose="replay", settings=PLAN, codecs=codecs)
            )
        )
        streams = places.keep(await stack.enter_async_context(_streams(settings, direct, places)))
        # The parts know one another through plain calls, so who is made first is told of the others by name.
        history = Log(readers, fresh=lambda: tail.fresh(), places=places)
        fanout = Fanout(history, max_buffer=settings.max_buffer, fences=lambda: earth.geometry().tree())
        pulse = _pulse(settings, fanout)
        listener = _listener(direct, fanout, ring=lambda: tail.ring(), wake=lambda: tail.wake())
        tail = _tail(direct, fanout, listener, places)
        publisher = Publisher(opened, patience=settings.pool_timeout, places=places)
        keep = retention.run(readers, _keep(settings), places=places)
        tasks = [_task(work) for work in (listener.run(), tail.run(), publisher.run(), pulse.run(), keep)]
        stack.push_async_callback(_cancel, tasks)
        await listener.prove(publisher.prove)
        await _started(tail)
        vitals, journal = Vitals(fanout, listener, tail, opened, telemetry, roster), Journal(fanout)
        telemetry.tell = journal.tell
        tasks += [_task(vitals.run()), _task(stats.run(vitals, journal))]
        if with_demo:
            tasks.append(_task(demo.run(lambda: connect(direct, purpose="demo"), assets.folder("sql"))))
        authorizing = None if tokens is None else await _authorizing(opened, settings.authorize_cache)
        if authorizing is not None:
            tasks.append(_task(authorizing.run()))
        ports = Ports(
            fanout=fanout,
            pulse=pulse,
            listener=listener,
            publisher=publisher,
            watched=Watched(streams, opened, patience=settings.pool_timeout),
            posting=Items(opened, streams, patience=settings.pool_timeout, places=places),
            past=History(opened, streams, patience=settings.pool_timeout, places=places),
            ready=Readiness(vitals, listener, publisher).reasons,
            scrape=Metrics(vitals).scrape,
            roster=roster,
            limits=_limits(settings),
            heartbeat=settings.heartbeat,
            stall_timeout=settings.stall_timeout,
            compression=settings.compression == "on",
            geometry=lambda: earth.geometry() if places.home is not None else None,
            tokens=tokens,
            authorizing=authorizing,
            auth_timeout=settings.auth_timeout,
        )
        site = _site(ports, access, with_demo=with_demo)
        url = await stack.enter_async_context(serving(site, endpoint, hurry=signals.hurry))
        log.info("serving", url=url, loop=loop.running())
        yield url, tasks


def _streams(settings: Settings, direct: Target, places: Places) -> contextlib.AbstractAsyncContextManager[Pool]:
    """Connections that read as long as somebody reads what they read."""
    return pool(
        direct,
        min_size=0,
        max_size=settings.stream_max,
        purpose="stream",
        settings=watched.session(settings.stall_timeout),
        codecs=places.codecs(set_stream_codecs),
    )


def _pulse(settings: Settings, fanout: Fanout) -> Pulse:
    return Pulse(
        fanout.heartbeat,
        heartbeat=settings.heartbeat,
        stall_timeout=settings.stall_timeout,
        idle_timeout=settings.idle_timeout,
    )


def check_address(settings: Settings) -> None:
    """Refuse to be open to other machines: without tokens whoever reaches the hub may read all of it."""
    if settings.host not in ("localhost", "127.0.0.1", "::1") and not settings.wants_tokens:
        raise SetupError(
            f"The hub has no secret, so it is open to all who can reach it, and {settings.host!r} is more than this "
            "machine. Set HUB_SECRET or HUB_PUBLIC_KEY, or leave HUB_HOST at 127.0.0.1."
        )


def _tokens(settings: Settings, signals: Signals) -> Tokens | None:
    """What tells good tokens from others; None leaves the hub open."""
    if not settings.wants_tokens:
        return None
    tokens = Tokens(secret=settings.secret, public_key=settings.public_key, audience=settings.audience)
    if settings.public_key is not None:
        signals.reread("public keys", tokens.reload)
    return tokens


async def _authorizing(opened: Pool, keep: float) -> Authorizing:
    authorizing = Authorizing(opened, keep=keep)
    try:
        await authorizing.look()
    except CommandError as error:
        raise SetupError(f"The hub cannot tell whether there is a hub.authorize. {error.message}") from None
    return authorizing


def raise_file_limit() -> None:
    """Let this process have as many connections as the system allows it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _prepare(direct: Target) -> None:
    async with connected(direct, purpose="migrate") as connection:
        for name in await migrate(connection, assets.folder("sql")):
            log.info("migrated", migration=name)


def _listener(direct: Target, fanout: Fanout, *, ring: Callable[[], None], wake: Callable[[], None]) -> Listener:
    def on_batch(batch: Sequence[Notification]) -> None:
        now = datetime.now(UTC)
        events = [event.ephemeral(name, payload, now) for name, payload in batch if name != BELL]
        if events:
            fanout.sink(events)
        if len(events) < len(batch):
            ring()

    listener = Listener(
        lambda: connect_listening(direct),
        on_batch=on_batch,
        on_gap=lambda names: fanout.gap(names, "listener"),
        on_lost=wake,
    )
    listener.hold(BELL)
    return listener


def _tail(direct: Target, fanout: Fanout, listener: Listener, places: Places) -> Tail:
    return Tail(
        lambda: connect(direct, purpose="tail", settings=SESSION),
        sink=fanout,
        hears=lambda: listener.connected and BELL in listener.channels,
        places=places,
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


def _keep(settings: Settings) -> Keep:
    return Keep(settings.retention_age, settings.retention_count or None, settings.retention_bytes)


def _limits(settings: Settings) -> Limits:
    return Limits(
        clients=settings.max_clients,
        per_address=settings.max_clients_per_address,
        rate=settings.max_rate or math.inf,
        channels=settings.max_channels,
        frame=settings.max_frame,
        buffer=settings.max_buffer,
    )


def _endpoint(settings: Settings, signals: Signals) -> Endpoint:
    """Where to serve. A certificate is read again when the process is told so."""
    tls = None
    if settings.tls_cert is not None:
        certificate = Certificate(settings.tls_cert, settings.tls_key)
        signals.reread("certificate", certificate.reload)
        tls = certificate.context
    elif settings.tls_key is not None:
        raise SetupError("HUB_TLS_KEY is set and HUB_TLS_CERT is not. Set both, or neither.")
    return Endpoint(
        settings.host,
        settings.port,
        reuse_port=settings.reuse_port,
        tls=tls,
        handshake_timeout=settings.handshake_timeout,
        stall_timeout=settings.stall_timeout,
        drain_seconds=settings.drain_seconds,
    )


def _site(ports: Ports, access: Access, *, with_demo: bool) -> Web:
    return Web(ports, access=access, static=assets.folder("static"), start=demo.START if with_demo else ())


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
