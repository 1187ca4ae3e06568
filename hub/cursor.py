"""A cursor: a moment of the whole log, as text that a client keeps and gives back.

What is new since a cursor is what is visible now and was not visible then; so a cursor is a snapshot, tightened,
with a witness by which one can tell whether the log still has what the cursor has seen. To clients it is opaque; here
it is url-safe base64 of varints.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain, islice, pairwise
from typing import Final

from hub.snapshot import Snapshot

MAX_LENGTH: Final = 64 * 1024
"""Characters of a cursor. A thousand transactions in flight make one of about 2,600."""

_FOREIGN: Final = "The cursor is none of this hub's; subscribe without it."
_FORMAT: Final = 2
_PLACE: Final = 1  # flag: a place inside a replay follows
_ERAS: Final = 1 << 31  # Postgres's integer; a greater one would spoil the look for all who share it


@dataclass(frozen=True, slots=True)
class Witness:
    """The event with the greatest xid that had been seen: if it is still there, no lower xid was given out again.

    `at` is its published_at in microseconds since 1970.
    """

    xid: int
    id: int
    at: int


@dataclass(frozen=True, slots=True)
class Place:
    """A place inside a replay: it goes on behind event `id`, in id order, and up to what `upper` sees."""

    upper: Snapshot
    id: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """`generation` names the log; a log that was emptied or restored has another one.

    `era` names a part of its life: a new one begins whenever a hub connects. Only between two of them can Postgres have
    lost what it had shown, so within one nobody need ask whether the witness is still there.

    `snapshot` is tightened to `witness`; without a witness nothing has been seen, and it is where the log starts. In a
    place the witness is that of its upper snapshot.
    """

    generation: int
    snapshot: Snapshot
    witness: Witness | None = None
    place: Place | None = None
    era: int = 0

    def __str__(self) -> str:
        return _text(self)

    @property
    def upper(self) -> Snapshot:
        """What has to be visible to whoever goes on from here."""
        return self.place.upper if self.place else self.snapshot

    @property
    def finished(self) -> Cursor:
        """Where the replay ends that this is a place in; a cursor that is none is there already."""
        return Cursor(self.generation, self.place.upper, self.witness, era=self.era) if self.place else self

    def inside(self, upper: Cursor, event: int) -> Cursor:
        """The place behind `event`, in id order, on the way from this cursor to `upper`."""
        return Cursor(upper.generation, self.snapshot, upper.witness, Place(upper.upper, event), upper.era)

    def back_at(self, snapshot: Snapshot) -> Cursor:
        """The moment of the same log in which only what `snapshot` sees had been seen."""
        return Cursor(self.generation, snapshot, era=self.era)

    def fallen_back(self, floor: Snapshot, witness: Witness | None, era: int) -> Cursor:
        """Where to go on in `era` when all is lost, perhaps, that this one has seen and `floor` does not see.

        Who is inside a replay that began below the floor has not seen all that the floor sees, and begins that again.
        The floor's `witness` stands for both: while it is there, so is what either has seen.
        """
        start = self.snapshot if floor.contains(self.snapshot) else floor
        return Cursor(self.generation, start, witness, era=era)

    def of(self, era: int) -> Cursor:
        """The same moment, for who knows that all that it has seen is still there in `era`."""
        return self if era == self.era else Cursor(self.generation, self.snapshot, self.witness, self.place, era)

    def lifted(self, horizon: int) -> Cursor:
        """This cursor when nothing below `horizon` is left to be seen."""
        place = self.place
        if place is not None and place.upper.xmax <= horizon:
            return self.finished.lifted(horizon)
        return Cursor(self.generation, self.snapshot.lifted(horizon), self.witness, place, self.era)


@lru_cache(maxsize=1024)  # one cursor goes to many clients
def _text(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(bytes(_encode(cursor))).rstrip(b"=").decode()


def parse(text: str) -> Cursor:
    """The cursor in `text`. Raises ValueError for what the hub never wrote, in a sentence for the client."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"The cursor is longer than {MAX_LENGTH} characters.")
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = _decode(_numbers(data))
    except (ValueError, StopIteration, binascii.Error):
        raise ValueError(_FOREIGN) from None
    if str(cursor) != text:  # base64 and varints can be written in more than one way, and the hub uses one
        raise ValueError(_FOREIGN)
    return cursor


def _encode(cursor: Cursor) -> Iterator[int]:
    """The bytes of the varints."""
    numbers = chain(
        (_FORMAT, _PLACE if cursor.place else 0, cursor.generation, cursor.era),
        _of_snapshot(cursor.snapshot),
        _of_witness(cursor.witness),
        (*_of_snapshot(cursor.place.upper), cursor.place.id) if cursor.place else (),
    )
    for number in numbers:
        while number > 127:
            yield number & 127 | 128
            number >>= 7
        yield number


def _of_snapshot(snapshot: Snapshot) -> Iterator[int]:
    """Differences, which are small: lower bound, extent, count, and the steps between."""
    yield from (snapshot.xmin, snapshot.xmax - snapshot.xmin, len(snapshot.xip))
    yield from (after - before for before, after in pairwise((snapshot.xmin, *snapshot.xip)))


def _of_witness(witness: Witness | None) -> Iterator[int]:
    if witness is None:
        yield 0
    else:
        yield from (witness.xid, witness.id, witness.at)


def _numbers(data: bytes) -> Iterator[int]:
    number, shift = 0, 0
    for byte in data:
        number |= (byte & 127) << shift
        shift += 7
        if number >= 1 << 63:
            raise ValueError("a number is too large")
        if byte < 128:
            yield number
            number, shift = 0, 0
    if shift:
        raise ValueError("a number is cut off")


def _decode(numbers: Iterator[int]) -> Cursor:
    version, flags, generation, era = next(numbers), next(numbers), next(numbers), next(numbers)
    if version != _FORMAT or flags & ~_PLACE or era >= _ERAS:
        raise ValueError("another format")
    snapshot, witness = _to_snapshot(numbers), _to_witness(numbers)
    place = Place(_to_snapshot(numbers), next(numbers)) if flags & _PLACE else None
    if next(numbers, None) is not None:
        raise ValueError("something follows")
    return Cursor(generation, snapshot, witness, place, era)


def _to_snapshot(numbers: Iterator[int]) -> Snapshot:
    xmin, extent, count = next(numbers), next(numbers), next(numbers)
    if count > MAX_LENGTH:
        raise ValueError("too many transactions")
    xip = tuple(accumulate(islice(numbers, count), initial=xmin))[1:]
    if len(xip) < count:
        raise ValueError("transactions are cut off")
    return Snapshot(xmin, xmin + extent, xip)


def _to_witness(numbers: Iterator[int]) -> Witness | None:
    xid = next(numbers)
    return Witness(xid, next(numbers), next(numbers)) if xid else None
