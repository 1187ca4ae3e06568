"""What schemathesis, which knows the hub by its contract, finds to ask is answered as the contract says."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import asyncpg

# That a request is right by each of its parts does not make it one: `since` goes with no `last`, a cursor is not any
# text. So what is refused is not held against the hub, but what is accepted is.
CONFIGURATION = """
[checks.positive_data_acceptance]
enabled = false
[checks.negative_data_rejection]
expected-statuses = ["4xx"]
"""
OPTIONS = ["--generation-deterministic", "--max-examples=10", "--continue-on-failure", "--request-timeout=10"]
ENVIRONMENT = os.environ | {"NO_PROXY": "127.0.0.1"}


async def test_the_hub_keeps_its_contract(hub: Any, tmp_path: Path) -> None:
    producer = await asyncpg.connect(hub.dsn)
    await producer.execute("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1), (2)")
    await producer.execute("SELECT hub.watch('orders')")
    await producer.close()
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    program = Path(sys.executable).with_name("schemathesis")
    command = [program, "run", f"{hub.url}/openapi.json", *OPTIONS]
    run = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=ENVIRONMENT, stdout=PIPE, stderr=STDOUT)
    output, _ = await run.communicate()
    assert run.returncode == 0, output.decode()
    assert "10 selected / 10 total" in output.decode()
