"""A socket's stand-in: remembers what was written, and holds it back while nobody reads."""

from __future__ import annotations

from typing import Any

import orjson
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from tests.web.events import Received


class Outlet:
    """`stuck` keeps what is written in the buffer, as a client does that does not read."""

    def __init__(self) -> None:
        self.stuck = False
        self.buffered = 0
        self.writes = 0
        self.aborted = False
        self._stream = StreamReader()

    def write(self, data: bytes, /) -> None:
        self.writes += 1
        self._stream.feed_data(data)
        if self.stuck:
            self.buffered += len(data)

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def abort(self) -> None:
        self.aborted = True

    def drain(self) -> None:
        self.stuck, self.buffered = False, 0

    def frames(self) -> list[Frame]:
        """The frames written since this was last asked."""
        found = []
        while self._stream.buffer:
            parser = Frame.parse(self._stream.read_exact, mask=False)
            try:
                next(parser)
            except StopIteration as done:
                found.append(done.value)
        return found

    def messages(self) -> list[dict[str, Any]]:
        """The JSON messages written since this was last asked."""
        return [orjson.loads(bytes(frame.data)) for frame in self.frames() if frame.opcode is Opcode.TEXT]


class Streamed(Outlet):
    """One for server-sent events."""

    def __init__(self) -> None:
        super().__init__()
        self.received = Received()

    def write(self, data: bytes, /) -> None:
        self.writes += 1
        self.received.feed(data)
        if self.stuck:
            self.buffered += len(data)

    def messages(self) -> list[dict[str, Any]]:
        found, self.received.messages = self.received.frames, []
        return found
