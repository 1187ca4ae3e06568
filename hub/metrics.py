"""Metrics for Prometheus: what the hub's parts count anyhow, gathered when it is asked for.

Names and units are after https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from hub import channels, loop
from hub.fanout.fanout import Fanout
from hub.histogram import Histogram
from hub.postgres.listener import Listener
from hub.postgres.tail import Tail
from hub.postgres.telemetry import Telemetry
from hub.vitals import Vitals
from hub.web.roster import Roster

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_REASONS: Final = "listener", "overflow", "expired", "reset", "failover"
_Labelled = dict[str, float] | Counter[str]


class Metrics(Collector):
    """The metrics of a hub."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._queue: float | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    async def scrape(self) -> bytes:
        """All of them, as text of CONTENT_TYPE."""
        self._queue = await self._vitals.queue()
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that the registry does not collect to find out the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        vitals = self._vitals
        info = InfoMetricFamily("pghub", "The hub that this is.")
        info.add_metric((), {"version": version("pghub"), "loop": loop.running()})
        yield info
        yield from _clients(vitals.fanout, vitals.roster)
        yield from _events(vitals.fanout)
        yield from _listener(vitals.listener)
        yield from _tail(vitals.tail, vitals.tail_lag)
        yield from _queries(vitals.telemetry)
        yield from self._pool()
        yield from self._process()

    def _pool(self) -> Iterator[Metric]:
        pool, used = self._vitals.pool, self._vitals.pool_used
        states = {"used": float(used), "idle": float(pool.get_size() - used)}
        yield _gauges("pghub_pool_connections", "Connections of the pool for requests.", "state", states)
        yield _gauge("pghub_pool_max_connections", "Connections that it may have.", pool.get_max_size())
        yield _gauge("pghub_pool_waiting", "Requests that wait for one.", pool.waiting)
        if self._queue is not None:
            text = "The share of Postgres's notification queue that is used; when it is full, NOTIFY fails."
            yield _gauge("pghub_notification_queue_ratio", text, self._queue)

    def _process(self) -> Iterator[Metric]:
        vitals = self._vitals
        text = "How late the event loop was, at the worst in the last ten seconds."
        yield _gauge("pghub_loop_lag_seconds", text, vitals.loop_lag)
        yield _gauge("pghub_tasks", "Tasks of the event loop.", vitals.tasks)
        yield _gauge("pghub_draining", "Whether the hub is sending its clients away.", vitals.roster.draining)


def _clients(fanout: Fanout, roster: Roster) -> Iterator[Metric]:
    kinds = roster.kinds()
    yield _gauges("pghub_connections", "Clients that are connected.", "kind", kinds)
    names = {name: channel.subscribers for name, channel in fanout.channels.items() if not channels.is_own(name)}
    yield _gauge("pghub_subscriptions", "Subscriptions of all clients.", sum(names.values()))
    yield _gauge("pghub_subscribed_channels", "Channels and patterns with subscribers.", len(names))
    yield _gauge("pghub_groups", "Groups of clients that get the same bytes.", fanout.groups)
    sessions = fanout.sessions
    behind = sum(session.behind is not None for session in sessions)
    yield _gauge("pghub_connections_behind", "Clients that read too slowly and are read to from the log.", behind)
    text = "Clients with subscribes whose replay is under way."
    yield _gauge("pghub_connections_joining", text, sum(bool(session.joins) for session in sessions))
    text = "About how many events of the log those who are read to have before them, each counted for each."
    yield _gauge("pghub_replay_depth_events", text, sum(fanout.lag(session) or 0 for session in sessions))
    text = "Bytes that wait in the hub for clients to take them."
    yield _gauge("pghub_unsent_bytes", text, sum(session.unsent for session in sessions))
    text = "Websockets that have ended, by close code."
    yield _counters("pghub_websocket_closes", text, "code", roster.closes)


def _events(fanout: Fanout) -> Iterator[Metric]:
    sweep, deliveries, into = fanout.sweep, fanout.deliveries, fanout.events_in
    tiers = {"durable": float(into - fanout.notified_in), "ephemeral": float(fanout.notified_in)}
    yield _counters("pghub_events_received", "Events that came from Postgres.", "tier", tiers)
    tiers = {"durable": float(deliveries - sweep.notified), "ephemeral": float(sweep.notified)}
    yield _counters("pghub_events_delivered", "Events written to clients, each counted for each.", "tier", tiers)
    yield _counter("pghub_events_replayed", "Of these, those read from the log or the ring.", fanout.replayed)
    yield _counter("pghub_delivered_bytes", "Bytes of events written to clients.", fanout.bytes_out)
    text = "Events written at once, counted for each group of clients."
    yield _histogram("pghub_write_events", text, {(): sweep.sizes})
    text = "Age of the oldest event of a write when it was made, since its publishing or its arrival by NOTIFY."
    ages = {("durable",): sweep.durable_ages, ("ephemeral",): sweep.ephemeral_ages}
    yield _histogram("pghub_delivery_age_seconds", text, ages, "tier")
    gaps = dict.fromkeys(_REASONS, 0.0) | fanout.gaps
    yield _counters("pghub_gaps", "Gaps that were told to clients.", "reason", gaps)
    text = "NOTIFYs dropped since too much was pending for a group."
    yield _counter("pghub_notifications_dropped", text, sweep.dropped)


def _listener(listener: Listener) -> Iterator[Metric]:
    yield _gauge("pghub_listener_connected", "Whether the hub hears NOTIFYs.", listener.connected)
    yield _gauge("pghub_listener_channels", "Channels that it listens to.", len(listener.channels))
    yield _counter("pghub_listener_losses", "Times that its connection was lost.", listener.losses)
    yield _counter("pghub_listener_blind_seconds", "Seconds in which it heard nothing.", listener.blind_seconds)


def _tail(tail: Tail, lag: float | None) -> Iterator[Metric]:
    yield _gauge("pghub_tail_connected", "Whether the log could be read last.", tail.connected)
    yield _gauge("pghub_tail_asleep", "Whether the tail sleeps, so that producers have to ring.", tail.asleep)
    yield _counter("pghub_bell_rings", "Times that producers rang.", tail.rings)
    if lag is not None:
        text = "Age of the newest event when it was read; absent where none came in the last ten seconds."
        yield _gauge("pghub_tail_lag_seconds", text, lag)
    if tail.looked_at is not None:
        text = "Time since the log was read last; asleep it is up to a minute."
        yield _gauge("pghub_tail_since_read_seconds", text, time.monotonic() - tail.looked_at)


def _queries(telemetry: Telemetry) -> Iterator[Metric]:
    durations = {(name,): histogram for name, histogram in telemetry.durations.items()}
    text = "Duration of statements, by name; COPY and the fetches of cursors are not counted."
    yield _histogram("pghub_query_duration_seconds", text, durations, "statement")
    yield _counters("pghub_query_failures", "Statements that failed.", "statement", telemetry.failures)
    yield _counter("pghub_slow_queries", "Statements slower than HUB_SLOW_QUERY.", telemetry.slow)
    yield _counters("pghub_postgres_notices", "Notices and warnings of Postgres.", "severity", telemetry.notices)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _labelled(
    family: Callable[..., CounterMetricFamily | GaugeMetricFamily],
) -> Callable[[str, str, str, _Labelled], Metric]:
    def made(name: str, text: str, label: str, values: _Labelled) -> Metric:
        metric = family(name, text, labels=(label,))
        for value, number in values.items():
            metric.add_metric((value,), number)
        return metric

    return made


_gauges: Final = _labelled(GaugeMetricFamily)
_counters: Final = _labelled(CounterMetricFamily)


def _histogram(name: str, text: str, found: Mapping[Any, Histogram], *labels: str) -> Metric:
    metric = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in found.items():
        total, buckets = 0, []
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            total += count
            buckets.append((floatToGoString(bound), total))  # type: ignore[no-untyped-call]
        metric.add_metric(values, buckets, histogram.sum)
    return metric
