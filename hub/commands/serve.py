"""Serving, and what a person is greeted with."""

from __future__ import annotations

import contextlib
import shutil
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hub import service
from hub.commands.work import run
from hub.settings import Settings


def serve(
    settings: Settings | None = None,
    *,
    demo: Annotated[bool, Parameter(help="Open the demo shop, whose orders arrive on `orders`.", negative="")] = False,
) -> int:
    """Run the hub until Ctrl-C."""
    settings = settings or Settings()

    async def work() -> int:
        await service.run(settings, with_demo=demo, on_ready=lambda running: _greet(settings, running, demo=demo))
        return 0

    return run(settings, work())


def _greet(settings: Settings, running: service.Running, *, demo: bool) -> None:
    program = _program()
    folder = f" --data-dir {settings.data_dir}" if settings.data_dir and not settings.database_url else ""
    address = running.url.replace("http", "ws", 1)
    print(f"\n  Dashboard   {running.url}/")
    if settings.database_url is None:
        print(f"  Postgres    {running.dsn}")
    if demo:
        usual = settings.port == Settings.port and settings.tls_cert is None
        url = "" if usual else f" --url {address}/ws"
        print(
            "\n  Copy and try, in another terminal:\n"
            f"""    {program} psql{folder} -c "SELECT hub.publish('orders', '{{\\"hello\\": \\"from psql\\"}}')"\n"""
            f"    {program} listen{url} orders\n"
            "  or in a browser's console:\n"
            f'    new WebSocket("{address}/ws?channel=orders").onmessage = m => console.log(m.data)'
        )
    print("\n  Ctrl-C stops everything.\n", flush=True)


def _program() -> str:
    """How the person can call this program: by its bare name where PATH has it, else by its path."""
    found, this = shutil.which("pghub"), Path(sys.argv[0])
    if found and this.exists() and Path(found).samefile(this):
        return "pghub"
    with contextlib.suppress(ValueError):
        return str(this.absolute().relative_to(Path.cwd()))
    return str(this)
