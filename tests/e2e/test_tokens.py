"""Tokens by the command line: made, taken, and changed while the hub runs."""

from __future__ import annotations

import asyncio
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hub import service
from hub.client import RefusedError, follow
from hub.commands.token import token
from hub.errors import SetupError
from hub.settings import Keys, Settings
from tests.conftest import running
from tests.e2e.test_cli import complains, execute, listening, payloads, pghub, read_until, serving, ws_of

SECRET = "hush-hush-hush-hush-hush-hush-hush"


def printed(capsys: pytest.CaptureFixture[str], keys: Keys, **options: Any) -> str:
    """What `pghub token` prints."""
    assert token(keys=keys, **options) == 0
    return capsys.readouterr().out.strip()


def test_a_token_that_the_command_makes_says_what_it_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    grants = {"subscribe": ["orders.*", "news"], "publish": ["chat"]}
    made = printed(capsys, Keys(secret=SECRET), lifetime="2h", sub="alice", **grants)
    claims = jwt.decode(made, SECRET, ["HS256"])
    assert claims.pop("exp") - claims.pop("iat") == 7200
    assert claims == {"sub": "alice"} | grants


def test_it_names_the_audience_that_the_hub_wants(capsys: pytest.CaptureFixture[str]) -> None:
    made = printed(capsys, Keys(secret=SECRET, audience="shop"), admin=True)
    assert jwt.decode(made, SECRET, ["HS256"], audience="shop")["admin"] is True


@pytest.mark.parametrize(
    ("keys", "options", "words"),
    [
        ({}, {"admin": True}, "no HUB_SECRET.*openssl rand"),
        ({"public_key": Path("/keys.pem")}, {"admin": True}, "HUB_PUBLIC_KEY.*the other half"),
        ({"secret": "short"}, {"admin": True}, "5 bytes; 32"),
        ({"secret": SECRET}, {}, "grant nothing.*--subscribe"),
        ({"secret": SECRET}, {"admin": True, "lifetime": "soon"}, "'soon'.*36h"),
        ({"secret": SECRET}, {"admin": True, "lifetime": "999999999d"}, "exp"),
        ({"secret": SECRET}, {"subscribe": ["orders*"]}, "'orders[*]' is no pattern"),
        ({"secret": SECRET}, {"publish": ["x" * 64]}, "64 bytes"),
        ({"secret": SECRET}, {"publish": ["x" * 60] * 200}, "8192 are the most"),
    ],
)
def test_a_token_that_no_hub_would_take_is_not_made(keys: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(SetupError, match=words):
        token(keys=Keys(**keys), **options)


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "0.0.0.0", "secret": SECRET}, False),
        ({"host": "0.0.0.0", "public_key": Path("/keys.pem")}, False),
    ],
)
def test_other_addresses_need_tokens(settings: dict[str, Any], refused: bool) -> None:
    with pytest.raises(SetupError, match="HUB_SECRET") if refused else nullcontext():
        service.check_address(Settings(**settings))


def test_a_secret_stays_out_of_the_repr_of_the_settings() -> None:
    assert SECRET not in repr(Settings(secret=SECRET))


@pytest.mark.parametrize(
    ("command", "env", "words"),
    [
        ("serve", {"HUB_SECRET": SECRET[:31]}, ["HUB_SECRET", "32"]),
        ("doctor", {"HUB_PUBLIC_KEY": "/nowhere.pem"}, ["fail  tokens", "/nowhere.pem", "cannot be read"]),
    ],
)
def test_keys_that_cannot_be_used_are_told(command: str, env: dict[str, str], words: list[str]) -> None:
    run = pghub(command, env={"HUB_DATABASE_URL": "postgresql://127.0.0.1:1/x"} | env)
    complains(run, *words)
    assert SECRET[:31] not in run.stdout + run.stderr


def test_the_whole_way_from_a_secret_to_an_event(database: str) -> None:
    env = {"HUB_DATABASE_URL": database, "HUB_SECRET": SECRET}
    made = pghub("token", "--subscribe", "a", "--for", "1h", env=env).stdout.strip()
    with serving("--host", "0.0.0.0", env=env) as (process, greeting):
        url = ws_of(greeting).replace("0.0.0.0", "127.0.0.1")
        with listening("--url", url, "a", env={"HUB_TOKEN": made}) as listener:
            assert listener.stderr is not None
            listener.stderr.readline()  # it listens
            execute(database, "SELECT hub.publish('a', '1')")
            assert payloads(listener, 1) == [1]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert SECRET not in greeting + out + err
    assert made not in out + err


def written(path: Path, key: ed25519.Ed25519PrivateKey) -> None:
    """The public half, put in the place of what was there at once."""
    new = path.with_suffix(".new")
    new.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    new.rename(path)


async def status(url: str, key: ed25519.Ed25519PrivateKey) -> int:
    made = jwt.encode({"exp": 4_000_000_000, "subscribe": ["a"]}, key, "EdDSA")
    http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {made}"})
    async with http, http.get(f"{url}/events?channel=a") as answer:
        return answer.status


def test_sighup_reads_the_public_keys_again_and_a_broken_file_changes_nothing(database: str, tmp_path: Path) -> None:
    old, new = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    path = tmp_path / "key.pem"
    written(path, old)
    env = {"HUB_DATABASE_URL": database, "HUB_PUBLIC_KEY": str(path)}
    with serving(env=env) as (process, greeting):
        url = ws_of(greeting).replace("ws://", "http://").removesuffix("/ws")

        def statuses() -> list[int]:
            return [asyncio.run(status(url, key)) for key in (old, new)]

        def hang_up() -> str:
            process.send_signal(signal.SIGHUP)
            return read_until(process.stderr, "reload")

        assert statuses() == [200, 401]
        path.write_text("half a key")
        assert "has no key for" in hang_up()
        assert statuses() == [200, 401]
        written(path, new)
        assert '"reloaded"' in hang_up()
        assert statuses() == [401, 200]


async def test_the_client_says_who_it_is_and_is_told_when_that_is_no_use(database: str) -> None:
    def made(**claims: Any) -> str:
        return jwt.encode({"exp": 4_000_000_000} | claims, SECRET, "HS256")

    async def first(token: str | None, channel: str = "a") -> str:
        messages = follow(hub.ws, [channel], token=token)
        try:
            return (await anext(messages))["type"]
        except RefusedError as refused:
            return str(refused)
        finally:
            await messages.aclose()

    async with running(database, secret=SECRET) as hub:
        assert await first(made(subscribe=["a"]) + "\n") == "subscribed"
        assert "wants a token" in await first(None)
        assert "refuses the token: it is no good" in await first(made(exp=1, subscribe=["a"]))
        assert "grants nothing" in await first(made())
        assert "does not let you read 'b'" in await first(made(subscribe=["a"]), "b")
        assert "is none" in await first("line\nbreak")
