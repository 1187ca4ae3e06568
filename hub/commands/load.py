"""Publishing a file."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from hub import earth, loader, source
from hub.commands.publish import check_channel
from hub.commands.work import database, run
from hub.errors import CommandError, SetupError
from hub.postgres import loading
from hub.postgres.connect import connect
from hub.postgres.places import Places
from hub.settings import Database


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

    A line of NDJSON is {"channel": …, "payload": …, "tags": […], "place": …}. A CSV file has these as columns, and its
    first line names them.
    """
    settings = settings or Database()
    is_csv = form == "csv" or (form is None and file.lower().endswith(".csv"))
    if channel is not None:
        if is_csv:
            raise SetupError("--channel goes with NDJSON only: a CSV file has a column `channel`.")
        check_channel(channel)

    async def work() -> int:
        async with database(settings) as url:
            connection = await connect(source.direct_target(settings, url), purpose="load")
            try:
                with loader.progress(opened) as chunks:
                    if is_csv:
                        count = await loading.copy_csv(connection, chunks)
                    else:
                        places = await Places.known(connection, earth.geometry if earth.is_installed() else None)
                        count = await loading.copy_lines(connection, chunks, channel, places=places)
                print(count)
            except CommandError as error:
                raise SetupError(loader.sentence(file, error)) from None
            finally:
                connection.terminate()
        return 0

    with loader.opened(file) as opened:
        return run(settings, work())
