"""What the certificate files of the settings ask for, without a server."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from hub.errors import SetupError
from hub.postgres.tls import Files, context
from tests.tls import Authority

URL = "postgresql://hub@db.example.org/app"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def refusal(files: Files, query: str = "") -> str:
    with pytest.raises(SetupError) as raised:
        context(files, URL + query)
    return str(raised.value)


def test_without_files_the_url_decides() -> None:
    assert context(Files(), f"{URL}?sslmode=disable") is None


@pytest.mark.parametrize(
    ("query", "names"),
    [("", True), ("?sslmode=require", True), ("?sslmode=verify-full", True), ("?sslmode=verify-ca", False)],
)
def test_a_ca_has_all_verified_but_the_name_where_the_url_says_so(
    authority: Authority, query: str, names: bool
) -> None:
    made = context(Files(authority.ca), URL + query)
    assert made is not None
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_REQUIRED, names)
    assert len(made.get_ca_certs()) == 1  # and not the system's


def test_a_certificate_alone_trusts_the_cas_of_the_system(authority: Authority) -> None:
    made = context(Files(cert=authority.issue("alone", user="hub")), URL)
    assert made is not None
    assert (made.verify_mode, made.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_url_that_lets_tls_be_left_out_contradicts_a_ca(authority: Authority, mode: str) -> None:
    text = refusal(Files(authority.ca), f"?sslmode={mode}")
    assert f"sslmode={mode} in the database URL lets TLS be left out, and HUB_DATABASE_CA demands it" in text


def test_a_mode_that_there_is_not_is_told(authority: Authority) -> None:
    assert "none of disable, allow, prefer, require, verify-ca, verify-full" in refusal(
        Files(authority.ca), "?sslmode=always"
    )


@pytest.mark.parametrize(
    "name", ["sslrootcert", "sslcert", "sslkey", "sslcrl", "sslpassword", "ssl_min_protocol_version"]
)
def test_what_the_url_would_say_in_vain_beside_a_ca_is_told(authority: Authority, name: str) -> None:
    assert f"{name} in the database URL would not count beside HUB_DATABASE_CA" in refusal(
        Files(authority.ca), f"?{name}=x"
    )


def test_a_key_without_its_certificate_is_told(authority: Authority) -> None:
    assert "Set HUB_DATABASE_CERT" in refusal(Files(key=authority.ca))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            Files(Path("/nowhere/ca")),
            "HUB_DATABASE_CA is /nowhere/ca, which cannot be read: No such file",
        ),
        (Files(cert=Path("/nowhere/cert")), "HUB_DATABASE_CERT is /nowhere/cert, which cannot be read: No such file"),
        (
            Files(cert=Path(__file__), key=Path("/nowhere/key")),
            "HUB_DATABASE_KEY is /nowhere/key, which cannot",
        ),
        (Files(Path("/")), "HUB_DATABASE_CA is /, which cannot be read: Is a directory."),
        (Files(Path(__file__)), "which holds no certificate"),
        (Files(cert=Path(__file__)), "No certificate and key are found in"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(files: Files, words: str) -> None:
    assert words in refusal(files)


@pytest.mark.parametrize("name", ["sslrootcert", "sslcert", "sslkey", "sslcrl"])
def test_a_file_of_the_url_that_cannot_be_read_is_named(name: str) -> None:
    """asyncpg's own error names no file, and would pass for one of the connection."""
    text = refusal(Files(), f"?sslmode=verify-full&{name}=/nowhere/x")
    assert text == f"{name} of the database URL is /nowhere/x, which cannot be read: No such file or directory."


def test_the_file_of_the_cas_of_the_system_is_named_where_libpq_has_a_word_for_it() -> None:
    assert "The system's CAs are in " in refusal(Files(), "?sslmode=verify-full&sslrootcert=system")


def test_an_encrypted_key_is_told_and_nobody_is_asked_for_its_passphrase(authority: Authority) -> None:
    bundle = authority.issue("encrypted", user="hub")
    key = serialization.load_pem_private_key(bundle.read_bytes(), None)
    hidden = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"s3cret"),
    )
    assert "is encrypted" in refusal(Files(authority.ca, bundle, authority.write("encrypted.key", hidden)))


def test_a_key_of_another_certificate_is_told(authority: Authority) -> None:
    one, other = authority.issue("one", user="hub"), authority.issue("other", user="hub")
    assert "is not that of the certificate" in refusal(Files(authority.ca, one, other))
