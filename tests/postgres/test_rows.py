"""A row that is streamed is what to_jsonb makes of it, whatever its types."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import AsyncIterator
from decimal import Decimal
from ipaddress import IPv6Address, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.postgres.codecs import set_stream_codecs
from hub.postgres.connect import Connection, Target, connect
from hub.postgres.rows import Rows, describe
from hub.postgres.watched import FORMS

TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'so, "so"', 'happy');
    CREATE DOMAIN positive AS numeric CHECK (VALUE > 0);
    CREATE DOMAIN moods AS mood[];
    CREATE TYPE place AS (gone int, "the street" text, at timestamptz, tags text[], mood mood, amount positive);
    ALTER TYPE place DROP ATTRIBUTE gone;
    CREATE TYPE tour AS (name varchar(20), stops place[], span daterange, note json);
    CREATE TYPE textrange AS RANGE (subtype = text);
    CREATE TYPE timerange AS RANGE (subtype = time);
    CREATE TYPE moodrange AS RANGE (subtype = mood);
    CREATE TYPE positiverange AS RANGE (subtype = positive);
    CREATE TYPE floatrange AS RANGE (subtype = float8);
    CREATE TYPE pair AS (point point, number int);
    CREATE TYPE told AS ENUM ('a', 'b');
    CREATE FUNCTION tell(told) RETURNS json LANGUAGE sql AS $$ SELECT '{"told": true}'::json $$;
    CREATE CAST (told AS json) WITH FUNCTION tell(told);
"""

plain = st.characters(codec="utf-8", exclude_characters="\0")
text = st.text(plain)
words = st.text(st.sampled_from(' \t\n"\\()[],{}aé✓'), max_size=6) | text
microseconds = st.integers(-211_813_488_000_000_000, 9_223_371_331_199_999_999)
near_microseconds = st.integers(-70_000_000_000_000_000, 260_000_000_000_000_000)
days = st.integers(-2_451_545, 2_145_031_948) | st.integers(-740_000, 2_930_000)
of_day = st.integers(0, 86_399_999_999) | st.sampled_from((0, 1, 86_400_000_000, 43_200_500_000))
numerics = (
    st.decimals(-(10**300), 10**300)
    | st.decimals(-1, 1, places=40)
    | st.sampled_from(("NaN", "Infinity", "-Infinity", "0.000"))
)
words4 = st.integers(0, 2**32 - 1).map(lambda word: struct.pack("<I", word))
floats4 = words4.map(lambda word: struct.unpack("<f", word)[0]) | st.floats(width=32)
ipv6 = st.lists(st.sampled_from((0, 0, 0, 1, 0xFFFF, 0xAB)), min_size=8, max_size=8).map(
    lambda groups: IPv6Address(struct.pack(">8H", *groups))
)
addresses = st.ip_addresses() | ipv6
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=10,
)


def clock(moment: int) -> str:
    minutes, moment = divmod(moment, 60_000_000)
    return f"{minutes // 60}:{minutes % 60:02d}:{moment // 1_000_000}.{moment % 1_000_000:06d}"


def offset(seconds: int) -> str:
    return ("-" if seconds < 0 else "+") + clock(abs(seconds) * 1_000_000).partition(".")[0]


def with_prefix(address: Any) -> st.SearchStrategy[str]:
    return st.integers(0, address.max_prefixlen).map(lambda length: f"{address}/{length}")


def bounds(bound: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """A JSON object of two bounds in order and their brackets."""
    pairs = st.tuples(bound, bound).map(sorted) | st.tuples(bound, st.none()) | st.tuples(st.none(), bound)
    return st.tuples(pairs, st.sampled_from(("[)", "(]", "[]", "()"))).map(
        lambda made: json.dumps({"l": made[0][0], "u": made[0][1], "b": made[1]})
    )


def spanned(name: str, kind: str) -> str:
    """The SQL that makes a range of `bounds`."""
    return f"{name}((s::json ->> 'l')::{kind}, (s::json ->> 'u')::{kind}, s::json ->> 'b')"


def nested(value: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Arrays of no, one or two dimensions."""
    two = st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(value, min_size=width, max_size=width), max_size=3))
    return st.lists(value, max_size=4) | two


def literal(value: Any) -> str:
    """An array as SQL writes it."""
    if isinstance(value, list):
        return "{" + ",".join(map(literal, value)) + "}"
    return "NULL" if value is None else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def arrays(value: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return nested(value | st.none()).map(literal)


instants = st.datetimes().map(lambda at: at.isoformat(timespec="microseconds") + "Z")
stamps = near_microseconds.map(lambda moment: f"{moment} microseconds")
places = st.fixed_dictionaries(
    {"the street": words | st.none(), "at": instants | st.just("infinity")},
    optional={"tags": st.lists(words | st.none(), max_size=3), "mood": st.just("happy"), "amount": st.just("1.50")},
)
tours = st.fixed_dictionaries(
    {"name": st.text(plain, max_size=20), "stops": st.lists(places | st.none(), max_size=3), "note": values},
    optional={"span": st.sampled_from(("empty", "[2020-01-01,)", "(,2020-01-01)", "[2020-01-01,2021-01-01)"))},
)
infinite = st.sampled_from(("-infinity", "infinity")).map(lambda each: json.dumps({"l": each, "u": None, "b": "[]"}))
EPOCH = "'2000-01-01'::timestamp + s::interval"
CASES: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "bool": ("s::bool", st.booleans()),
    "int2": ("s::int2", st.integers(-(2**15), 2**15 - 1)),
    "int4": ("s::int4", st.integers(-(2**31), 2**31 - 1)),
    "int8": ("s::int8", st.integers(-(2**63), 2**63 - 1)),
    "float4": ("s::float4", floats4),
    "float8": ("s::float8", st.floats() | st.floats(2.0**52, 2.0**140) | st.integers(0, 140).map(lambda n: 10.0**n)),
    "numeric": ("s::numeric", numerics),
    "numeric(20, 6)": ("s::numeric", st.decimals(-(10**12), 10**12, places=6)),
    "text": ("s::text", words),
    "varchar(9)": ("s::text", st.text(plain, max_size=9)),
    "char(9)": ("s::text", st.text(plain, max_size=9)),
    "name": ("s::text", st.text(plain, max_size=15)),
    "uuid": ("s::uuid", st.uuids()),
    "date": ("'2000-01-01'::date + s::int", days),
    "timestamp": (EPOCH, stamps | microseconds.map(lambda moment: f"{moment} microseconds")),
    "timestamptz": (f"({EPOCH}) AT TIME ZONE 'UTC'", stamps),
    "time": ("s::time", of_day.map(clock)),
    "timetz": ("s::timetz", st.builds(lambda at, zone: clock(at) + offset(zone), of_day, st.integers(-57_599, 57_599))),
    "interval": (
        "s::interval",
        st.builds(
            "{} months {} days {} microseconds".format,
            *(st.integers(-(2**31), 2**31 - 1) | st.integers(-400, 400),) * 2,
            st.integers(-(2**63), 2**63 - 1) | st.integers(-100_000_000, 100_000_000),
        ),
    ),
    "bytea": ("s::bytea", st.binary().map(lambda data: "\\x" + data.hex())),
    "inet": ("s::inet", addresses.flatmap(with_prefix) | addresses),
    "cidr": ("s::cidr", addresses.flatmap(with_prefix).map(lambda text: ip_network(text, strict=False))),
    "bit(11)": ("s::bit(11)", st.text("01", min_size=11, max_size=11)),
    "varbit": ("s::varbit", st.text("01", max_size=40)),
    "json": ("s::json", values.map(lambda value: json.dumps(value, indent=1).replace("\n", "\r\n"))),
    "jsonb": ("s::jsonb", values.map(json.dumps)),
    "mood": ("s::mood", st.sampled_from(("sad", 'so, "so"', "happy"))),
    "positive": ("s::positive", st.decimals(1, 10**9)),
    "moods": ("s::moods", arrays(st.sampled_from(("sad", 'so, "so"')))),
    "int8[]": ("s::int8[]", arrays(st.integers(-(2**63), 2**63 - 1))),
    "text[]": ("s::text[]", arrays(words)),
    "numeric[]": ("s::numeric[]", arrays(numerics)),
    "jsonb[]": ("s::jsonb[]", arrays(values.map(json.dumps))),
    "timestamptz[]": ("s::timestamptz[]", arrays(instants | st.just("-infinity"))),
    "place": ("jsonb_populate_record(NULL::place, s::jsonb)", places.map(json.dumps)),
    "tour": ("jsonb_populate_record(NULL::tour, s::jsonb)", tours.map(json.dumps)),
    "int4range": (spanned("int4range", "int4"), bounds(st.integers(-(2**31), 2**31 - 2))),
    "numrange": (
        spanned("numrange", "numeric"),
        bounds(st.integers() | st.floats(-1e9, 1e9)).filter(lambda made: "e" not in made),
    ),
    "daterange": (spanned("daterange", "date"), bounds(st.dates().map(str))),
    "tsrange": (spanned("tsrange", "timestamp"), bounds(st.datetimes().map(str)) | infinite),
    "tstzrange": (spanned("tstzrange", "timestamptz"), bounds(instants)),
    "textrange": (spanned("textrange", "text"), bounds(words)),
    "timerange": (spanned("timerange", "time"), bounds(st.times().map(str))),
    "moodrange": (spanned("moodrange", "mood"), bounds(st.just('so, "so"'))),
    "positiverange": (spanned("positiverange", "positive"), bounds(st.integers(1, 10**6))),
    "int4range[]": ("s::int4range[]", arrays(st.sampled_from(("empty", "[1,5)", "(,)", "[,7)")))),
    "datemultirange": (
        "s::datemultirange",
        st.sampled_from(("{}", "{[2020-01-01,2020-02-01),[2021-01-01,)}", "{(,)}")),
    ),
    "textmultirange": ("s::textmultirange", st.sampled_from(('{["a b",c]}', '{["\\"","\\\\"),[é,✓)}'))),
}


@pytest.fixture
async def stream(database: str) -> AsyncIterator[Connection]:
    """A connection as streams have it, beside types of all kinds."""
    connection = await connect(Target(database), purpose="test", settings=FORMS | {"search_path": "public"})
    try:
        await connection.execute(TYPES)
        await set_stream_codecs(connection)
        yield connection
    finally:
        connection.terminate()


async def streamed(connection: Connection, kind: str, made: str, given: list[Any]) -> list[tuple[Any, Any]]:
    """Values of a type, made of strings by SQL: as the stream has each, and as Postgres has it."""
    await connection.execute(f'DROP TABLE IF EXISTS t; CREATE TABLE t ("the value" {kind})')
    await connection.execute(f"INSERT INTO t SELECT {made} FROM unnest($1::text[]) AS s", [str(each) for each in given])
    return await table(connection)


async def selected(connection: Connection) -> Rows:
    """All of the table t."""
    relation = await connection.fetchval("SELECT 't'::regclass::oid")
    names = await connection.fetchval(
        "SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = 't'::regclass"
    )
    return await describe(connection, relation, names)


async def table(connection: Connection) -> list[tuple[Any, Any]]:
    rows = await selected(connection)
    found = await connection.fetch(f"SELECT {rows.selected}, to_jsonb(t.*)::text FROM t")
    return [(read(rows.encode(tuple(row)[:-1])), read(row[-1])) for row in found]


def read(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


@pytest.mark.parametrize("kind", CASES)
@given(data=st.data())
@settings(deadline=None, max_examples=8, suppress_health_check=list(HealthCheck))
async def test_every_value_is_what_to_jsonb_makes_of_it(stream: Connection, kind: str, data: st.DataObject) -> None:
    made, values = CASES[kind]
    for found, expected in await streamed(stream, kind, made, data.draw(st.lists(values, min_size=1, max_size=60))):
        assert found == expected


ODD = {
    "date": ["infinity", "-infinity", "0044-03-15 BC", "4714-11-24 BC", "0001-01-01", "10000-01-01", "5874897-12-31"],
    "timestamp": ["infinity", "-infinity", "0044-03-15 12:00:00.5 BC", "294276-12-31 23:59:59.999999", "0001-01-01"],
    "timestamptz": [
        "infinity",
        "-infinity",
        "0044-03-15 12:00:00.5Z BC",
        "294276-12-31 23:59:59.99Z",
        "2020-01-01 1:00+1",
    ],
    "time": ["24:00", "23:59:59.999999"],
    "timetz": ["24:00+01:30:15", "12:00-8", "12:00Z"],
    "interval": ["0", "1 year -1 day", "-0.5 s", "-1 mon 1 h -1 s", "1 day", "24 h", "178000000 years"],
    "float8": ["NaN", "inf", "-inf", "-0", "1e23", "9007199254740993", "5e-324", "1.7976931348623157e308"],
    "float4": ["NaN", "inf", "-inf", "-0", "0.1", "16777217", "1e-45", "3.4028235e38", "1e15"],
    "inet": ["::", "::1", "::1.2.3.4", "::ffff:1.2.3.4/100", "::ffff:0.0.0.0", "1::1:0:0:1", "0.0.0.0/0"],
    "json": ['{"a": 1, "a": 2}', "1e2", '"\\u00e9"'],
    "place": ["(,,,,)"],
    "tour": ['(,"{}",empty,)'],
}


@pytest.mark.parametrize("kind", ODD)
async def test_odd_values(stream: Connection, kind: str) -> None:
    infinite = ["infinity", "-infinity"] if kind == "interval" and stream.get_server_version().major >= 17 else []
    for found, expected in await streamed(stream, kind, f"s::{kind}", ODD[kind] + infinite):
        assert found == expected


async def test_every_known_type_comes_natively(stream: Connection) -> None:
    await stream.execute("CREATE TABLE t (" + ", ".join(f'"{kind} column" {kind}' for kind in CASES) + ")")
    assert "to_jsonb" not in (await selected(stream)).selected


@pytest.mark.parametrize(("kind", "least", "most"), [("float4", -149, 127), ("float8", -1074, 1023)])
async def test_powers_of_two_where_floats_lie_unevenly(stream: Connection, kind: str, least: int, most: int) -> None:
    powers = [math.ldexp(sign, power) for power in range(least, most + 1) for sign in (1.0, -1.0)]
    for found, expected in await streamed(stream, kind, f"s::float8::{kind}", powers):
        assert found == expected


OTHERS = {
    "money": ["1.50", "-2"],
    "point": ["(1,2)"],
    "oid": ["5"],
    "tsvector": ["a:1 b"],
    "int2vector": ["1 2"],
    '"char"': ["x"],
    "pg_lsn": ["0/16"],
    "floatrange": ["[1e23,)", "empty"],
    "pair": ['("(1,2)",3)'],
    "told": ["a"],
    "told[]": ["{a,NULL}"],
    "point[]": ['{"(1,2)"}'],
    "int4multirange[]": ['{"{[1,2),[5,6)}",NULL}'],
    "int4range[]": ['{"[1,2)",NULL}'],
}


@pytest.mark.parametrize("kind", OTHERS)
async def test_all_other_types_are_as_postgres_makes_them(stream: Connection, kind: str) -> None:
    for found, expected in await streamed(stream, kind, f"s::{kind}", OTHERS[kind]):
        assert found == expected


async def test_json_that_jsonb_cannot_hold_goes_out_as_it_is_and_in_one_line(stream: Connection) -> None:
    await stream.execute("CREATE TABLE t (a json)")
    await stream.execute("""INSERT INTO t VALUES ($1::text::json)""", '{"nul":\n"\\u0000",\r\n"half": "\\ud800"}')
    rows = await selected(stream)
    line = rows.encode(await stream.fetchrow(f"SELECT {rows.selected} FROM t"))
    assert line == b'{"a":{"nul": "\\u0000",  "half": "\\ud800"}}'


async def test_columns_may_have_any_name_may_have_gone_and_may_be_generated(stream: Connection) -> None:
    virtual = "VIRTUAL" if stream.get_server_version().major >= 18 else "STORED"
    await stream.execute(
        f"""
        CREATE TABLE t (gone int, t text, "a ""b"" c" int, "é\\" int[], made int GENERATED ALWAYS AS (7 * 6) {virtual});
        ALTER TABLE t DROP COLUMN gone;
        INSERT INTO t VALUES ('x', 1, '{{{{1,NULL}}}}')
        """
    )
    assert await table(stream) == [({"t": "x", 'a "b" c': 1, "é\\": [[1, None]], "made": 42},) * 2]


async def test_only_columns_that_are_asked_for_and_a_table_without_any(stream: Connection) -> None:
    await stream.execute("CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2)")
    relation = await stream.fetchval("SELECT 't'::regclass::oid")
    rows = await describe(stream, relation, ["b", "nowhere"])
    assert rows.encode(await stream.fetchrow(f"SELECT {rows.selected} FROM t")) == b'{"b":2}'
    await stream.execute("ALTER TABLE t DROP COLUMN a, DROP COLUMN b")
    rows = await selected(stream)
    assert [rows.encode(row) for row in await stream.fetch(f"SELECT {rows.selected} FROM t")] == [b"{}"]


async def test_types_of_others_go_out_as_text_as_they_do_in_events(stream: Connection, visitor: str) -> None:
    """Their owner might have made a cast to json, which would run with the hub's rights."""
    await stream.execute(
        f"""
        CREATE TYPE theirs AS (a int, b text); ALTER TYPE theirs OWNER TO {visitor};
        CREATE TABLE t (one theirs, many theirs[], none theirs, mood mood);
        INSERT INTO t VALUES (ROW(1, 'x y'), ARRAY[ROW(1, NULL)::theirs, NULL], NULL, 'sad')
        """
    )
    rows = await selected(stream)
    line = rows.encode(await stream.fetchrow(f"SELECT {rows.selected} FROM t"))
    await stream.execute("DROP TYPE theirs CASCADE")
    assert read(line) == {"one": '(1,"x y")', "many": ["(1,)", None], "none": None, "mood": "sad"}
