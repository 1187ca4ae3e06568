"""Rows with dot access.

asyncpg leaves attributes out on purpose: a column may be named like a method. Here the method wins, and such a
column is reached by brackets, as all are.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg

_SHOWN: Final = 20  # columns that an error names


class Record(asyncpg.Record):
    """A row whose columns are attributes too: `row.status` is `row["status"]`.

    `row["keys"]`, `row["items"]`, `row["get"]` and `row["values"]` need the brackets. An unknown name raises
    AttributeError, which says what columns there are.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            columns = list(self.keys())
            more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
            known = ", ".join(columns[:_SHOWN]) + more
            raise AttributeError(f"no column {name!r}; there are: {known or 'none'}") from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.keys()})
