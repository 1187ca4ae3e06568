"""The load of the fan-out benchmarks, in a process of its own: clients that count, and a publisher that keeps pace.

python -m tests.bench.load SPEC, SPEC being the JSON of `Spec`; prints the JSON of one result a run.

By epoll and without a framework, since what is measured is to be the server. Of a few clients, spread over all, the
frames are read and the sequence checked; the others got the same when they got as many bytes. The next burst is
published when all but one of those under way are there: one waits while one is written, so the server never idles
and never has more than a burst for one write.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import socket
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

from tests.bench.clients import cpu, memory
from tests.bench.table import percentile

PATIENCE = 60.0
SAMPLES = 5
WINDOW = 2  # bursts under way
SEQUENCE = re.compile(rb'seq\\?": ?(\d+)')
STAMPED = re.compile(rb'"payload":\[(\d+), ?(\d+)')  # by durable_producer: a number, and when it was sent


@dataclass
class Spec:
    """`path` may hold %, for the client's number. `publisher` is `ws`, or DSN, how, channel of burst_producer.

    Each of `runs` is (events of a burst, seconds), each of `paces` (durable events a second, their number). With `own`,
    an event goes to one client, else to all.
    """

    port: int
    pid: int
    path: str
    clients: int
    publisher: list[str]
    runs: list[tuple[int, float]] = field(default_factory=list)
    paces: list[tuple[float, int]] = field(default_factory=list)
    padding: int = 125
    hello: str = ""
    deflate: bool = False
    own: bool = False


@dataclass
class Reader:
    """Reads one client's frames."""

    data: bytearray = field(default_factory=bytearray)
    inflate: Any = field(default_factory=lambda: zlib.decompressobj(-15))
    last: int | None = None
    frames: int = 0
    late: list[float] = field(default_factory=list)  # milliseconds from the commit

    def feed(self, data: bytes) -> None:
        self.data += data
        while len(self.data) >= 2:
            size, body = self.data[1] & 127, 2
            if size >= 126:
                body += 2 if size == 126 else 8
                size = int.from_bytes(self.data[2:body], "big")
            if len(self.data) < body + size:
                return
            payload = bytes(self.data[body : body + size])
            if self.data[0] & 0x40:
                payload = self.inflate.decompress(payload + b"\x00\x00\xff\xff")
            del self.data[: body + size]
            self.frames += 1
            for found in SEQUENCE.findall(payload):
                number = int(found)
                assert self.last is None or number == self.last + 1, f"{number} follows {self.last}"
                self.last = number
            for number, sent in STAMPED.findall(payload):
                assert int(number) == len(self.late), f"{int(number)} follows {len(self.late) - 1}"
                self.late.append((time.perf_counter_ns() - int(sent)) / 1e6)


class Load:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.poll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.bytes: dict[int, int] = {}
        self.readers: dict[int, Reader] = {}
        self.events = 0  # with `own`: all that came, to whomever
        self.buffer = bytearray(1 << 20)

    def connect(self) -> float:
        """Handshakes a second."""
        start = time.perf_counter()
        made = [self._dial(number) for number in range(self.spec.clients)]
        seconds = time.perf_counter() - start
        for one in made:
            one.setblocking(False)
            self.sockets[one.fileno()] = one
            self.bytes[one.fileno()] = 0
            self.poll.register(one, select.EPOLLIN)
        step = max(1, (len(made) - 1) // (SAMPLES - 1))
        if not self.spec.own:
            self.readers = {one.fileno(): Reader() for one in [*made[::step], made[-1]]}
        return self.spec.clients / seconds

    def _dial(self, number: int) -> socket.socket:
        made = socket.create_connection((f"127.0.0.{1 + number // 20_000}", self.spec.port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handshake(made, self.spec.path.replace("%", str(number)), self.spec.port, deflate=self.spec.deflate)
        if self.spec.hello:
            made.sendall(masked(self.spec.hello.encode()))
        return made

    def take(self, timeout: float) -> bool:
        """Read what has come, if anything does in so many seconds."""
        ready = self.poll.poll(timeout, 1024)
        for descriptor, _ in ready:
            try:
                count = self.sockets[descriptor].recv_into(self.buffer)
            except BlockingIOError:
                continue
            assert count, "the server closed a connection"
            self.bytes[descriptor] += count
            if reader := self.readers.get(descriptor):
                reader.feed(self.buffer[:count])
            elif self.spec.own:
                self.events += len(SEQUENCE.findall(self.buffer, 0, count))
        return bool(ready)

    def settle(self) -> None:
        """Read until nothing more comes."""
        while self.take(0.5):
            pass

    def reached(self, number: int) -> bool:
        if self.spec.own:
            return self.events >= number
        return all(reader.last is not None and reader.last >= number for reader in self.readers.values())


class Publisher:
    """Numbers go on from run to run, from 1."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.sent = 0
        self.process: subprocess.Popen[bytes] | None = None
        if spec.publisher[0] == "ws":
            self.socket = socket.create_connection(("127.0.0.1", spec.port))
            handshake(self.socket, "/publish", spec.port)
        else:
            command = [sys.executable, "-m", "tests.bench.burst_producer", *spec.publisher, pad(spec)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def burst(self, count: int) -> None:
        if self.process:
            assert self.process.stdin is not None
            self.process.stdin.write(f"{self.sent + 1} {count}\n".encode())
            self.process.stdin.flush()
        else:
            text = pad(self.spec)
            numbers = range(self.sent + 1, self.sent + count + 1)
            self.socket.sendall(b"".join(masked(f'{{"seq":{n},"pad":"{text}"}}'.encode()) for n in numbers))
        self.sent += count

    def close(self) -> None:
        if self.process:
            self.process.communicate()
        else:
            self.socket.close()


def handshake(made: socket.socket, path: str, port: int, *, deflate: bool = False) -> None:
    extension = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else ""
    made.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extension}\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = made.recv(1)  # frames may follow at once, and are for later
        assert byte, head
        head += byte
    assert b" 101 " in head, head


def pad(spec: Spec) -> str:
    words = "an order of two espressos and one croissant for table 14, paid by card, please hurry up a little; "
    return (words * (spec.padding // len(words) + 1))[: spec.padding]


def masked(payload: bytes) -> bytes:
    """A text frame as clients send it; masked by zeros, which leave it as it is."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


def run(load: Load, publisher: Publisher, burst: int, seconds: float) -> dict[str, float]:
    spec = load.spec
    load.settle()
    before, used = dict(load.bytes), cpu(spec.pid)
    frames = sum(reader.frames for reader in load.readers.values())
    first = publisher.sent
    start = end = time.perf_counter()
    while end - start < seconds:
        publisher.burst(burst)
        due = publisher.sent - (WINDOW - 1) * burst
        while due > first and not load.reached(due):
            assert load.take(PATIENCE), "the server delivers no more"
        end = time.perf_counter()
    while not load.reached(publisher.sent):
        assert load.take(PATIENCE), "the server delivers no more"
    end = time.perf_counter()
    used = cpu(spec.pid) - used
    load.settle()
    counts = {load.bytes[each] - before[each] for each in load.bytes}
    events = publisher.sent - first
    if not spec.own:
        assert len(counts) == 1, f"not all clients got the same: {sorted(counts)[:5]} bytes"
        deliveries = events * spec.clients
        writes = (sum(reader.frames for reader in load.readers.values()) - frames) / len(load.readers) / events
    else:
        assert load.events == publisher.sent
        deliveries, writes = events, 1.0
    return {
        "rate": deliveries / (end - start),
        "cpu": used / deliveries,
        "bytes": sum(load.bytes[each] - before[each] for each in load.bytes) / deliveries,
        "frames": writes,
    }


def pace(load: Load, rate: float, count: int) -> dict[str, float]:
    """How late the events of a steady producer are, at the clients whose frames are read; `last`: until all had it."""
    spec = load.spec
    load.settle()
    before, used, start = dict(load.bytes), cpu(spec.pid), time.perf_counter()
    for reader in load.readers.values():
        reader.late = []
    dsn, _, channel = spec.publisher
    command = [sys.executable, "-m", "tests.bench.durable_producer", dsn, channel, str(rate), "0", str(count)]
    with subprocess.Popen([*command, pad(spec)]):
        while not all(len(reader.late) == count for reader in load.readers.values()):
            assert load.take(PATIENCE), "the server delivers no more"
    busy = (cpu(spec.pid) - used) / (time.perf_counter() - start)
    load.settle()
    counts = {load.bytes[each] - before[each] for each in load.bytes}
    assert len(counts) == 1, f"not all clients got the same: {sorted(counts)[:5]} bytes"
    every = [late for reader in load.readers.values() for late in reader.late]
    last = [max(lates) for lates in zip(*(reader.late for reader in load.readers.values()), strict=True)]
    return {
        "p50": percentile(every, 50),
        "p99": percentile(every, 99),
        "last_p50": percentile(last, 50),
        "last_max": max(last),
        "busy": busy,
    }


def main(text: str) -> None:
    spec = Spec(**json.loads(text))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    load, publisher, bare = Load(spec), Publisher(spec), memory(spec.pid)
    handshakes = load.connect()
    load.settle()
    kilobytes = (memory(spec.pid) - bare) * 1024 / spec.clients
    results = [run(load, publisher, burst, seconds) for burst, seconds in spec.runs]
    publisher.close()
    paces = [pace(load, rate, count) for rate, count in spec.paces]
    found = {"handshakes": handshakes, "kilobytes": kilobytes, "runs": results, "paces": paces}
    print(json.dumps(found), flush=True)
    os._exit(0)  # ten thousand closes, one by one, tell nothing


if __name__ == "__main__":
    main(sys.argv[1])
