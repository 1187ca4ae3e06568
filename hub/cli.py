"""The command `pghub`: its commands, where their settings come from, and what becomes of their failures."""

from __future__ import annotations

import dataclasses
import os
import sys
from importlib.metadata import version
from typing import Final

from cyclopts import App, ArgumentCollection, CycloptsError
from cyclopts.config import Env
from dotenv import dotenv_values

from hub.commands.database import dsn, migrate, psql
from hub.commands.doctor import examine
from hub.commands.export import export_events
from hub.commands.listen import listen
from hub.commands.load import load
from hub.commands.publish import publish
from hub.commands.serve import serve
from hub.commands.token import token
from hub.errors import SetupError
from hub.settings import Settings

_INTERRUPTED: Final = 130


class _Environment(Env):
    """Reads settings and the token from HUB_…, and nothing else: a HUB_KEY left there is no option of a command."""

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        settings = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Settings)} | {"--token"}
        chosen = ArgumentCollection(each for each in arguments if each.name in settings)  # type: ignore[no-untyped-call]
        super().__call__(app, commands, chosen)


app = App(
    name="pghub",
    help="Fans Postgres events out to websocket clients.",
    version=version("pghub"),
    config=_Environment("HUB_", command=False),
    result_action="return_value",
)
for _command in (serve, migrate, dsn, publish, load, listen, token):
    app.command(_command)
app.command(psql, help_flags=[], version_flags=[])  # psql has its own
app.command(export_events, name="export")
app.command(examine, name="doctor")


def main() -> None:
    """Run the command; a SetupError becomes its sentence on standard error and exit code 1."""
    try:
        _read_dotenv()
        sys.exit(app(exit_on_error=False, print_error=True) or 0)
    except CycloptsError:
        sys.exit(2)
    except SetupError as error:
        sys.exit(f"pghub: {error}")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        # The reader has what it wanted (`pghub listen orders | head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _read_dotenv() -> None:
    """Settings of `.env` in the current folder stand in where the environment has none."""
    for name, value in dotenv_values(".env").items():
        if name.startswith("HUB_") and value is not None:
            os.environ.setdefault(name, value)
