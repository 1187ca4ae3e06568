"""What events are read from: the log, or where there are places, the log with these."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Source:
    """Parts of statements: a table, what of its columns is needed beside those of the log, and the bytes of a row.

    `home` is the schema of PostGIS.
    """

    table: str
    columns: tuple[str, ...]
    size: str
    home: str = ""

    def also(self, alias: str = "") -> str:
        """These columns, each behind a comma; `alias` is what the table is called."""
        return "".join(f", {alias}{column}" for column in self.columns)


PLAIN = Source("hub.events", (), "pg_column_size(payload)")
PLACED = Source("hub.placed", ("place",), "pg_column_size(payload) + COALESCE(pg_column_size(place), 0)")


def placed(home: str) -> Source:
    """The log with its places, as they are where PostGIS lives in `home`."""
    return replace(PLACED, home=home)
