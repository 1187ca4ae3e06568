"""The command `pghub`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from cyclopts.config import Env
from cyclopts.validators import Number
from dotenv import dotenv_values

from hub import assets, channels, client, doctor, event, export, loader, logs, loop, printer, protocol, service
from hub.errors import CommandError, SetupError
from hub.postgres import binaries, embedded, loading, once
from hub.postgres.checks import Finding
from hub.postgres.connect import connect
from hub.postgres.migrate import migrate as apply
from hub.settings import Database, Settings


class _Environment(Env):
    """Reads settings from HUB_…, and nothing else: a HUB_KEY left in the environment is no option of a command."""

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        settings = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Settings)}
        chosen = ArgumentCollection(each for each in arguments if each.name in settings)  # type: ignore[no-untyped-call]
        super().__call__(app, commands, chosen)


app = App(
    name="pghub",
    help="Fans Postgres events out to websocket clients.",
    version=version("pghub"),
    config=_Environment("HUB_", command=False),
    result_action="return_value",
)
_INTERRUPTED: Final = 130


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


def _run(settings: Database, work: Coroutine[Any, Any, int]) -> int:
    """Run `work` on the loop that the settings ask for, which is chosen before any exists."""
    try:
        logs.configure(settings.log_level)
        runner = loop.runner(settings.loop)
    except BaseException:
        work.close()
        raise
    with runner:
        return runner.run(work)


@app.command
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

    return _run(settings, work())


def _greet(settings: Settings, running: service.Running, *, demo: bool) -> None:
    program = _program()
    folder = f" --data-dir {settings.data_dir}" if settings.data_dir and not settings.database_url else ""
    address = running.url.replace("http", "ws", 1)
    print(f"\n  Dashboard   {running.url}/")
    if settings.database_url is None:
        print(f"  Postgres    {running.dsn}")
    if demo:
        url = "" if settings.port == Settings.port else f" --url {address}/ws"
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


@app.command
def migrate(settings: Database | None = None) -> int:
    """Bring the database's schema `hub` up to date."""
    settings = settings or Database()

    async def work() -> int:
        async with service.database(settings) as source:
            connection = await connect(service.direct_target(settings, _dsn(source)), purpose="migrate")
            try:
                applied = await apply(connection, assets.folder("sql"))
            finally:
                await connection.close()
        print("\n".join(applied) or "Nothing to do: the database is up to date.")
        return 0

    return _run(settings, work())


def _dsn(source: embedded.Embedded | str) -> str:
    return source if isinstance(source, str) else source.dsn


@app.command
def dsn(settings: Database | None = None) -> int:
    """Print the URL of the database that the hub uses."""
    settings = settings or Database()
    url = settings.database_url or embedded.running_dsn(settings.folder)
    if url is None:
        raise SetupError("The embedded Postgres does not run. Start it with `pghub serve`, or set HUB_DATABASE_URL.")
    print(url)
    return 0


@app.command(help_flags=[], version_flags=[])  # psql has its own
def psql(
    *arguments: Annotated[str, Parameter(help="Passed on to psql.", allow_leading_hyphen=True)],
    settings: Database | None = None,
) -> int:
    """Open psql on the hub's database; all arguments are psql's."""
    settings = settings or Database()
    program = _psql(settings)

    async def work() -> int:
        async with service.database(settings) as source:
            process = await asyncio.create_subprocess_exec(program, _dsn(source), *arguments)
            return await process.wait()

    return _run(settings, work())


def _psql(settings: Database) -> str:
    """The psql of the embedded Postgres, which knows that version's catalogs; else whichever there is."""
    with contextlib.suppress(SetupError):
        if settings.database_url is None and (own := binaries.find(bin_dir=settings.pg_bin).program("psql")):
            return str(own)
    if found := shutil.which("psql"):
        return found
    raise SetupError("There is no psql here. Install Postgres's client programs.")


@app.command
def publish(
    channel: str,
    payload: Annotated[
        str, Parameter(help="JSON, or any text, which becomes a JSON string.", allow_leading_hyphen=True)
    ],
    *,
    tag: Annotated[list[str] | None, Parameter(help="A word to select by; may be given again.", negative="")] = None,
    key: Annotated[str | None, Parameter(help="Publishes once only, however often it is used within 24 hours.")] = None,
    notify: Annotated[bool, Parameter(help="Send a NOTIFY, which nobody stores, instead.", negative="")] = False,
    settings: Database | None = None,
) -> int:
    """Publish one durable event, straight to the database, and print its id."""
    settings = settings or Database()
    tags = tag or []
    if notify and (tags or key is not None):
        raise SetupError("--tag and --key go with durable events only; leave them out beside --notify.")
    _check_channel(channel)
    _check_texts({"payload": payload, "key": key or "", "tag": "".join(tags)})
    text = payload if notify else event.as_json(payload).decode()
    _check_size(text, notify=notify)

    async def work() -> int:
        async with service.database(settings) as source:
            connection = await connect(service.target(settings, _dsn(source)), purpose="publish")
            try:
                if notify:
                    await once.notify(connection, channel, text)
                else:
                    print(await once.publish(connection, channel, text, tags, key))
            finally:
                await connection.close()
        return 0

    return _run(settings, work())


def _check_channel(name: str) -> None:
    if why := channels.fault(name):
        raise SetupError(f"The channel name {name!r} {why}.")
    if channels.is_own(name):
        raise SetupError(f"Names that start with `$` or `hub_` are the hub's own: {name!r}. Choose another one.")


def _check_texts(texts: dict[str, str]) -> None:
    """Bytes that are no UTF-8 come out of the shell as lone surrogates."""
    for what, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise SetupError(f"The {what} is no UTF-8, which Postgres needs.") from None


def _check_size(payload: str, *, notify: bool) -> None:
    size, most = len(payload.encode()), protocol.MAX_NOTIFY if notify else protocol.MAX_PAYLOAD
    if size > most:
        kind, way_out = ("a NOTIFY", " Publish it without --notify.") if notify else ("an event", "")
        raise SetupError(f"The payload has {size} bytes; {kind} carries {most} at the most.{way_out}")


@app.command
def load(
    file: Annotated[str, Parameter(help="The file; - is standard input.", allow_leading_hyphen=True)],
    *,
    channel: Annotated[
        str | None, Parameter(help="Where all go: then each line of NDJSON is a payload, whatever JSON it is.")
    ] = None,
    form: Annotated[
        Literal["ndjson", "csv"] | None, Parameter(name="--format", help="By default csv for *.csv, else ndjson.")
    ] = None,
    settings: Database | None = None,
) -> int:
    """Publish all events of a file, straight to the database by COPY, or none; and print how many.

    A line of NDJSON is {"channel": …, "payload": …, "tags": […]}. A CSV file has these as columns, its first line
    names them.
    """
    settings = settings or Database()
    is_csv = form == "csv" or (form is None and file.lower().endswith(".csv"))
    if channel is not None:
        if is_csv:
            raise SetupError("--channel goes with NDJSON only: a CSV file has a column `channel`.")
        _check_channel(channel)

    async def work() -> int:
        async with service.database(settings) as source:
            connection = await connect(service.direct_target(settings, _dsn(source)), purpose="load")
            try:
                with loader.progress(opened) as chunks:
                    if is_csv:
                        count = await loading.copy_csv(connection, chunks)
                    else:
                        count = await loading.copy_lines(connection, chunks, channel)
                print(count)
            except CommandError as error:
                raise SetupError(loader.sentence(file, error)) from None
            finally:
                connection.terminate()
        return 0

    with loader.opened(file) as opened:
        return _run(settings, work())


@app.command(name="export")
def export_events(
    *names: Annotated[
        str, Parameter(name="CHANNEL", help="Channels, or patterns: quote 'orders.*' for the shell. None means all.")
    ],
    since: Annotated[str | None, Parameter(help="Begin behind this cursor.")] = None,
    until: Annotated[str | None, Parameter(help="End with what this cursor has seen.")] = None,
    from_: Annotated[str | None, Parameter(name="--from", help="Published at this time or later.")] = None,
    to: Annotated[str | None, Parameter(help="Published before this time: 2026-11-22T09:00:00Z.")] = None,
    last: Annotated[str | None, Parameter(help="Only the newest, as many as this.")] = None,
    tag: Annotated[
        list[str] | None, Parameter(help="With this tag; with any of them if repeated.", negative="")
    ] = None,
    form: Annotated[
        Literal["ndjson", "csv"] | None, Parameter(name="--format", help="By default csv for *.csv, else ndjson.")
    ] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="The file, by default stdout.")] = None,
    settings: Database | None = None,
) -> int:
    """Write events of the log as NDJSON or CSV, straight from the database; a file appears when it is whole."""
    settings = settings or Database()
    wanted = export.asked(names, tag or [], since=since, until=until, from_=from_, to=to, last=last)
    is_csv = form == "csv" or (form is None and output is not None and output.suffix.lower() == ".csv")

    async def work() -> int:
        async with service.database(settings) as source:
            connection = await connect(service.direct_target(settings, _dsn(source)), purpose="export")
            try:
                with export.target(output) as out:
                    await export.write(connection, wanted, out, csv=is_csv)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise SetupError(f"The export cannot be written: {error.strerror or error}.") from None
            finally:
                connection.terminate()
        return 0

    return _run(settings, work())


@app.command
def listen(
    *names: Annotated[
        str, Parameter(name="CHANNEL", help="Channels to subscribe to, or patterns: quote 'orders.*' for the shell.")
    ],
    url: Annotated[str | None, Parameter(help="The hub's websocket; by default the one on this machine.")] = None,
    since: Annotated[str | None, Parameter(help="Begin behind this cursor.")] = None,
    last: Annotated[
        int | None,
        Parameter(help="Begin with the newest durable events, as many as this.", validator=Number(gte=1, lte=1000)),
    ] = None,
    state: Annotated[
        Path | None, Parameter(help="Keep the cursor in this file, and go on from there if it has one.")
    ] = None,
    settings: Settings | None = None,
) -> int:
    """Print events as lines of JSON; word of losses goes to standard error."""
    settings = settings or Settings()
    if not names:
        raise SetupError("Name a channel: pghub listen orders")
    address = url or f"ws://{settings.host}:{settings.port}/ws"
    if urlsplit(address).scheme not in ("ws", "wss"):
        raise SetupError(f"{address!r} is no websocket's address. One looks like ws://127.0.0.1:8080/ws.")
    if since is not None and last is not None:
        raise SetupError("--since and --last exclude each other: begin behind a cursor, or with the newest events.")
    if since is None and state is not None:
        since = printer.read_state(state)
    out = printer.Printer(state, resumed=since is not None)
    start: dict[str, Any] = {"since": since} if since is not None else {"last": last}

    async def work() -> int:
        with printer.ending_between_messages():
            async with aclosing(client.follow(address, names, **start, on_lost=printer.tell_lost)) as messages:
                async for message in messages:
                    out.take(message)
        return 0

    return _run(settings, work())


@app.command(name="doctor")
def examine(settings: Settings | None = None) -> int:
    """Check the database and the hub's surroundings; the exit code is 1 where something is broken."""
    settings = settings or Settings()

    async def work() -> int:
        findings = [finding async for finding in _print_each(doctor.examine(settings))]
        return int(any(finding.level == "fail" for finding in findings))

    return _run(settings, work())


async def _print_each(findings: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    async for finding in findings:
        print(f"{finding.level:<4}  {finding.subject:<12} {finding.text}", flush=True)
        yield finding
