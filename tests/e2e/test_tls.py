"""A hub that serves TLS itself, by its command line."""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path

import aiohttp
import orjson
import pytest

from hub import client, doctor
from hub.errors import SetupError
from hub.settings import Settings
from tests.conftest import running
from tests.e2e.test_cli import insert, listening, payloads, read_until, serving
from tests.tls import Authority
from tests.web.events import Received

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_websockets_and_streams_go_by_tls_and_the_dashboards_origin_is_https(
    database: str, authority: Authority
) -> None:
    trusting = ssl.create_default_context(cafile=authority.ca)
    async with (
        running(database, tls_cert=authority.issue("hub", "127.0.0.1", "localhost")) as hub,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as http,
    ):
        assert hub.url.startswith("https://127.0.0.1:")
        async with http.get(hub.url) as page:
            assert (page.status, "Strict-Transport-Security" in page.headers) == (200, False)
        own = hub.url.replace("127.0.0.1", "localhost")
        socket = await http.ws_connect(own + "/ws?channel=a", origin=own)
        assert [(await socket.receive_json())["type"] for _ in range(2)] == ["welcome", "subscribed"]
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await http.ws_connect(own + "/ws", origin=own.replace("https", "http"))
        assert caught.value.status == 403, "a page that came by http may be anybody's"
        async with http.get(hub.url + "/events?channel=a", headers=STREAM) as stream:
            sent = {"channel": "a", "payload": "x" * 100_000}
            assert (await http.post(hub.url + "/events", json=sent)).status == 201
            received = Received()
            while not received.frames:
                received.feed(await stream.content.readany())
        assert (await socket.receive_json())["events"][0]["payload"] == sent["payload"]
        await socket.close()


async def test_who_does_not_read_is_left_behind_and_catches_up_by_tls_too(database: str, authority: Authority) -> None:
    trusting = ssl.create_default_context(cafile=authority.ca)
    async with (
        running(database, tls_cert=authority.issue("hub", "127.0.0.1")) as hub,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting), read_bufsize=1 << 14) as http,
    ):
        socket = await http.ws_connect(hub.url + "/ws?channel=a", max_msg_size=0)
        assert [(await socket.receive_json())["type"] for _ in range(2)] == ["welcome", "subscribed"]
        for number in range(300):
            sent = {"channel": "a", "payload": [number, "x" * 30_000]}
            assert (await http.post(hub.url + "/events", json=sent)).status == 201
        numbers: list[int] = []
        while len(numbers) < 300:
            message = orjson.loads((await socket.receive()).data)
            numbers += [event["payload"][0] for event in message.get("events", ())]
        assert numbers == list(range(300))
        await socket.close()


async def test_who_begins_no_handshake_is_cut(database: str, authority: Authority) -> None:
    certificate = authority.issue("hub", "127.0.0.1")
    async with running(database, tls_cert=certificate, handshake_timeout=0.2) as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(hub.url.rpartition(":")[2]))
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()


async def test_another_authoritys_certificate_is_refused_for_good(database: str, authority: Authority) -> None:
    async with running(database, tls_cert=authority.issue("hub", "127.0.0.1")) as hub:
        with pytest.raises(client.RefusedError, match=r"not to be trusted: .*SSL_CERT_FILE"):
            await anext(client.follow(hub.ws, ["a"]))


def test_the_command_line_speaks_tls_and_a_hangup_changes_the_certificate(
    database: str, authority: Authority, tmp_path: Path
) -> None:
    certificate = authority.issue("hub", "127.0.0.1")
    env = {"HUB_DATABASE_URL": database, "HUB_TLS_CERT": str(certificate), "SSL_CERT_FILE": str(authority.ca)}
    with serving(env=env) as (process, greeting):
        assert "https://127.0.0.1:" in greeting
        port = greeting.partition("https://127.0.0.1:")[2].partition("/")[0]
        insert(database, [1])
        with listening("--port", port, "--last", "1", "a", env=env) as listener:
            assert payloads(listener, 1) == [1]
            shown = [ssl.get_server_certificate(("127.0.0.1", int(port)))]
            authority.issue("hub", "127.0.0.1")
            process.send_signal(signal.SIGHUP)
            read_until(process.stderr, "reloaded")
            shown.append(ssl.get_server_certificate(("127.0.0.1", int(port))))
            certificate.write_text("no certificate")
            process.send_signal(signal.SIGHUP)
            assert "HUB_TLS_CERT" in read_until(process.stderr, "reload_failed")
            shown.append(ssl.get_server_certificate(("127.0.0.1", int(port))))
            assert shown[0] != shown[1] == shown[2]
            insert(database, [2])
            assert payloads(listener, 1) == [2], "connected all the time"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


async def test_files_that_cannot_be_used_are_a_sentence_at_the_start_and_for_the_doctor(
    database: str, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere.pem"
    for settings, reason in (({"tls_cert": nowhere}, "No such file"), ({"tls_key": nowhere}, "HUB_TLS_CERT is not")):
        with pytest.raises(SetupError, match=reason):
            async with running(database, **settings):
                pass
    examined = [each async for each in doctor.examine(Settings(database_url=database, tls_cert=nowhere))]
    assert [each.level for each in examined if each.subject == "certificate"] == ["fail"]
