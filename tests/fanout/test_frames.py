"""Websocket frames, read back by a parser that is not ours."""

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from hub.fanout import frames


def parse(data: bytes) -> Frame:
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    parser = Frame.parse(reader.read_exact, mask=False)
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
