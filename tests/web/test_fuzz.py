"""Anything at all on a websocket of a whole hub: legal answers, the right end, and nothing left behind.

HUB_FUZZ_EXAMPLES asks for more conversations than the few of a usual run: 50,000 take about an hour.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from websockets.frames import Opcode

from hub import errors, service
from hub.fanout.fanout import Fanout
from tests.conftest import running
from tests.web.test_socket import HANDSHAKE, Frames

EXAMPLES = int(os.environ.get("HUB_FUZZ_EXAMPLES", "30"))
CODES = {1000} | {close.code for close in errors.CLOSE_CODES}
NOBODY = "<Fanout sessions=0 groups=0 behind=0>"
TYPES = {"welcome", "subscribed", "unsubscribed", "published", "events", "gap", "cursor", "pong", "error"}

names = st.sampled_from(["a", "b", "a.*", "**", "$hub", "hub_bell", "", "a*", "\0", "x" * 64, "é"]) | st.text(
    max_size=5
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ids = st.integers(1, 9) | st.sampled_from([0, -1, 2**53, None, "1", 1.5])
commands = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("subscribe"), "id": ids, "channels": st.lists(names, max_size=3)},
        optional={"last": st.integers(-1, 9), "since": st.text(max_size=9), "ephemeral": st.booleans()},
    ),
    st.fixed_dictionaries({"type": st.just("unsubscribe"), "id": ids, "channels": st.lists(names, max_size=3)}),
    st.fixed_dictionaries(
        {"type": st.just("publish"), "id": ids, "channel": names, "payload": values},
        optional={"durable": st.booleans(), "key": st.text(max_size=3), "tags": st.lists(st.text(max_size=3))},
    ),
    st.fixed_dictionaries({"type": st.sampled_from(["ping", "auth", "Ping", "nonsense"]), "id": ids}),
    st.dictionaries(st.sampled_from(["type", "id", "channels", "x"]), values, max_size=3),
    values,
)


def encoded(value: object) -> bytes:
    """JSON, of values that orjson does not know, too."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return repr(value).encode(errors="replace")


def frame(first: int, payload: bytes, mask: bytes, width: int) -> bytes:
    """A frame with its length in `width` bytes, or in one if it fits; unmasked without `mask`."""
    size, bit = len(payload), 0x80 if mask else 0
    if width == 1 and size < 126:
        length = bytes([bit | size])
    else:
        length = bytes([bit | (126 if width <= 2 else 127)]) + size.to_bytes(2 if width <= 2 else 8)
    key = (mask * (size // 4 + 1))[:size] if mask else bytes(size)
    return bytes([first]) + length + mask + bytes(a ^ b for a, b in zip(payload, key, strict=True))


masks = st.binary(min_size=4, max_size=4)
texts = st.builds(frame, st.just(0x81), commands.map(encoded), masks, st.just(1))
fragments = st.builds(
    lambda payload, at, mask, between: (
        frame(0x01, payload[:at], mask, 1) + between + frame(0x80, payload[at:], mask, 1)
    ),
    commands.map(encoded),
    st.integers(0, 40),
    masks,
    st.sampled_from([b"", b"\x89\x80\0\0\0\0", b"\x8a\x80\0\0\0\0"]),
)
crooked = st.builds(
    frame, st.integers(0, 255), st.binary(max_size=200), masks | st.just(b""), st.sampled_from([1, 1, 2, 8])
)
conversations = st.lists(st.one_of(texts, texts, texts, fragments, crooked, st.binary(max_size=20)), max_size=8)


@pytest.fixture
async def whole(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[str, list[Fanout]]]:
    """A hub, and its fan-out."""
    made: list[Fanout] = []

    def make(*arguments: Any, **options: Any) -> Fanout:
        made.append(Fanout(*arguments, **options))
        return made[0]

    monkeypatch.setattr(service, "Fanout", make)
    async with running(database) as hub:
        yield hub.url, made


def ending(data: bytes) -> tuple[bool, bool]:
    """Whether `data` ends within a frame, which takes what comes next for its own; and whether it has what ends it all.

    That is a goodbye or a binary message: the hub answers, and if more comes that is against the rules, it hangs up on
    a client that may not have read the answer.
    """
    place, over = 0, False
    while place + 2 <= len(data):
        first, second = data[place : place + 2]
        if not second & 0x80:
            return False, over  # the hub hangs up here
        width = {126: 2, 127: 8}.get(second & 0x7F, 0)
        size = int.from_bytes(data[place + 2 : place + 2 + width]) if width else second & 0x7F
        over = over or first & 0x0F in (2, 8)
        place += 6 + width + size
    return place != len(data), over


async def converse(url: str, conversation: list[bytes], end: str) -> tuple[list[dict[str, Any]], int | None]:
    """What the hub says until it hangs up, or until we do: its messages, and the code that it closes with."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    messages, code = [], None
    try:
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        with suppress(RuntimeError):  # uvloop: the hub has hung up already
            for part in conversation:
                writer.write(part)
                await asyncio.sleep(0)
            if end == "abort":
                return [], None
            writer.write(b"\x88\x82\0\0\0\0\x03\xe8") if end == "close" else writer.write_eof()
        frames = Frames(reader)
        async with asyncio.timeout(20):
            while (one := await frames.next()) is not None:
                assert code is None, "something follows the close frame"
                if one.opcode is Opcode.TEXT:
                    messages.append(orjson.loads(one.data))
                elif one.opcode is Opcode.CLOSE:
                    code = int.from_bytes(one.data[:2])
                    with suppress(ConnectionError, RuntimeError):
                        writer.write(b"\x88\x80\0\0\0\0")
    finally:
        writer.transport.abort()
    return messages, code


@pytest.mark.timeout(120 + EXAMPLES // 10)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # to shrink what leaves something behind would wait for it each time
)
@given(conversation=conversations, end=st.sampled_from(["close", "close", "half", "abort"]))
async def test_whatever_is_sent_the_hub_answers_in_order_and_forgets(
    whole: tuple[str, list[Fanout]], caplog: pytest.LogCaptureFixture, conversation: list[bytes], end: str
) -> None:
    url, (fanout,) = whole
    before = asyncio.all_tasks()
    open_ended, over = ending(b"".join(conversation))
    if end == "close" and open_ended:
        end = "half"
    messages, code = await converse(url, conversation, end)
    assert {message["type"] for message in messages} <= TYPES
    assert not [message for message in messages if message.get("code") == "internal"]
    assert code in CODES or (code is None and (end != "close" or over))
    async with asyncio.timeout(20):
        while repr(fanout) != NOBODY or fanout.channels or len(asyncio.all_tasks()) > len(before):
            await asyncio.sleep(0.001)  # a connection's end signals nobody
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
