"""Websocket frames, read back by a parser that is not ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from hub.fanout import frames


def parse(data: bytes, extensions: list[PerMessageDeflate] | None = None) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    parser = Frame.parse(reader.read_exact, mask=False, extensions=extensions)
    while True:
        try:
            next(parser)
        except StopIteration as done:
            assert reader.at_eof() is not None
            return done.value


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_a_text_frame_of_any_length_is_read_back(size: int) -> None:
    frame = parse(frames.text(b"x" * size))
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.TEXT, True, b"x" * size)


def test_a_ping_and_its_pong() -> None:
    assert parse(frames.PING).opcode is Opcode.PING
    assert bytes(parse(frames.pong(b"abc")).data) == b"abc"


def test_a_close_carries_its_code_and_a_reason_that_fits() -> None:
    frame = parse(frames.close(4408, "x" * 200))
    assert int.from_bytes(bytes(frame.data)[:2], "big") == 4408
    assert len(frame.data) == 125


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 300_000), st.sampled_from(["x", "event ", "0123456789abcdef"])))
)
def test_deflated_frames_are_read_by_a_client_that_keeps_its_window_whatever_came_between(
    sent: list[tuple[bool, int, str]],
) -> None:
    client = [PerMessageDeflate(False, False, 15, 15)]
    for deflate, size, word in sent:
        payload = (word * (size // len(word) + 1))[:size].encode()
        made = frames.deflated(payload) if deflate else frames.text(payload)
        frame = parse(made, client)
        assert (frame.opcode, bytes(frame.data)) == (Opcode.TEXT, payload)
        assert not deflate or len(made) <= len(payload) + 14


def test_what_is_short_is_not_deflated() -> None:
    assert frames.deflated(b"short") == frames.text(b"short")
    assert frames.deflated(b"x" * 1_000)[0] == 0xC1
