"""Channel names: which are legal, which are the hub's own."""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_BYTES: Final = 63
"""The longest name in bytes of UTF-8. Postgres cuts a longer identifier off, silently, at NAMEDATALEN - 1."""

OWN_PREFIXES: Final = ("$", "hub_")
"""Names that start so are the hub's own: `$…` is made by the hub, `hub_…` is what hubs tell each other."""

STATS: Final = "$hub"
"""The hub's report on itself, once a second while somebody subscribes to it."""


def fault(name: str) -> str | None:
    """Why `name` is not a channel's name, as the end of a sentence; None for a legal one."""
    if not name:
        return "is empty"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "has a lone surrogate, which UTF-8 cannot carry"
    if size > MAX_BYTES:
        return f"has {size} bytes; {MAX_BYTES} are the most"
    if any(unicodedata.category(character) == "Cc" for character in name):
        return "has a control character"
    if "*" in name:
        return "has a *, which only patterns may have"
    return None


def is_own(name: str) -> bool:
    """Whether `name` is reserved for the hub: nobody else publishes to it."""
    return name.startswith(OWN_PREFIXES)
