"""Server-sent events read as the HTML standard says, section 9.2.6, by a parser that shares nothing with the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass
class Received:
    """What an EventSource would have: its messages, each with the id that it then knew, and that id."""

    messages: list[tuple[str, str]] = field(default_factory=list)
    id: str = ""
    retry: int | None = None
    ids: int = 0  # how often it was told
    comments: int = 0
    _rest: bytes = b""
    _data: list[str] = field(default_factory=list)
    _next: str = ""

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [orjson.loads(data) for data, _ in self.messages]

    def feed(self, data: bytes) -> None:
        *lines, self._rest = re.split(rb"\r\n|\n|\r", self._rest + data)
        for line in lines:
            self._take(line.decode())

    def _take(self, line: str) -> None:
        if not line:
            self.id = self._next
            if self._data:
                self.messages.append(("\n".join(self._data), self.id))
            self._data = []
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                self.comments += 1
            case "data":
                self._data.append(value)
            case "id":
                self._next, self.ids = value, self.ids + 1
            case "retry":
                self.retry = int(value)
            case _:
                raise AssertionError(line)
