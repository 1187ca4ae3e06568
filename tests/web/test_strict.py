"""Frames that aiohttp's own parser would take, and that a server has to refuse."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.web.strict import Strict

MASK = b"\0\0\0\0"


class Parser:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        self.ended = True


def frame(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2)
    else:
        length = b"\xff" + size.to_bytes(8)
    return bytes([first]) + length + MASK + payload


def passed(data: bytes, cuts: list[int]) -> bytes:
    """What comes through of `data`, which comes in parts."""
    parser = Parser()
    strict = Strict(parser)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(places):
        strict.feed_data(data[start:end])
    return parser.data


sizes = st.sampled_from([0, 1, 125, 126, 65_535, 65_536])
fragments = st.lists(sizes, min_size=1, max_size=3)
ping = st.just(frame(b"!", 0x89))
cuts = st.lists(st.integers(0, 1 << 18), max_size=8)


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """Messages in fragments, with pings between them."""
    data = b""
    for message in draw(st.lists(fragments, max_size=3)):
        for place, size in enumerate(message):
            first = (0x01 if place == 0 else 0x00) | (0x80 if place == len(message) - 1 else 0)
            data += draw(st.just(b"") | ping) + frame(b"x" * size, first)
    return data


@given(conversations(), cuts)
def test_what_keeps_to_the_rules_passes_unchanged_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    assert passed(data, cuts) == data


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"\x81\x01x", id="unmasked"),
        pytest.param(b"\x89\x00", id="unmasked ping"),
        pytest.param(b"\x81\xfe\x00\x7d" + MASK, id="125 in two bytes"),
        pytest.param(b"\x81\xff" + (65_535).to_bytes(8) + MASK, id="65535 in eight bytes"),
        pytest.param(b"\xc9\x80" + MASK, id="a reserved bit on a ping"),
        pytest.param(frame((1006).to_bytes(2), 0x88), id="a close code that is never sent"),
        pytest.param(frame(b"", 0x01) + frame(b"x"), id="a message within an empty fragment"),
    ],
)
@given(good=conversations(), cuts=cuts)
def test_what_does_not_is_replaced_by_what_the_parser_refuses(bad: bytes, good: bytes, cuts: list[int]) -> None:
    data = passed(good + bad, cuts)
    assert data.startswith(good)
    assert data.endswith(b"\x70\x80")


def test_the_end_is_passed_on() -> None:
    parser = Parser()
    Strict(parser).feed_eof()
    assert parser.ended
