"""What the process is told by signals."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from hub.errors import SetupError
from hub.signals import Signals


@pytest.fixture
async def signals() -> AsyncIterator[Signals]:
    signals = Signals()
    signals.listen()
    yield signals
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().remove_signal_handler(name)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_stops_and_the_second_hurries(signals: Signals, second: signal.Signals) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await signals.stop.wait()
    assert not signals.hurry.is_set()
    os.kill(os.getpid(), second)
    await signals.hurry.wait()


async def test_a_hangup_reads_all_again_and_says_what_could_not_be(signals: Signals) -> None:
    reread = asyncio.Event()

    def broken() -> None:
        raise SetupError("It is no PEM.")

    signals.reread("keys", broken)
    signals.reread("certificate", reread.set)
    with capture_logs() as logs:
        os.kill(os.getpid(), signal.SIGHUP)
        await reread.wait()
    assert logs == [
        {"event": "reload_failed", "what": "keys", "reason": "It is no PEM.", "log_level": "warning"},
        {"event": "reloaded", "what": "certificate", "log_level": "info"},
    ]


async def test_without_anything_to_read_a_hangup_ends_the_process_as_ever(signals: Signals) -> None:
    """A hub whose terminal has gone is not to stay behind."""
    assert signal.getsignal(signal.SIGHUP) in (signal.SIG_DFL, signal.SIG_IGN)
