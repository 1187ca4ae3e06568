"""The extra is one: whoever does without it never loads it."""

from __future__ import annotations

import subprocess
import sys

ALL = """
import importlib, pkgutil, sys, hub
for found in pkgutil.walk_packages(hub.__path__, "hub."):
    if found.name != "hub.__main__" and not found.name.startswith("hub.geo"):
        importlib.import_module(found.name)
print(sorted({"shapely", "numpy"} & sys.modules.keys()))
"""


WITHOUT = """
import asyncio, sys
from hub import service
from hub.settings import Settings

async def main():
    async with service.hub(Settings(port=0), sys.argv[1]):
        return sorted({"shapely", "numpy"} & sys.modules.keys())

print(asyncio.run(main()))
"""


def test_no_module_of_the_hub_loads_shapely_but_those_of_geo() -> None:
    run = subprocess.run([sys.executable, "-c", ALL], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_a_hub_without_postgis_never_loads_shapely(blank: str) -> None:
    """Though it is installed."""
    run = subprocess.run([sys.executable, "-c", WITHOUT, blank], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
