"""Holds: which channels somebody wants listened to, and for a little while after."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from hub import channels
from hub.errors import Code, CommandError


class Holds:
    """Counts who holds a channel; without holders it lingers for `linger` seconds, since clients come back.

    At most `most` channels in all. `on_change` is called whenever one is new or gone for good; `changes` then tells
    which, so that ten thousand of them cost nothing when one more comes.
    """

    def __init__(self, *, linger: float, most: int, on_change: Callable[[], None]) -> None:
        self._linger = linger
        self._most = most
        self._on_change = on_change
        self._holders: Counter[str] = Counter()
        self._lingering: dict[str, asyncio.TimerHandle] = {}  # in the order in which they were left
        self._new: set[str] = set()
        self._gone: set[str] = set()

    def __repr__(self) -> str:
        return f"<Holds held={len(self._holders)} lingering={len(self._lingering)}>"

    def take(self, channel: str) -> None:
        """Hold `channel` once more.

        Raises CommandError: `too_many`, or `bad_channel`, because a name that Postgres cuts off is never heard
        and one that cannot be sent ends the connection for all.
        """
        if channel in self._holders:
            self._holders[channel] += 1
            return
        if fault := channels.fault(channel):
            raise CommandError(Code.BAD_CHANNEL, f"The channel name {channel!r} {fault}.", channels=(channel,))
        if len(self._holders) >= self._most:
            message = f"This hub listens to {self._most} channels already, which are the most."
            raise CommandError(Code.TOO_MANY, message, channels=(channel,))
        self._holders[channel] = 1
        if timer := self._lingering.pop(channel, None):
            timer.cancel()
            return
        if len(self._holders) + len(self._lingering) > self._most:
            self._forget(next(iter(self._lingering)))
        self._note(channel, self._new, self._gone)

    def give(self, channel: str) -> None:
        """Take one `take` back."""
        self._holders[channel] -= 1
        if self._holders[channel]:
            return
        del self._holders[channel]
        self._lingering[channel] = asyncio.get_running_loop().call_later(self._linger, self._forget, channel)

    def _forget(self, channel: str) -> None:
        self._lingering.pop(channel).cancel()
        self._note(channel, self._gone, self._new)

    def _note(self, channel: str, now: set[str], before: set[str]) -> None:
        """What is undone before anybody heard of it is no change."""
        if channel in before:
            before.discard(channel)
        else:
            now.add(channel)
        self._on_change()

    def changes(self) -> tuple[set[str], set[str]]:
        """The channels that are new, and those that are gone for good, since this was last asked."""
        new, gone = self._new, self._gone
        self._new, self._gone = set(), set()
        return new, gone

    def begin_again(self) -> None:
        """Have `changes` tell all that is wanted as new: nothing is listened to any more."""
        self._new, self._gone = self.wanted(), set()

    def wanted(self) -> set[str]:
        """All that is held or lingers."""
        return self._holders.keys() | self._lingering.keys()
