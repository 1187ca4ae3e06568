"""A selection: what one connection is subscribed to, as a value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from hub import channels, patterns


@dataclass(frozen=True, slots=True)
class Selection:
    """`names` are channels and patterns; of those in `durable_only` nothing is wanted that came by NOTIFY.

    Patterns mean durable events only, so they are never in `durable_only`.
    """

    names: frozenset[str] = frozenset()
    durable_only: frozenset[str] = frozenset()

    @property
    def channels(self) -> frozenset[str]:
        return frozenset(name for name in self.names if not patterns.is_pattern(name))

    @property
    def patterns(self) -> frozenset[str]:
        return frozenset(name for name in self.names if patterns.is_pattern(name))

    @property
    def ephemeral(self) -> frozenset[str]:
        """The channels whose NOTIFYs are wanted."""
        return self.channels - self.durable_only

    @property
    def listened(self) -> frozenset[str]:
        """The channels that Postgres has to be asked for: not those that the hub makes itself."""
        return _listened(self)

    def merged(self, other: Selection) -> Selection:
        """Both; where both have a name, as `other` has it."""
        return Selection(self.names | other.names, (self.durable_only - other.names) | other.durable_only)

    def without(self, names: Iterable[str]) -> Selection:
        gone = frozenset(names)
        return Selection(self.names - gone, self.durable_only - gone)


@lru_cache(maxsize=1024)  # one set for all who keep it, which is one a connection
def _listened(selection: Selection) -> frozenset[str]:
    return frozenset(name for name in selection.ephemeral if not channels.is_own(name))


EMPTY = Selection()


def select(names: Iterable[str], *, ephemeral: bool = True) -> Selection:
    """The selection of these names."""
    chosen = Selection(frozenset(names))
    return chosen if ephemeral else Selection(chosen.names, chosen.channels)
