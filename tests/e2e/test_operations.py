"""A hub seen by those who run it: its reports, metrics, probes, and what Postgres has to say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from hub.postgres.connect import Connection, Target, connect
from tests.conftest import Hub, running

UNITS = ("seconds", "bytes", "ratio", "events", "info")
COUNTED = re.compile(r"pghub_(\w+_)?(connections|channels|subscriptions|groups|joining|behind|waiting|tasks)(_\w+)?")
FLAGS = {"pghub_listener_connected", "pghub_tail_connected", "pghub_tail_asleep", "pghub_draining"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def producer(database: str) -> AsyncIterator[Connection]:
    connection = await connect(Target(database), purpose="producer")
    yield connection
    await connection.close()


async def received(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    """The next message; pings are not for us."""
    while (message := await socket.receive(timeout=10)).type is aiohttp.WSMsgType.PING:
        pass
    return dict(orjson.loads(message.data))


async def scraped(hub: Hub, http: aiohttp.ClientSession) -> dict[str, Metric]:
    async with http.get(hub.url + "/metrics") as answer:
        assert answer.status == 200
        return {family.name: family for family in text_string_to_metric_families(await answer.text())}


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    return next(
        each.value
        for family in families.values()
        for each in family.samples
        if each.name == sample and each.labels == labels
    )


class Reader:
    """Reads `$hub` until what is wanted comes."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while True:
                message = await received(self._socket)
                for event in message.get("events", ()):
                    if event["channel"] == "$hub" and wanted(event["payload"]):
                        return dict(event["payload"])

    async def told(self, kind: str) -> dict[str, Any]:
        return await self.until(lambda payload: payload.get("kind") == kind)


async def reader(hub: Hub, http: aiohttp.ClientSession) -> Reader:
    socket = await http.ws_connect(hub.ws + "?channel=$hub&channel=a", autoping=False)
    while (await received(socket)).get("type") != "subscribed":
        pass
    return Reader(socket)


async def test_the_report_says_how_the_hub_is(hub: Hub, http: aiohttp.ClientSession, producer: Connection) -> None:
    reports = await reader(hub, http)
    await producer.execute("SELECT hub.publish('a', '1')")
    await producer.execute("NOTIFY a, '2'")
    report = await reports.until(lambda payload: payload.get("events_in", 0) >= 2)
    assert (report["clients"], report["subscriptions"], report["groups"], report["behind"]) == (1, 1, 1, 0)
    assert (report["listener"], report["asleep"], report["draining"]) == ("connected", False, False)
    assert report["deliveries"] >= 2
    assert report["bytes_out"] > 100
    assert 0 <= report["lag_ms"] < 60_000
    assert 0 <= report["p50_ms"] <= report["p99_ms"]
    assert report["loop_lag_ms"] >= 0
    assert report["pool"] | {"size": 1, "used": 0} == {"size": 1, "used": 0, "max": 10, "waiting": 0}
    assert report["memory_mb"] > 1
    assert report["tasks"] > 5


async def test_what_happens_is_told_as_it_happens(
    database: str, http: aiohttp.ClientSession, producer: Connection
) -> None:
    async with running(database, slow_query="1ms", pool_max=1) as hub:
        reports = await reader(hub, http)
        async with http.post(hub.url + "/events", json={"channel": "a", "payload": "s3cret"}) as answer:
            assert answer.status == 201
        slow = await reports.told("slow_query")
        assert slow["at"].endswith("Z")
        assert slow["ms"] >= 1
        assert "s3cret" not in str(slow)
        await producer.execute("""
            CREATE FUNCTION public.remark() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE WARNING 'so many'; RETURN NULL; END $$;
            CREATE TRIGGER remark AFTER INSERT ON hub.events EXECUTE FUNCTION public.remark()""")
        async with http.post(hub.url + "/events", json={"channel": "a", "payload": 1}) as answer:
            assert answer.status == 201
        assert (await reports.told("notice"))["text"] == "so many"
        await producer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'pghub listener' AND datname = current_database()"
        )
        assert (await reports.told("listener"))["state"] == "lost"
        assert (await reports.until(lambda payload: payload.get("state") == "connected"))["seconds"] > 0
        assert (await reports.told("gap"))["reason"] == "listener"


async def test_metrics_say_what_has_happened(hub: Hub, http: aiohttp.ClientSession, producer: Connection) -> None:
    socket = await http.ws_connect(hub.ws + "?channel=a", autoping=False)
    while (await received(socket))["type"] != "subscribed":
        pass
    await producer.execute("SELECT hub.publish('a', to_jsonb(i)) FROM generate_series(1, 5) AS i")
    await producer.execute("NOTIFY a, '2'")
    seen = 0
    while seen < 6:
        seen += len((await received(socket)).get("events", ()))
    found = await scraped(hub, http)
    assert value(found, "pghub_connections", kind="websocket") == 1
    assert value(found, "pghub_subscriptions") == 1
    for name in ("received", "delivered"):
        assert value(found, f"pghub_events_{name}_total", tier="durable") == 5
        assert value(found, f"pghub_events_{name}_total", tier="ephemeral") == 1
    assert value(found, "pghub_delivery_age_seconds_count", tier="durable") >= 1
    assert value(found, "pghub_delivery_age_seconds_bucket", tier="durable", le="+Inf") >= 1
    assert value(found, "pghub_write_events_sum") == 6
    assert value(found, "pghub_listener_connected") == 1
    assert value(found, "pghub_query_duration_seconds_count", statement="tail read") >= 1
    assert value(found, "pghub_notification_queue_ratio") < 0.5
    await socket.close()
    assert socket.close_code == 1000


async def test_metrics_are_named_as_prometheus_wants_them(hub: Hub, http: aiohttp.ClientSession) -> None:
    """https://prometheus.io/docs/practices/naming/, as far as a machine can tell, and promtool's check."""
    ours = {name: family for name, family in (await scraped(hub, http)).items() if name.startswith("pghub_")}
    assert len(ours) > 30
    for name, family in ours.items():
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", name), name
        assert family.documentation.endswith("."), name
        assert family.type in ("counter", "gauge", "histogram"), name
        assert not re.search(r"(_|^)(counter|gauge|histogram|ms|milliseconds|kb|mb|percent)(_|$)", name), name
        assert not name.endswith(("_total", "_count", "_sum", "_bucket")), name
        if family.type == "counter":
            assert all(sample.name == name + "_total" for sample in family.samples), name
        elif name not in FLAGS:
            assert name.endswith(UNITS) or COUNTED.fullmatch(name), name
        for sample in family.samples:
            assert all(re.fullmatch(r"[a-z]+", label) for label in sample.labels), sample
            assert len(sample.labels) <= 2


async def test_a_hub_is_ready_as_long_as_a_notify_comes_through(
    database: str, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.readiness._PROOF_GOOD", 0.0)  # each probe is to be a new one
    async with running(database) as hub:
        for _ in range(2):
            async with http.get(hub.url + "/readyz") as answer:
                assert (answer.status, await answer.json()) == (200, {"status": "ready", "reasons": []})

        async def silent(*_: object) -> None:
            pass

        monkeypatch.setattr("hub.postgres.publisher.Publisher.prove", silent)
        monkeypatch.setattr("hub.readiness._PATIENCE", 0.2)
        async with http.get(hub.url + "/readyz") as answer:
            assert answer.status == 503
            (reason,) = (await answer.json())["reasons"]
        assert "does not reach the listening connection" in reason


async def test_a_pool_that_is_used_up_makes_a_hub_unready(
    database: str, http: aiohttp.ClientSession, producer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.readiness._PROOF_GOOD", 0.0)
    monkeypatch.setattr("hub.readiness._POOL_WAIT", 0.1)
    async with running(database, pool_max=1) as hub:
        async with producer.transaction():
            await producer.execute("LOCK TABLE hub.events IN SHARE MODE")
            posting = asyncio.create_task(http.post(hub.url + "/events", json={"channel": "a", "payload": 1}))
            while not (await scraped(hub, http))["pghub_pool_connections"].samples[0].value:
                await asyncio.sleep(0.01)  # nothing tells
            async with http.get(hub.url + "/readyz") as answer:
                assert answer.status == 503
                assert "All 1 connections" in (await answer.json())["reasons"][0]
        async with await posting as answer:
            assert answer.status == 201
        async with http.get(hub.url + "/readyz") as answer:
            assert answer.status == 200


async def test_a_lost_tail_and_a_lost_listener_are_told_by_the_probe(
    database: str, http: aiohttp.ClientSession, server: str
) -> None:
    async with running(database) as hub:
        name = database.rpartition("/")[2].partition("?")[0]
        admin = await asyncpg.connect(server)
        try:
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            async with asyncio.timeout(10):
                while True:
                    async with http.get(hub.url + "/readyz") as answer:
                        if len((await answer.json())["reasons"]) == 2:
                            break
                    await asyncio.sleep(0.02)  # a probe is how one finds out
        finally:
            await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            await admin.close()
