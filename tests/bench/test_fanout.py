"""Fan-out: deliveries a second of the hub and of others, on one core, from a publisher in another process.

The server has the first core; the clients, the publisher and Postgres share the others. HUB_BENCH_ROUNDS says how many
rounds are interleaved. The Node servers take part where `require("ws")` and `require("socket.io")` find something:
NODE_PATH may say where.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hub.postgres.embedded import Embedded
from tests.bench.server import free_port, serving
from tests.bench.table import show, spread

ROUNDS = int(os.environ.get("HUB_BENCH_ROUNDS", "5"))
SERVERS = Path(__file__).parent / "servers"
BURSTS = (1, 16, 64)
SECONDS = 2.0
QUIET = {"HUB_HEARTBEAT": "3600"}  # all clients are to get the same bytes
CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def own_cores() -> Iterator[None]:
    """This process and all that it starts leave the first core to the server."""
    if len(CPUS) > 1:
        os.sched_setaffinity(0, CPUS[1:])
    yield
    os.sched_setaffinity(0, CPUS)


@pytest.fixture
def postgres(data_dir: Path) -> Iterator[str]:
    embedded = Embedded(data_dir, options={"fsync": "off", "max_connections": "50"})
    asyncio.run(embedded.start())
    yield embedded.dsn
    asyncio.run(embedded.stop())


def pin(process: int) -> None:
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), CPUS[:1])


@contextmanager
def hub(dsn: str, **settings: str) -> Iterator[tuple[int, int]]:
    """Its port and process."""
    with serving(dsn, **QUIET | settings) as (url, process):
        pin(process)
        yield int(url.rpartition(":")[2].partition("/")[0]), process


@contextmanager
def other(*command: str) -> Iterator[tuple[int, int]]:
    """A server that is no hub: its port and process."""
    port = free_port()
    with subprocess.Popen([*command, str(port)], stderr=subprocess.DEVNULL) as process:
        try:
            pin(process.pid)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                except ConnectionRefusedError:
                    time.sleep(0.05)
                else:
                    break
            yield port, process.pid
        finally:
            process.kill()


def load(port: int, process: int, **spec: Any) -> dict[str, Any]:
    """What `tests.bench.load` found out."""
    text = json.dumps({"port": port, "pid": process} | spec)
    done = subprocess.run([sys.executable, "-m", "tests.bench.load", text], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def has_node(module: str) -> bool:
    if shutil.which("node") is None:
        return False
    return (
        subprocess.run(["node", "-e", f"require('{module}')"], stderr=subprocess.DEVNULL, check=False).returncode == 0
    )


Made = Callable[[], Any]


def contenders(dsn: str) -> dict[str, tuple[Made, dict[str, Any]]]:
    """How each is started, and what its clients have to ask for."""
    python = [sys.executable, "-m"]
    everybody = {"path": "/", "publisher": ["ws"]}
    made: dict[str, tuple[Made, dict[str, Any]]] = {}
    for name, how, settings in (
        ("hub, NOTIFY", "notify", {}),
        ("hub, durable", "publish", {}),
        ("hub on asyncio, NOTIFY", "notify", {"HUB_LOOP": "asyncio"}),
    ):
        asked = {"path": "/ws?channel=fan", "publisher": [dsn, how, "fan"]}
        made[name] = (lambda settings=settings: hub(dsn, **settings)), asked
    made["aiohttp, send_str() in a loop"] = (lambda: other(*python, "tests.bench.servers.naive")), everybody
    made["websockets.broadcast()"] = (lambda: other(*python, "tests.bench.servers.broadcast")), everybody
    if has_node("ws"):
        made["ws (Node)"] = (lambda: other("node", str(SERVERS / "ws.js"))), everybody
    if has_node("socket.io"):
        path = "/socket.io/?EIO=4&transport=websocket"
        made["socket.io"] = (
            (lambda: other("node", str(SERVERS / "socketio.js"))),
            everybody | {"path": path, "hello": "40"},
        )
    return made


@pytest.mark.bench
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("clients", [100, 1_000, 10_000])
def test_deliveries_a_second(postgres: str, clients: int) -> None:
    parties = contenders(postgres)
    rates: dict[str, dict[int, list[float]]] = {name: defaultdict(list) for name in parties}
    for _ in range(ROUNDS):
        for name, (start, asked) in parties.items():
            with start() as (port, process):
                found = load(port, process, clients=clients, runs=[[burst, SECONDS] for burst in BURSTS], **asked)
            for burst, result in zip(BURSTS, found["runs"], strict=True):
                rates[name][burst].append(result["rate"] / 1_000)
    rows = [[name, *(spread(rates[name][burst], 0) for burst in BURSTS)] for name in parties]
    head = ["", *(f"{burst} at once" for burst in BURSTS)]
    show(f"Thousands of deliveries a second to {clients} clients, 150-byte payloads, {ROUNDS} rounds", head, rows)


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_latency_under_a_steady_stream(postgres: str) -> None:
    rows = []
    for clients, rate, count in (
        (1_000, 100, 1_000),
        (1_000, 500, 5_000),
        (1_000, 2_000, 20_000),
        (10_000, 1, 20),
        (10_000, 1 / 6, 5),
    ):
        with hub(postgres) as (port, process):
            asked = {"path": "/ws?channel=fan", "publisher": [postgres, "publish", "fan"]}
            (found,) = load(port, process, clients=clients, paces=[[rate, count]], **asked)["paces"]
        late = [f"{found[key]:.1f}" for key in ("p50", "p99", "last_p50", "last_max")]
        rows.append([str(clients), f"{rate:.3g}", *late, f"{100 * found['busy']:.0f} %"])
    head = ["clients", "events a second", "p50", "p99", "until all had it, p50", "greatest", "CPU"]
    show("hub.publish: milliseconds from commit to client", head, rows)


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_shapes_of_groups(postgres: str) -> None:
    """What a delivery costs a hub by how its clients are grouped, and what deflating saves."""
    everybody = {"clients": 1_000, "publisher": [postgres, "publish", "fan"], "runs": [[16, 3.0]]}
    wide = "&".join(f"channel=c{number}" for number in range(500))
    own = everybody | {"clients": 10_000, "publisher": [postgres, "publish", "u%"], "own": True, "runs": [[1_000, 3.0]]}
    shapes: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
        "1,000 clients of a channel": ({}, everybody | {"path": "/ws?channel=fan"}),
        "with the pattern **": ({}, everybody | {"path": "/ws?channel=**"}),
        "with 500 channels more": ({}, everybody | {"path": f"/ws?channel=fan&{wide}"}),
        "each a group of its own": ({}, everybody | {"path": "/ws?channel=fan&channel=u%"}),
        "that offer deflate": ({}, everybody | {"path": "/ws?channel=fan", "deflate": True}),
        "and get it": ({"HUB_COMPRESSION": "on"}, everybody | {"path": "/ws?channel=fan", "deflate": True}),
        "10,000 clients, each its own channel": ({}, own | {"path": "/ws?channel=u%"}),
    }
    rows = []
    for name, (settings, asked) in shapes.items():
        with hub(postgres, **settings) as (port, process):
            (found,) = load(port, process, **asked)["runs"]
        figures = [f"{found['rate'] / 1_000:.0f}", f"{found['cpu'] * 1e6:.2f}", f"{found['bytes']:.0f}"]
        rows.append([name, *figures])
    head = ["", "thousand deliveries a second", "µs of CPU a delivery", "bytes a delivery"]
    show("Durable events of 150 bytes, 16 at once", head, rows)


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_idle_connections(postgres: str) -> None:
    rows = []
    for clients in (1_000, 10_000):
        found = []
        for _ in range(ROUNDS):
            with hub(postgres) as (port, process):
                path, publisher = "/ws?channel=fan", [postgres, "publish", "fan"]
                found.append(load(port, process, clients=clients, path=path, publisher=publisher))
        sizes, rates = [each["kilobytes"] for each in found], [each["handshakes"] for each in found]
        rows.append([str(clients), spread(sizes, 1), spread(rates, 0)])
    show(
        "Idle websockets, each subscribed to a channel", ["clients", "KB of the hub each", "handshakes a second"], rows
    )
