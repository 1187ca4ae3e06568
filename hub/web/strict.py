"""Frames as RFC 6455 wants them of a client: what aiohttp's parser takes that a server has to refuse.

That is an unmasked frame (5.1), a length that is not written in its shortest form (5.2), a reserved bit on a control
frame (5.2), a message that begins while another one is open of which only empty fragments have come (5.4), and the
close code 1006 (7.4.1).
"""

from __future__ import annotations

from typing import Final, Protocol

_VIOLATION: Final = b"\x70\x80"  # a frame with all reserved bits: the parser behind closes with 1002
_MASKED: Final = 0x80
_CONTROL: Final = 0x08
_CLOSE: Final = 0x8
_ABNORMAL: Final = 1006  # what never stands in a frame, but that aiohttp takes
_LONGEST: Final = 14  # bytes of a header


class Parser(Protocol):
    """What a connection gives its bytes to; aiohttp's of frames is one."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]: ...
    def feed_eof(self) -> None: ...


class Strict:
    """Gives whole headers on to `parser`, and bodies as they come; at the first violation one that it will refuse."""

    __slots__ = ("_body", "_head", "_open", "_parser")

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._head = b""  # of a frame whose header has come in part
        self._body = 0  # bytes of the present frame that are to come; -1 after a violation
        self._open = False  # a message has begun and not ended

    def feed_eof(self) -> None:
        self._parser.feed_eof()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Whether the connection is to end, and nothing."""
        if self._body < 0:
            return True, b""
        if self._head:
            data, self._head = self._head + data, b""
        place, size = self._body, len(data)
        while place < size:
            head = data[place : place + _LONGEST]
            length = _header(head)
            if length == 0:
                self._head = head
                self._body = 0
                return self._parser.feed_data(data[:place]) if place else (False, b"")
            if length < 0 or self._interrupts(head[0]):
                self._body = -1
                return self._parser.feed_data(data[:place] + _VIOLATION)
            place += length
        self._body = place - size
        return self._parser.feed_data(data)

    def _interrupts(self, first: int) -> bool:
        """Whether a frame that begins with this byte is a message inside another one; else it is noted."""
        if first & _CONTROL:
            return False
        begins = bool(first & 0x0F)
        if begins and self._open:
            return True
        self._open = first < 0x80
        return False


def _header(head: bytes) -> int:
    """Bytes of the frame, header included, which begins with `head`; 0 if more of it is wanted, -1 if it is illegal."""
    if len(head) < 2:
        return 0
    if not head[1] & _MASKED or (head[0] & _CONTROL and head[0] & 0x70):
        return -1
    short = head[1] & 0x7F
    if head[0] & 0x0F == _CLOSE and short >= 2:
        if len(head) < 8:
            return 0
        if _code(head) == _ABNORMAL:
            return -1
    if short < 126:
        return 6 + short
    width = 2 if short == 126 else 8
    if len(head) < 2 + width:
        return 0
    length = int.from_bytes(head[2 : 2 + width])
    return 6 + width + length if length >= (126 if width == 2 else 1 << 16) else -1


def _code(head: bytes) -> int:
    """The code of a close frame."""
    return (head[6] ^ head[2]) << 8 | head[7] ^ head[3]
