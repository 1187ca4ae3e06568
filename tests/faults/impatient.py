"""`python -m tests.faults.impatient serve` is `pghub serve` that waits for Postgres for tenths of the usual seconds."""

from __future__ import annotations

from functools import partial

from hub import cli, service
from hub.postgres import listener, tail

HEARTBEAT, TIMEOUT = 0.5, 0.5

if __name__ == "__main__":
    service.Listener = partial(listener.Listener, heartbeat=HEARTBEAT, timeout=TIMEOUT)  # type: ignore[misc, assignment]
    listener._BACKOFF_MOST = 0.5  # type: ignore[misc]
    tail._TIMEOUT = HEARTBEAT + TIMEOUT  # type: ignore[misc]
    cli.main()
