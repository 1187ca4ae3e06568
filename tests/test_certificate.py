"""The hub's certificate: read, read again, and refused in words."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from hub.certificate import Certificate
from hub.errors import SetupError
from tests.tls import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def serial(authority: Authority, certificate: Certificate, *, newest: ssl.TLSVersion | None = None) -> str:
    """The number of the certificate that a client is shown, which trusts the authority."""
    trusting = ssl.create_default_context(cafile=authority.ca)
    if newest is not None:
        trusting.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL itself would have nothing to do with old ones
        trusting.minimum_version, trusting.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, newest
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=certificate.context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        shown: str = writer.get_extra_info("peercert")["serialNumber"]
        writer.close()
    return shown


async def test_the_files_are_read_again_when_told(authority: Authority) -> None:
    file = authority.issue("hub", "127.0.0.1")
    certificate = Certificate(file, None)
    first = await serial(authority, certificate)
    authority.issue("hub", "127.0.0.1")
    assert await serial(authority, certificate) == first
    certificate.reload()
    second = await serial(authority, certificate)
    assert second != first
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SetupError):
        certificate.reload()
    assert await serial(authority, certificate) == second, "a broken file changes nothing"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")  # that it is old is the point
async def test_tls_below_1_2_is_refused(authority: Authority) -> None:
    certificate = Certificate(authority.issue("hub", "127.0.0.1"), None)
    await serial(authority, certificate, newest=ssl.TLSVersion.TLSv1_2)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await serial(authority, certificate, newest=ssl.TLSVersion.TLSv1_1)


def test_what_cannot_be_used_is_said_in_a_sentence(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.issue("hub", "localhost"), authority.issue("other", "localhost")
    key = serialization.load_pem_private_key(good.read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    cases = [
        (tmp_path / "nowhere.pem", None, "nowhere.pem: No such file"),
        (tmp_path, None, "Is a directory"),
        (good, tmp_path / "nowhere.key", "nowhere.key: No such file"),
        (good, other, "the key is not that of the certificate"),
        (authority.write("locked.pem", good.read_bytes()), authority.write("locked.key", locked), "key is encrypted"),
        (authority.ca, None, "there is no certificate or no key in them"),
        (authority.write("empty.pem", b""), None, "there is no certificate or no key in them"),
    ]
    for certificate, file, reason in cases:
        with pytest.raises(SetupError, match=rf"{reason}.*HUB_TLS_CERT and HUB_TLS_KEY"):
            Certificate(certificate, file)
