"""Rows of a relation: what to select of it, and each row as an object of JSON.

A row is what `to_jsonb(t.*)` makes of it under the settings of hub/postgres/watched.py, equal as JSON. Columns whose
type is known down to its last part come as Python's values and are written by hub/postgres/forms.py, and all others
as Postgres's own `to_jsonb` of the column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from hub.postgres import forms
from hub.postgres.connect import Connection
from hub.postgres.forms import Form

_COLUMNS: Final = """
/* watched columns */
SELECT attname::text AS name, atttypid AS type, hub.is_trusted(atttypid) AS trusted,
       typlen = -1 AND typelem <> 0 AS listed
  FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
 WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attname = ANY($2::text[]) ORDER BY attnum
"""
# All types that the given ones are made of. One that has a cast to json is written by that cast, whatever it is.
_TYPES: Final = """
/* watched types */
WITH RECURSIVE reached (oid) AS (
    SELECT unnest($1::oid[])
    UNION
    SELECT part.oid FROM reached JOIN pg_type AS ty ON ty.oid = reached.oid CROSS JOIN LATERAL (
        SELECT ty.typbasetype UNION ALL SELECT ty.typelem
        UNION ALL SELECT rngsubtype FROM pg_range WHERE ty.oid IN (rngtypid, rngmultitypid)
        UNION ALL SELECT atttypid FROM pg_attribute
                   WHERE attrelid = ty.typrelid AND attnum > 0 AND NOT attisdropped
    ) AS part (oid) WHERE part.oid <> 0
)
SELECT ty.oid,
       CASE WHEN element.oid IS NOT NULL THEN 'a' ELSE ty.typtype::text END AS kind,
       CASE WHEN ty.typnamespace = 'pg_catalog'::regnamespace THEN ty.typname::text END AS name,
       COALESCE(element.oid, rngsubtype, ty.typbasetype) AS part,
       ARRAY(SELECT attname::text FROM pg_attribute
              WHERE attrelid = ty.typrelid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS names,
       ARRAY(SELECT atttypid FROM pg_attribute
              WHERE attrelid = ty.typrelid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS types,
       EXISTS (SELECT FROM pg_cast WHERE castsource = ty.oid AND casttarget = 'json'::regtype AND castmethod = 'f'
                  AND ty.oid >= 16384) AS cast
  FROM reached JOIN pg_type AS ty ON ty.oid = reached.oid
  LEFT JOIN pg_type AS element ON element.typarray = ty.oid
  LEFT JOIN pg_range ON ty.oid IN (rngtypid, rngmultitypid)
"""


@dataclass(frozen=True, slots=True)
class Rows:
    """`selected` stands between SELECT and FROM, for a relation called t; `encode` makes JSON of a row of it."""

    selected: str
    encode: Callable[[Any], bytes]


async def describe(connection: Connection, relation: int, columns: Sequence[str]) -> Rows:
    """The rows of the relation with this oid, in those of its columns that are among `columns`."""
    found = await connection.fetch(_COLUMNS, relation, columns)
    types = {row["oid"]: row for row in await connection.fetch(_TYPES, [column["type"] for column in found])}
    form_of = {row["name"]: _json(types, row["type"]) if row["trusted"] else None for row in found}
    selected = [_as_it_is(row) if form_of[row["name"]] else _as_json(row) for row in found]
    return Rows(", ".join(selected), _encoder({name: form or forms.same for name, form in form_of.items()}))


def _as_it_is(column: Any) -> str:
    return f"t.{quoted(column['name'])}"


def _as_json(column: Any) -> str:
    value = _as_it_is(column)
    if column["trusted"]:
        return f"to_jsonb({value})"
    # Events have such a column as text, too: to_jsonb would call a cast to json that its type's owner has made.
    text = f"format('%s', {value})" + ("::text[]" if column["listed"] else "")
    return f"to_jsonb(CASE num_nulls({value}) WHEN 0 THEN {text} END)"


def quoted(name: str) -> str:
    """`name` as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def _json(types: Mapping[int, Any], oid: int) -> Form | None:
    """The JSON form of a type; None where it is not known."""
    row = types[oid]
    if row["cast"]:
        return None
    match row["kind"]:
        case "b":
            return forms.JSON.get(row["name"])
        case "e":
            return forms.same
        case "d":
            return _json(types, row["part"])
        case "a":
            element = None if _is_list(types, row["part"]) else _json(types, row["part"])
            return element and forms.array(element)
        case "c":
            fields = {name: _json(types, part) for name, part in zip(row["names"], row["types"], strict=True)}
            known = {name: form for name, form in fields.items() if form is not None}
            return forms.composite(known) if fields and len(known) == len(fields) else None
        case "r" | "m":
            text = _text(types, row["part"])
            return text and (forms.span(text) if row["kind"] == "r" else forms.spans(text))
        case _:
            return None


def _text(types: Mapping[int, Any], oid: int) -> Form | None:
    """The text form of a type that bounds a range; None where it is not known."""
    row = types[oid]
    match row["kind"]:
        case "b":
            return forms.TEXT.get(row["name"])
        case "e":
            return forms.same
        case "d":
            return _text(types, row["part"])
        case _:
            return None


def _is_list(types: Mapping[int, Any], oid: int) -> bool:
    """Whether asyncpg has values of this type as lists, which inside an array look like another dimension."""
    row = types[oid]
    return row["kind"] in "am" or (row["kind"] == "d" and _is_list(types, row["part"]))


def _encoder(form_of: Mapping[str, Form]) -> Callable[[Any], bytes]:
    names = tuple(form_of)
    odd = [(place, form) for place, form in enumerate(form_of.values()) if form is not forms.same]

    def encode(row: Any) -> bytes:
        values = list(row)
        for place, form in odd:
            if (value := values[place]) is not None:
                values[place] = form(value)
        return orjson.dumps(dict(zip(names, values, strict=True)))

    return encode
