"""Everything that can go wrong, while producers commit and clients follow: nothing lost, nothing twice, losses told."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.bench.table import show
from tests.conftest import temporary_folder
from tests.faults.faults import DISK_FULL, FAULTS
from tests.faults.world import World, world

SECONDS = float(os.environ.get("HUB_FAULT_SECONDS", "0"))
FINE = ("committed", "NOTIFYs", "received", "NOTIFY lost and told")


async def through(world: World, seconds: float, chance: random.Random) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Each fault once, then again in random order as long as `seconds` have not passed: recoveries, and counts."""
    names = [name for name in FAULTS if name != DISK_FULL or world.disk.own]
    recoveries: dict[str, list[float]] = {name: [] for name in names}
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    end = time.monotonic() + seconds
    while True:
        for name in names:
            try:
                await FAULTS[name](world)
                recovery, found = await world.settle()
            except Exception as error:
                error.add_note(f"{name}; the hub said: {world.hub.logged()[-20:]}")
                raise
            recoveries[name].append(recovery)
            counts[name] += found
        chance.shuffle(names)
        if time.monotonic() >= end:
            return recoveries, counts


def table(recoveries: Mapping[str, Sequence[float]], counts: Mapping[str, Counter[str]], seed: int) -> None:
    rows = [
        [name, str(len(times)), f"{max(times):.2f}", *(str(counts[name][column]) for column in FINE)]
        for name, times in recoveries.items()
    ]
    total = sum(counts.values(), Counter())
    rows.append(["all", str(sum(map(len, recoveries.values()))), "", *(str(total[column]) for column in FINE)])
    show(f"Faults, seed {seed}", ["fault", "times", "recovery, s", *FINE], rows)


@pytest.mark.timeout(240 + 2 * SECONDS)
async def test_no_fault_loses_or_repeats_an_event_or_keeps_a_lost_notify_to_itself() -> None:
    """Each fault once, at a hurried hub; with HUB_FAULT_SECONDS over and over, at the hub's own pace."""
    seed = random.randrange(1 << 30)
    module, producers = ("hub", 8) if SECONDS else ("tests.faults.impatient", 4)
    with temporary_folder() as folder:
        async with world(folder, seed=seed, producers=producers, module=module) as made:
            recoveries, counts = await through(made, SECONDS, random.Random(seed))
        complaints = [line for line in made.hub.logged() if line["level"] == "error" or "exception" in line]
    table(recoveries, counts, seed)
    wrong = {name: {what: n for what, n in found.items() if what not in FINE} for name, found in counts.items()}
    assert not {name: found for name, found in wrong.items() if found}, f"seed {seed}"
    assert not complaints
