"""JSON columns as Python objects, through orjson both ways; and what rows that are streamed need.

asyncpg hands json and jsonb over as text unless told otherwise, and a codec holds for one connection only: these are
to be called for each one, which is what a pool's `init` is for.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from hub.postgres.times import DECODERS

_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")
_JSONB_VERSION: Final = b"\x01"  # the first byte of jsonb's binary form


async def set_codecs(connection: Any) -> None:
    """Make json and jsonb of `connection` go through orjson.

    Written values raise asyncpg.DataError where orjson cannot encode them; NaN and infinity are written as null.
    Whole numbers beyond 64 bits are read as floats: where every digit counts, select the column as text.
    In a parameter of type jsonb[] a list stands for another dimension: values that may be lists go as text[]::jsonb[].
    """
    await connection.set_type_codec(
        "json", schema="pg_catalog", encoder=orjson.dumps, decoder=orjson.loads, format="binary"
    )
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=_decode_jsonb, format="binary"
    )


def _encode_jsonb(value: Any) -> bytes:
    return _JSONB_VERSION + orjson.dumps(value)


def _decode_jsonb(data: bytes) -> Any:
    return orjson.loads(memoryview(data)[1:])


async def set_stream_codecs(connection: Any) -> None:
    """Make what `connection` reads exact, for rows that go out as hub/postgres/forms.py writes them.

    json and jsonb stay as they are, in one line, as fragments for orjson. Dates and times are as hub/postgres/times.py
    has them: by itself asyncpg takes the nearest that Python has.
    """
    await connection.set_type_codec(
        "json", schema="pg_catalog", encoder=orjson.dumps, decoder=_json_as_it_is, format="binary"
    )
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=_encode_jsonb, decoder=_jsonb_as_it_is, format="binary"
    )
    for name, decoder in DECODERS.items():
        await connection.set_type_codec(name, schema="pg_catalog", encoder=_sent, decoder=decoder, format="tuple")


def _json_as_it_is(data: bytes) -> orjson.Fragment:
    return orjson.Fragment(data.translate(_ONE_LINE))  # json keeps its white space, and elsewhere no line can break


def _jsonb_as_it_is(data: bytes) -> orjson.Fragment:
    return orjson.Fragment(data[1:])


def _sent(value: tuple[int, ...]) -> tuple[int, ...]:
    return value
