"""README's block for nginx, in Debian's nginx: all kinds of streams go through, and the client's address is seen."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.bench.server import free_port
from tests.conftest import Hub, running
from tests.tls import Authority
from tests.web.events import Received

README = Path(__file__).parents[2] / "README.md"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
BLOCK = re.search(r"```nginx\n(.*?)```", README.read_text(), re.DOTALL)
AROUND = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {block}
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def configured(folder: Path, certificate: Path, port: int, hub: str) -> str:
    """README's block with what is different here: ports, and where the certificate lies."""
    assert BLOCK is not None
    block = BLOCK[1]
    for stated, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/hub.pem", str(certificate)),
        ("/etc/ssl/hub.key", str(certificate)),
        ("http://127.0.0.1:8080", hub),
    ):
        assert stated in block
        block = block.replace(stated, here)
    return AROUND.format(folder=folder, block=block)


@asynccontextmanager
async def proxied(hub: Hub, folder: Path) -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """The hub's URL behind nginx, and what trusts its certificate."""
    authority, port = Authority(folder), free_port()
    file = folder / "nginx.conf"
    file.write_text(configured(folder, authority.issue("hub", "localhost"), port, hub.url))
    assert NGINX is not None
    process = await asyncio.create_subprocess_exec(
        NGINX, "-p", str(folder), "-c", str(file), "-e", "stderr", stderr=asyncio.subprocess.PIPE
    )
    try:
        await answering(process, port)
        yield f"https://localhost:{port}", ssl.create_default_context(cafile=authority.ca)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def answering(process: asyncio.subprocess.Process, port: int) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)  # it tells nobody when it listens
        else:
            writer.close()
            return
    raise AssertionError((await process.communicate())[1].decode())


def client(trusting: ssl.SSLContext, address: str = "127.0.0.1") -> aiohttp.ClientSession:
    """A client that comes from `address`."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting, local_addr=(address, 0)))


async def test_websockets_streams_exports_and_loads_go_through(database: str, tmp_path: Path) -> None:
    async with (
        running(database, origins="https://hub.example", trusted_proxies="127.0.0.1") as hub,
        proxied(hub, tmp_path) as (url, trusting),
        client(trusting) as http,
        http.ws_connect(url + "/ws?channel=a", origin=url) as socket,
        asyncio.timeout(60),
    ):
        assert [(await socket.receive_json())["type"] for _ in range(2)] == ["welcome", "subscribed"]
        async with http.get(url + "/events?channel=a", headers={"Accept": "text/event-stream"}) as stream:
            assert (await http.post(url + "/events", json={"channel": "a", "payload": 1})).status == 201
            received = Received()
            while not received.frames:  # little is enough: nothing is kept back until there is more
                received.feed(await stream.content.readany())
        assert (await socket.receive_json())["events"][0]["payload"] == 1

        async def lines() -> AsyncIterator[bytes]:
            for number in range(2_000):
                yield orjson.dumps({"channel": "b", "payload": [number, "x" * 1_000]}) + b"\n"

        lined = {"Content-Type": "application/x-ndjson"}
        assert (await http.post(url + "/events", data=lines(), headers=lined)).status == 201
        async with http.get(url + "/events?channel=b", headers={"Accept": "application/x-ndjson"}) as export:
            numbers = [orjson.loads(line)["payload"][0] async for line in export.content]
        assert numbers == list(range(2_000))


async def test_the_hub_knows_by_what_the_client_came_and_from_where(database: str, tmp_path: Path) -> None:
    async with (
        running(database, origins="https://hub.example", trusted_proxies="127.0.0.1", max_clients_per_address=1) as hub,
        proxied(hub, tmp_path) as (url, trusting),
        client(trusting, "127.0.0.2") as one,
        client(trusting, "127.0.0.3") as another,
    ):
        async with one.ws_connect(url + "/ws", headers={"X-Forwarded-For": "192.0.2.1"}):
            assert await refusal(one, url + "/ws", headers={"X-Forwarded-For": "192.0.2.2"}) == 429, "whatever it says"
            async with another.ws_connect(url + "/ws") as socket:
                assert (await socket.receive_json())["type"] == "welcome"
        assert await refusal(another, url + "/ws", origin=url.replace("https", "http")) == 403, "it came by https"


async def refusal(http: aiohttp.ClientSession, url: str, **options: Any) -> int:
    """The status with which a websocket is refused."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await http.ws_connect(url, **options)
    return caught.value.status
