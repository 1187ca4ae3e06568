"""A throw-away authority, and a real Postgres that has a certificate of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from hub.postgres import binaries, postmaster
from hub.postgres.embedded import Embedded
from tests.proxy import proxy

RULES = """
local     all all                trust
hostssl   all secured   127.0.0.1/32 trust
hostnossl all plain     127.0.0.1/32 trust
host      all either    127.0.0.1/32 trust
hostssl   all certified 127.0.0.1/32 cert
host      all visitor   127.0.0.1/32 scram-sha-256
"""
PAST = datetime(2020, 1, 1, tzinfo=UTC)


class Authority:
    """Issues certificates, as PEM files below `folder` that only those named by `owner` may read."""

    def __init__(self, folder: Path, *, owner: int = -1) -> None:
        self._folder = folder
        self._owner = owner
        self._issuer = trustme.CA()
        self.ca = self.write("ca.pem", self._issuer.cert_pem.bytes())

    def write(self, name: str, data: bytes) -> Path:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_bytes(data)
        os.chown(path, self._owner, -1)
        return path

    def issue(self, name: str, *hosts: str, user: str | None = None, expires: datetime | None = None) -> Path:
        """A certificate and its key in one file, for hosts or a user."""
        made = self._issuer.issue_cert(*hosts, common_name=user, organization_name="hub", not_after=expires)
        return self.write(f"{name}.pem", made.private_key_and_cert_chain_pem.bytes())

    def revoke(self, name: str, certificate: Path) -> Path:
        """A list of revoked certificates with this one."""
        serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
        issuer = x509.load_pem_x509_certificate(self.ca.read_bytes())
        key = serialization.load_pem_private_key(self._issuer.private_key_pem.bytes(), None)
        assert isinstance(key, EllipticCurvePrivateKey)
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(PAST).build()
        listed = x509.CertificateRevocationListBuilder(
            issuer.subject, PAST, datetime.now(UTC) + timedelta(days=1), revoked_certificates=[revoked]
        ).sign(key, hashes.SHA256())
        return self.write(f"{name}.crl", listed.public_bytes(serialization.Encoding.PEM))


def with_tls() -> binaries.Binaries | None:
    """The newest Postgres here that was built with TLS, as a wheel's is not."""
    for found in binaries.installed():
        config = found.program("pg_config")
        if config and "openssl" in subprocess.run([config, "--configure"], capture_output=True, text=True).stdout:
            return found
    return None


class Secured:
    """A Postgres with TLS on localhost, in `folder`: what each role has to come by, RULES says."""

    def __init__(self, folder: Path, programs: binaries.Binaries) -> None:
        owner = postmaster.account(folder / "data").pw_uid
        (folder / "files").mkdir(mode=0o755)
        self.authority = Authority(folder / "files", owner=owner)
        self.certificate = self.authority.issue("server", "localhost")
        self.revoked = self.authority.issue("revoked", user="certified")
        self.port = free_port()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "hba_file": str(self.authority.write("pg_hba.conf", RULES.encode())),
            "ssl": "on",
            "ssl_cert_file": str(self.certificate),
            "ssl_key_file": str(self.certificate),
            "ssl_ca_file": str(self.authority.ca),
            "ssl_crl_file": str(self.authority.revoke("clients", self.revoked)),
            "fsync": "off",
        }
        self.server = Embedded(folder / "data", bin_dir=programs.bin, options=options)

    async def start(self) -> None:
        await self.server.start()
        admin = await asyncpg.connect(self.server.dsn)
        for role in ("secured", "plain", "either", "certified", "visitor"):
            await admin.execute(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'right'")
        await admin.close()

    def url(self, login: str = "secured", query: str = "", *, host: str = "localhost") -> str:
        return f"postgresql://{login}@{host}:{self.port}/postgres{query}"

    async def present(self, certificate: Path) -> None:
        """Let the server have another certificate. It is soon that new connections see it; nothing tells when."""
        await asyncio.to_thread(shutil.copyfile, certificate, self.certificate)
        admin = await asyncpg.connect(self.server.dsn)
        await admin.execute("SELECT pg_reload_conf()")
        await admin.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@asynccontextmanager
async def terminating(dsn: str, certificate: Path) -> AsyncIterator[int]:
    """The port of a proxy that takes TLS from the first byte, and passes on to the Postgres at `dsn` without it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["postgresql"])
    async with proxy(dsn) as between:

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "postgresql":
                writer.close()  # as Postgres does
            else:
                await between.accept(reader, writer)

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
