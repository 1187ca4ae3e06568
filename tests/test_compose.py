"""docker-compose.yml is what Compose takes, and says what the hub and Postgres understand."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import yaml

from hub import assets
from hub.duration import parse
from hub.postgres import binaries
from hub.postgres.connect import Target, connect
from hub.postgres.migrate import migrate
from hub.settings import Settings
from tests.conftest import renamed

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
SECRETS = {"HUB_SECRET": "s" * 40, "POSTGRES_PASSWORD": "p@:/'\""}

VARIABLE = re.compile(r"\$\{(\w+)(?::([-+?])([^}]*))?\}")


def interpolated(value: object, given: Mapping[str, str]) -> str:
    """`value` as Compose reads it where `given` are the variables. Raises LookupError for one that is required."""

    def found(match: re.Match[str]) -> str:
        name, how, text = match.groups()
        value = given.get(name, "")
        if how == "?" and not value:
            raise LookupError(text)
        return (text if value else "") if how == "+" else value or (text if how == "-" else "")

    return VARIABLE.sub(found, str(value))


def environment(service: str, **given: str) -> dict[str, str]:
    """What a service is given; of a list, that names nothing where it says no value."""
    stated = SERVICES[service]["environment"]
    lines = stated if isinstance(stated, list) else [f"{name}={value}" for name, value in stated.items()]
    found = [interpolated(line, SECRETS | given).partition("=") for line in lines]
    return {name: value for name, sign, value in found if sign}


def test_it_keeps_to_the_compose_specification() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_whoever_has_made_no_secrets_is_told_how() -> None:
    for service, name in (("hub", "HUB_SECRET"), ("database", "POSTGRES_PASSWORD")):
        with pytest.raises(LookupError, match=rf"{name}=… into \.env\. Make one with: openssl"):
            environment(service, **{name: ""})


def test_only_this_machine_reaches_the_hub_and_nobody_the_database() -> None:
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert published == {"database": [], "hub": ["127.0.0.1:${HUB_PORT:-8080}:8080"], "pgbouncer": []}
    assert environment("hub", HUB_PORT="9000")["HUB_PORT"] == "8080"


def test_the_hub_goes_to_postgres_and_by_the_profile_through_pgbouncer() -> None:
    direct, between = environment("hub"), environment("hub", COMPOSE_PROFILES="pgbouncer")
    assert direct["HUB_DATABASE_URL"] == direct["HUB_DIRECT_URL"] == between["HUB_DIRECT_URL"]
    hosts = [urlsplit(each["HUB_DATABASE_URL"]).hostname for each in (direct, between)]
    assert hosts == ["database", "pgbouncer"]
    assert all(host in SERVICES for host in hosts)
    assert "HUB_PGBOUNCER" not in direct
    assert between["HUB_PGBOUNCER"] == "1"
    assert SERVICES["pgbouncer"]["profiles"] == ["pgbouncer"]
    assert SERVICES["hub"]["depends_on"]["pgbouncer"]["required"] is False


@pytest.mark.parametrize("given", [{}, {"COMPOSE_PROFILES": "pgbouncer"}], ids=["direct", "pgbouncer"])
def test_the_hub_takes_its_settings_and_makes_a_token_for_who_asks_inside(
    given: dict[str, str], tmp_path: Path
) -> None:
    stated = environment("hub", **given)
    known = {f"HUB_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    assert {name for name in stated if name.startswith("HUB_")} <= known
    others = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}

    def pghub(*arguments: str) -> str:
        command = [sys.executable, "-m", "hub", *arguments]
        run = subprocess.run(command, cwd=tmp_path, env=others | stated, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return run.stdout.strip()

    assert pghub("dsn") == stated["HUB_DATABASE_URL"]
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", pghub("token", "--admin", "--for", "1h"))


@pytest.mark.parametrize("service", ["hub", "pgbouncer"])
def test_what_is_built_here_may_do_no_more_than_it_has_to(service: str) -> None:
    stated = SERVICES[service]
    assert stated["read_only"] is True
    assert stated["cap_drop"] == ["ALL"]
    assert stated["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "volumes"} & set(stated)


def test_the_hub_has_the_time_that_it_takes_to_say_goodbye() -> None:
    patience = parse(SERVICES["hub"]["stop_grace_period"])
    assert patience is not None
    assert patience.total_seconds() > Settings.drain_seconds + 10


async def test_postgres_makes_an_ordinary_role_for_the_hub_which_is_enough(server: str) -> None:
    """The script runs as the image runs it, under a name of the test's own."""
    name = "composed"
    admin = await asyncpg.connect(server)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    script = re.sub(r"\bhub\b", name, COMPOSE["configs"]["role"]["content"])
    psql = next(found for each in binaries.installed() if (found := each.program("psql")))
    command = [psql, "--no-psqlrc", "--set=ON_ERROR_STOP=1", renamed(server, name)]
    try:
        secret = os.environ | {"POSTGRES_PASSWORD": environment("database")["POSTGRES_PASSWORD"]}
        await asyncio.to_thread(subprocess.run, command, input=script, env=secret, text=True, check=True)
        own = renamed(server, name).replace("//postgres@", f"//{name}@")
        connection = await connect(Target(own), purpose="test")
        assert await migrate(connection, assets.folder("sql"))
        assert not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        await connection.close()
        passwords = dict(await admin.fetch("SELECT usename, passwd FROM pg_shadow"))
        assert passwords["postgres"] is None
        assert passwords[name].startswith("SCRAM-SHA-256$")
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.execute(f"DROP ROLE IF EXISTS {name}")
        await admin.close()
