"""Which event loop runs. It is chosen here, before any loop exists, and handed to one explicit Runner.

asyncio is two layers: an API, and a loop beneath it. uvloop replaces the loop alone, by libuv through Cython,
so the rest of the hub does not know. The global policy that used to select it is deprecated (Python 3.14).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from hub.errors import SetupError

Name = Literal["uvloop", "asyncio"]


def runner(name: Name) -> asyncio.Runner:
    """A Runner whose loop is the one asked for. Raises SetupError where uvloop is not installed."""
    return asyncio.Runner(loop_factory=_factory(name))


def running() -> str:
    """The loop that really runs, by the package that made it, whatever was asked for."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


def _factory(name: Name) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        raise SetupError("uvloop is not installed here. Set HUB_LOOP=asyncio, or install uvloop.") from None
    return uvloop.new_event_loop
