"""Writing the log into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hub import export, source
from hub.commands.work import database, run
from hub.errors import SetupError
from hub.postgres.connect import connect
from hub.settings import Database


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
    within: Annotated[str | None, Parameter(help="Inside of this polygon, as GeoJSON.")] = None,
    bbox: Annotated[
        str | None, Parameter(help="Between these: west,south,east,north.", allow_leading_hyphen=True)
    ] = None,
    near: Annotated[
        str | None, Parameter(help="So near to a place: longitude,latitude,meters.", allow_leading_hyphen=True)
    ] = None,
    form: Annotated[
        Literal["ndjson", "csv"] | None, Parameter(name="--format", help="By default csv for *.csv, else ndjson.")
    ] = None,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="The file, by default stdout.")] = None,
    settings: Database | None = None,
) -> int:
    """Write events of the log as NDJSON or CSV, straight from the database; a file appears when it is whole."""
    settings = settings or Database()
    area = {"within": within, "bbox": bbox, "near": near}
    wanted = export.asked(names, tag or [], since=since, until=until, from_=from_, to=to, last=last, **area)
    is_csv = form == "csv" or (form is None and output is not None and output.suffix.lower() == ".csv")

    async def work() -> int:
        async with database(settings) as url:
            connection = await connect(source.direct_target(settings, url), purpose="export")
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

    return run(settings, work())
