"""What somebody may do: the channels that they may read and publish to, and until when. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from hub import patterns
from hub.patterns import Matcher

Action = Literal["subscribe", "publish"]
"""Reading of any kind counts as subscribing."""

LEEWAY: Final = 10.0
"""Seconds by which the clocks of the hub and of whoever hands out tokens may differ: so much longer are grants good."""

ALL: Final = "**"
"""Stands for the channels of whoever reads the log and names none."""


@dataclass(frozen=True, slots=True)
class Grants:
    """`subscribe` and `publish` are channels and patterns; an `admin` may do everything.

    `subject` is who it is, if that was said, `expires` seconds since 1970, None for never. `claims` is the JSON that it
    all came from; it stays out of the repr, since nobody knows what else is in there.
    """

    subject: str | None = None
    subscribe: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    admin: bool = False
    expires: float | None = None
    claims: str = field(default="{}", repr=False)

    @property
    def empty(self) -> bool:
        """Whether nothing at all is granted."""
        return not (self.admin or self.subscribe or self.publish)

    def refused(self, action: Action, names: Iterable[str]) -> list[str]:
        """Those of `names`, channels and patterns, for which `action` is not granted.

        A pattern is granted where one that is granted covers all that it means.
        """
        if self.admin:
            return []
        granted = self.subscribe if action == "subscribe" else self.publish
        exact = set(granted)
        left = [name for name in names if name not in exact]
        if not left:
            return left
        wide = Matcher(filter(patterns.is_pattern, granted))
        return [name for name in left if not wide.covers(name)]


EVERYTHING: Final = Grants(admin=True)
"""What is granted to everybody where the hub asks for no tokens."""
