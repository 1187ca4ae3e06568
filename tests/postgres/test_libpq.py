"""How programs of libpq are called, so that `ps` shows no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.errors import SetupError
from hub.postgres.connect import Target
from hub.postgres.libpq import arguments
from hub.postgres.tls import Files


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://hub:s3%2Fcret@db:5433/app", "postgresql://hub@db:5433/app"),
        ("postgresql://hub@db/app?password=s3/cret&sslmode=require", "postgresql://hub@db/app?sslmode=require"),
        ("postgresql:///app?host=/run/x&%70assword=s3%2Fcret", "postgresql:///app?host=/run/x"),
        ("postgresql://:s3%2Fcret@one:1,two:2/app", "postgresql://@one:1,two:2/app"),
    ],
)
def test_the_password_goes_by_the_environment(dsn: str, shown: str) -> None:
    assert arguments(Target(dsn)) == (shown, {"PGPASSWORD": "s3/cret"})


def test_a_url_without_a_password_stays_as_it_is() -> None:
    dsn = "postgresql://postgres@/postgres?host=%2Ftmp%2Fa%20b&port=5433"
    assert arguments(Target(dsn)) == (dsn, {})


def test_the_passphrase_of_a_key_is_shown_to_nobody() -> None:
    assert arguments(Target("postgresql://h/x?sslkey=k&sslpassword=s3cret")) == ("postgresql://h/x?sslkey=k", {})


def test_the_certificates_of_the_settings_are_those_of_the_program() -> None:
    files = Files(Path("/ca"), Path("/cert"), Path("/key"))
    _, environment = arguments(Target("postgresql://h/x", files=files, direct_tls=True))
    assert environment == {
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/ca",
        "PGSSLCERT": "/cert",
        "PGSSLKEY": "/key",
        "PGSSLNEGOTIATION": "direct",
    }


def test_a_key_may_be_in_the_file_of_its_certificate_and_the_cas_those_of_the_system() -> None:
    _, environment = arguments(Target("postgresql://h/x", files=Files(cert=Path("/both"))))
    assert (environment["PGSSLROOTCERT"], environment["PGSSLKEY"]) == ("system", "/both")


def test_a_password_that_no_environment_can_hold_is_told() -> None:
    with pytest.raises(SetupError, match="NUL"):
        arguments(Target("postgresql://hub:a%00b@db/app"))


def test_a_password_in_the_place_of_the_port_is_shown_to_nobody() -> None:
    for dsn in ("postgresql://app:hunter2/db", "postgresql://one:1,app:hunter2/db"):
        with pytest.raises(SetupError, match="port") as caught:
            arguments(Target(dsn))
        assert "hunter2" not in str(caught.value)
    assert arguments(Target("postgresql://a@[::1]:5432,[::2],h:1/db"))[0] == "postgresql://a@[::1]:5432,[::2],h:1/db"
