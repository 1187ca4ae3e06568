"""Patterns of channels: words between dots, where `*` stands for one word and a final `**` for one or more."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from hub import channels

_SPECIAL: Final = re.compile(r"([\\^$.\[\]|()?*+{}-])")  # to Postgres's regular expressions


def is_pattern(name: str) -> bool:
    """Whether a subscription of this name is meant as a pattern."""
    return "*" in name


def fault(name: str) -> str | None:
    """Why `name` can be neither a channel nor a pattern, as the end of a sentence; None where it can."""
    *before, last = name.split(".")
    if any("*" in word and word != "*" for word in before) or ("*" in last and last not in ("*", "**")):
        return "is no pattern: `*` stands for a whole word, and `**` for one or more at the end"
    return channels.fault(name.replace("*", "_"))


def matches(pattern: str, channel: str) -> bool:
    """Whether `channel` is one that `pattern` means. The hub's own names never are."""
    if channels.is_own(channel):
        return False
    wanted, words = pattern.split("."), channel.split(".")
    if wanted[-1] == "**":
        wanted.pop()
        if len(words) <= len(wanted):
            return False
        words = words[: len(wanted)]
    return len(wanted) == len(words) and all(want in ("*", word) for want, word in zip(wanted, words, strict=True))


def covers(granted: str, wanted: str) -> bool:
    """Whether all channels that `wanted` means, a channel or a pattern, are ones that `granted` means.

    No pattern covers the hub's own names; each of them is covered by itself.
    """
    if channels.is_own(wanted):
        return granted == wanted
    grants, wants = granted.split("."), wanted.split(".")
    if grants[-1] == "**":
        grants.pop()
        if len(wants) <= len(grants):
            return False
        wants = wants[: len(grants)]
    elif wants[-1] == "**":
        return False
    return len(grants) == len(wants) and all(grant in ("*", want) for grant, want in zip(grants, wants, strict=True))


def regex(pattern: str) -> str:
    """The regular expression, as Postgres writes them, of the channels that `pattern` means."""
    return "^" + r"\.".join(_word(word) for word in pattern.split(".")) + "$"


def union(patterns: Iterable[str]) -> str:
    """One regular expression for all of `patterns`, of which there is at least one.

    Postgres keeps 32 compiled ones: given more it would compile each of them anew for each row.
    """
    return "|".join(map(regex, sorted(patterns)))


def _word(word: str) -> str:
    return {"*": r"[^.]*", "**": r".*"}.get(word) or _SPECIAL.sub(r"\\\1", word)


class Matcher:
    """Many patterns at once: a tree of their words, so that a channel meets only those that begin as it does."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._root = _Node()
        for pattern in patterns:
            self.add(pattern)

    def add(self, pattern: str) -> None:
        node = self._root
        for word in pattern.split("."):
            node = node.setdefault(word, _Node())
        node.pattern = pattern

    def remove(self, pattern: str) -> None:
        """Take out a pattern that was added."""
        path, node = [], self._root
        for word in pattern.split("."):
            path.append((node, word))
            node = node[word]
        node.pattern = None
        for parent, word in reversed(path):
            if parent[word] or parent[word].pattern is not None:
                break
            del parent[word]

    def find(self, channel: str) -> list[str]:
        """The patterns that mean `channel`."""
        if channels.is_own(channel):
            return []
        found: list[str] = []
        nodes = [self._root]
        for word in channel.split("."):
            rests = [node["**"] for node in nodes if "**" in node]
            found += [rest.pattern for rest in rests if rest.pattern is not None]
            nodes = [below for node in nodes for key in (word, "*") if (below := node.get(key)) is not None]
        return found + [node.pattern for node in nodes if node.pattern is not None]

    def covers(self, wanted: str) -> bool:
        """Whether one of the patterns covers `wanted`, a channel or a pattern."""
        if channels.is_own(wanted):
            return False
        nodes = [self._root]
        for word in wanted.split("."):
            if any(node["**"].pattern is not None for node in nodes if "**" in node):
                return True
            keys = {word, "*"} if word != "**" else ()
            nodes = [below for node in nodes for key in keys if (below := node.get(key)) is not None]
        return any(node.pattern is not None for node in nodes)


class _Node(dict[str, "_Node"]):
    """The words that may follow; `pattern` is the one that ends here."""

    __slots__ = ("pattern",)

    def __init__(self) -> None:
        super().__init__()
        self.pattern: str | None = None
