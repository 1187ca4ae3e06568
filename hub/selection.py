"""A selection: what one connection is subscribed to, as a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

from hub import channels, patterns
from hub.event import Event
from hub.fence import Fence
from hub.patterns import Matcher

_NO_FENCES: Final[frozenset[tuple[str, Fence]]] = frozenset()


@dataclass(frozen=True, slots=True)
class Selection:
    """`names` are channels and patterns; of those in `durable_only` nothing is wanted that came by NOTIFY.

    Patterns mean durable events only, so they are never in `durable_only`. Names in `fences` mean only what happens
    inside; their channels are in `durable_only`, since a NOTIFY has no place.
    """

    names: frozenset[str] = frozenset()
    durable_only: frozenset[str] = frozenset()
    fences: frozenset[tuple[str, Fence]] = _NO_FENCES

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

    @property
    def wholly_fenced(self) -> frozenset[Fence] | None:
        """The fences, if there is no name without one."""
        return frozenset(fence for _, fence in self.fences) if len(self.fences) == len(self.names) else None

    def fence_of(self, name: str) -> Fence | None:
        return _by_name(self).get(name) if self.fences else None

    def merged(self, other: Selection) -> Selection:
        """Both; where both have a name, as `other` has it."""
        durable_only = (self.durable_only - other.names) | other.durable_only
        return Selection(self.names | other.names, durable_only, _without(self.fences, other.names) | other.fences)

    def without(self, names: Iterable[str]) -> Selection:
        gone = frozenset(names)
        return Selection(self.names - gone, self.durable_only - gone, _without(self.fences, gone))


@lru_cache(maxsize=1024)  # one set for all who keep it, which is one a connection
def _listened(selection: Selection) -> frozenset[str]:
    return frozenset(name for name in selection.ephemeral if not channels.is_own(name))


@lru_cache(maxsize=256)
def _by_name(selection: Selection) -> dict[str, Fence]:
    return dict(selection.fences)


def _without(fences: frozenset[tuple[str, Fence]], names: frozenset[str]) -> frozenset[tuple[str, Fence]]:
    return frozenset(entry for entry in fences if entry[0] not in names) if fences else fences


def admission(selection: Selection) -> Callable[[Event], bool] | None:
    """Tells of events whose channels `selection` means whether they are wanted; None where all are, without fences."""
    if not selection.fences:
        return None
    find, fences = cache(Matcher(selection.patterns).find), dict(selection.fences)
    names = selection.names

    def admits(event: Event) -> bool:
        meant = [name for name in (event.channel, *find(event.channel)) if name in names]
        if any(name not in fences for name in meant):
            return True
        return event.place is not None and any(fences[name].hits(event.place) for name in meant)

    return admits


EMPTY = Selection()


def select(names: Iterable[str], *, ephemeral: bool = True, fence: Fence | None = None) -> Selection:
    """The selection of these names, all with the `fence`, if there is one."""
    chosen = Selection(frozenset(names))
    if fence is not None:
        return Selection(chosen.names, chosen.channels, frozenset((name, fence) for name in chosen.names))
    return chosen if ephemeral else Selection(chosen.names, chosen.channels)
