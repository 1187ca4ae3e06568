"""Values of every type, through a whole hub and back into Postgres: what comes back is what was there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hub.postgres import binaries
from tests.clusters import Cluster
from tests.conftest import Hub, running
from tests.e2e.journey import Journey, text
from tests.e2e.test_watched import connected
from tests.postgres.test_rows import CASES, ODD, TYPES, arrays, floats4, words

# Not those of the hub: what is told of a watched table must not depend on who writes.
STYLE = {"timezone": "<+0530>-5:30", "datestyle": "German", "bytea_output": "escape", "intervalstyle": "postgres"}

coordinates = st.integers(-(10**6), 10**6) | st.floats(-1e300, 1e300) | st.sampled_from(("NaN", "Infinity"))
points = st.builds("({},{})".format, coordinates, coordinates)
hexadecimal = st.integers(0, 2**64 - 1).map("{:016x}".format)
lexemes = st.text("abé', \\", min_size=1, max_size=5).map(lambda word: word.replace("\\", "\\\\").replace("'", "''"))
documents = st.dictionaries(words, st.integers() | words | st.none(), max_size=3) | st.integers() | words
ends = st.lists(st.integers(-(2**31), 2**31 - 2), max_size=8, unique=True).map(sorted)
multiranges = ends.map(lambda ends: "{" + ",".join(map("[{},{})".format, ends[::2], ends[1::2])) + "}")
months = st.integers(1, 12).map(
    "{{[2020-{0:02d}-01 1:00+1,2020-{0:02d}-02 0:00:00.000001Z],(9999-12-31,infinity)}}".format
)

LEAST = f"{-(2**63)} microseconds"  # what Postgres writes of it, Postgres reads back in ISO 8601 only
MORE: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "regclass": ("s::regclass", st.sampled_from(("t", "pg_class", "hub.events"))),
    "money": ("s::numeric::money", st.decimals(-(10**16), 10**16, places=2)),
    "oid": ("s::oid", st.integers(0, 2**32 - 1)),
    "xid8": ("s::xid8", st.integers(0, 2**64 - 1)),
    "pg_lsn": ("s::pg_lsn", hexadecimal.map(lambda digits: f"{digits[:8]}/{digits[8:]}")),
    "jsonb[]": ("s::jsonb[]", arrays(documents.map(json.dumps))),
    "float8[]": ("s::float8[]", arrays(st.floats().filter(bool))),
    "float4[]": ("s::float4[]", arrays(floats4.filter(bool))),
    '"char"': ('s::"char"', st.sampled_from('aZ"\\')),
    "macaddr": ("s::macaddr", hexadecimal.map(lambda digits: digits[:12])),
    "macaddr8": ("s::macaddr8", hexadecimal),
    "bytea[]": ("s::bytea[]", arrays(st.binary(max_size=5).map(lambda data: "\\x" + data.hex()))),
    "uuid[]": ("s::uuid[]", arrays(st.uuids())),
    "inet[]": ("s::inet[]", arrays(st.ip_addresses())),
    "varbit[]": ("s::varbit[]", arrays(st.text("01", max_size=9))),
    "tsvector": (
        "s::tsvector",
        st.lists(lexemes, max_size=4).map(lambda found: " ".join(f"'{one}':3A" for one in found)),
    ),
    "tsquery": ("s::tsquery", lexemes.map("!'{0}' <-> 'b':*".format)),
    "jsonpath": ("s::jsonpath", st.sampled_from(('$."a b"[*] ? (@ > 1)', "strict $.a.size()"))),
    "date[]": ("s::date[]", arrays(st.dates() | st.just("infinity"))),
    "time[]": ("s::time[]", arrays(st.times())),
    "interval[]": ("s::interval[]", arrays(st.integers(-(10**13), 10**13).map("-1 month {} microseconds".format))),
    "interval": ("s::interval", CASES["interval"][1].filter(lambda made: not made.endswith(LEAST))),
    "bool[]": ("s::bool[]", arrays(st.booleans())),
    "mood[]": ("s::mood[]", arrays(st.sampled_from(("sad", 'so, "so"')))),
    "place[]": ("s::place[]", arrays(st.sampled_from(('("a ""b"", c",infinity,"{NULL,x}",sad,1.50)', "(,,,,)")))),
    "pair": ("ROW(s::point, 7)::pair", points),
    "point": ("s::point", points),
    "line": ("s::line", st.integers(-9, 9).map("{{1,{},0.1}}".format)),
    "lseg": ("s::lseg", st.builds("[{},{}]".format, points, points)),
    "box": ("s::box", st.builds("{},{}".format, points, points)),
    "path": ("s::path", st.lists(points, min_size=1, max_size=4).map(lambda found: f"[{','.join(found)}]")),
    "polygon": ("s::polygon", st.lists(points, min_size=1, max_size=4).map(lambda found: f"({','.join(found)})")),
    "circle": ("s::circle", points.map("<{},0.1>".format)),
    "int4multirange": ("s::int4multirange", multiranges),
    "nummultirange": ("s::nummultirange", multiranges.map(lambda text: text.replace(")", ".50)"))),
    "tstzmultirange": ("s::tstzmultirange", months),
    "datemultirange[]": ("s::datemultirange[]", arrays(st.just("{[2020-01-01,infinity),[infinity,]}"))),
    "floatrange": ("floatrange(s::float8, NULL)", st.floats(allow_nan=False)),
    "timetz[]": ("s::timetz[]", arrays(st.times().map(lambda at: f"{at}-08:30:15"))),
}

ALL = CASES | MORE
NUMBERS = ("int2", "int4", "int8", "float4", "float8", "numeric", "numeric(20, 6)", "positive", "money", "oid")
FAMILIES = {
    "numbers": ("bool", *NUMBERS, "xid8", "pg_lsn"),
    "times": ("date", "timestamp", "timestamptz", "time", "timetz", "interval"),
    "shapes": ("point", "line", "lseg", "box", "path", "polygon", "circle", "pair"),
    "arrays": tuple(kind for kind in ALL if kind.endswith("[]") or kind == "moods"),
    "ranges": tuple(kind for kind in ALL if kind.endswith("range")),
}
PLACED = {kind for family in FAMILIES.values() for kind in family}
FAMILIES["texts"] = tuple(kind for kind in ALL if kind not in PLACED)

# Beside those of tests/postgres/test_rows.py; the numeric is the largest that Postgres has.
EXTREMES = ODD | {
    "numeric": ["NaN", "Infinity", "-Infinity", "0.00", "-1.50", "1e-16383", "-" + "9" * 131_072 + "." + "9" * 16_383],
    "int8": ["9223372036854775807", "-9223372036854775808", "9007199254740993"],
    "money": ["92233720368547758.07", "-92233720368547758.08"],
    "point": ["(-0,NaN)", "(Infinity,5e-324)"],
    "text": ["", " ", "null", "\u2028\x01\x7f\r\n", '"\\/', "\U0010ffff"],
    "bytea": ["", "\\x00ff"],
    "jsonb": ["1e400", "-1.50", '{"\\u2028": [[], {}, ""]}', '"\\ud83d\\ude00"'],
    "text[]": ["{}", '{NULL,"NULL",""}', "{{{a,b},{c,NULL}}}", '{"\\"{},"}'],
    "tstzrange": ["empty", "(,)", "[-infinity,infinity]", "(,0044-03-15 12:00Z BC]", "[10000-01-01Z,294276-12-31Z)"],
    "nummultirange": ["{}", "{(,-1.50),[0,0.0],(9e99,]}", "{[NaN,NaN]}"],
}
LOST = {
    "int4[]": ("[0:1]={1,2}", "{1,2}"),
    "float4": ("-0", "0"),
    "float8": ("-0", "0"),
    "jsonb": ("null", None),
    "jsonb[]": ('{1,"null"}', "{1,NULL}"),
}
# What README says of each type: a value as SQL writes it, and what goes out.
STATED = {
    "bool": [("yes", "true")],
    "int8": [("9223372036854775807", "9223372036854775807")],
    "numeric": [("1.500", "1.500"), ("NaN", '"NaN"'), ("-Infinity", '"-Infinity"')],
    "float4": [("0.1", "0.1"), ("-0", "0"), ("nan", '"NaN"')],
    "float8": [("0.1", "0.1"), ("1e23", "9.999999999999999e+22"), ("inf", '"Infinity"'), ("-0", "0")],
    "money": [("-1234.5", '"-$1,234.50"')],
    "oid": [("42", '"42"')],
    "pg_lsn": [("16/b374d848", '"16/B374D848"')],
    "regclass": [("t", '"public.t"')],
    "text": [("é", '"é"')],
    "char(3)": [("a", '"a  "')],
    "mood": [("happy", '"happy"')],
    "uuid": [("{A0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}", '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"')],
    "bytea": [(r"\xDEADBEEF", r'"\\xdeadbeef"')],
    "varbit": [("0101", '"0101"')],
    "date": [("2026-11-22", '"2026-11-22"'), ("0044-03-15 BC", '"0044-03-15 BC"'), ("infinity", '"infinity"')],
    "time": [("12:00:00.500", '"12:00:00.5"'), ("24:00", '"24:00:00"')],
    "timetz": [("12:00-08:30", '"12:00:00-08:30"')],
    "timestamp": [("2026-11-22 09:00:00.123456", '"2026-11-22T09:00:00.123456"')],
    "timestamptz": [
        ("2026-11-22 14:30:00.123450+05:30", '"2026-11-22T09:00:00.12345+00:00"'),
        ("0044-03-15 12:00Z BC", '"0044-03-15T12:00:00+00:00 BC"'),
        ("12345-01-01Z", '"12345-01-01T00:00:00+00:00"'),
        ("-infinity", '"-infinity"'),
    ],
    "interval": [
        ("1 year 2 months -3 days 04:05:06.7", '"P1Y2M-3DT4H5M6.7S"'),
        ("0", '"PT0S"'),
        (LEAST, '"PT-2562047788H-54.775808S"'),
    ],
    "inet": [("10.0.0.1/8", '"10.0.0.1/8"'), ("10.0.0.1", '"10.0.0.1"')],
    "json": [('{"a": 1.50,\r\n"a": 2}', '{"a": 1.50,  "a": 2}')],
    "jsonb": [('{"b": 1.50, "a": 2}', '{"a": 2, "b": 1.50}')],
    "int4[]": [("{{1,NULL},{3,4}}", "[[1,null],[3,4]]"), ("[0:1]={1,2}", "[1,2]"), ("{}", "[]")],
    "pair": [('("(1,2)",3)', '{"point": "(1,2)", "number": 3}')],
    "tstzrange": [("[2026-11-22Z,)", r'"[\"2026-11-22 00:00:00+00\",)"'), ("empty", '"empty"')],
    "int4multirange": [("{[1,3],[7,9)}", '"{[1,4),[7,9)}"')],
    "tsvector": [("b:2 a:1", '"' + "'a':1 'b':2" + '"')],
}
TOLD = {"float8": {"9.999999999999999e+22": "99999999999999990000000"}, "json": {'{"a": 1.50,  "a": 2}': '{"a": 2}'}}


@asynccontextmanager
async def begun(hub: Hub, kinds: Sequence[str]) -> AsyncIterator[Journey]:
    async with connected(hub.dsn, **STYLE) as owner, aiohttp.ClientSession() as http:
        journey = Journey(hub.url, http, owner, kinds)
        await owner.execute(TYPES)
        await journey.begin()
        yield journey


@pytest.fixture
async def journey(hub: Hub, request: pytest.FixtureRequest) -> AsyncIterator[Journey]:
    async with begun(hub, request.param) as journey:
        yield journey


@pytest.mark.parametrize(
    ("journey", "kinds"), [(kinds,) * 2 for kinds in FAMILIES.values()], ids=FAMILIES, indirect=["journey"]
)
@given(data=st.data())
@settings(deadline=None, max_examples=6, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
async def test_every_value_comes_back_from_every_format(
    journey: Journey, kinds: Sequence[str], data: st.DataObject
) -> None:
    values = {kind: data.draw(st.lists(ALL[kind][1] | st.none(), min_size=1, max_size=25)) for kind in kinds}
    await journey.fill(values, {kind: ALL[kind][0] for kind in kinds})
    await all_come_back(journey)


@pytest.mark.parametrize("journey", [tuple(EXTREMES)], indirect=True, ids=["all"])
async def test_so_do_the_odd_ones(journey: Journey) -> None:
    await journey.fill(EXTREMES, as_they_are(EXTREMES))
    await all_come_back(journey)


async def test_so_does_xml(data_dir: Path) -> None:
    """The Postgres that comes along was built without it, so this is one of the system's."""
    cluster = Cluster(data_dir, major=with_xml())
    try:
        await cluster.start()
        async with running(cluster.dsn) as hub, begun(hub, ["xml"]) as journey:
            await journey.fill({"xml": ['<a b="1">\n&lt;"é"</a>', "text", None]}, as_they_are(["xml"]))
            await all_come_back(journey)
    finally:
        await cluster.stop()


def with_xml() -> int:
    """The version of a Postgres that knows xml."""
    for each in binaries.installed():
        config = each.program("pg_config")
        if config and "--with-libxml" in subprocess.check_output([config, "--configure"], text=True):
            return each.major
    pytest.skip("no Postgres here was built with libxml (Debian: apt-get install postgresql)")


async def all_come_back(journey: Journey) -> None:
    found = await journey.rows()
    for way, rows in found.items():
        assert await journey.changed(rows) == [], way
    assert parsed(found["the table"]) == parsed(found["t, a page"])


def as_they_are(kinds: Iterable[str]) -> dict[str, str]:
    return {kind: f"s::{kind}" for kind in kinds}


def parsed(rows: str) -> dict[int, Any]:
    return {row["row"]: row for row in json.loads(rows, parse_float=Decimal, parse_int=Decimal)}


@pytest.mark.parametrize("journey", [tuple(LOST)], indirect=True, ids=["all"])
async def test_what_json_has_no_word_for_does_not_come_back(journey: Journey) -> None:
    await journey.fill({kind: [value] for kind, (value, _) in LOST.items()}, as_they_are(LOST))
    for rows in (await journey.rows()).values():
        assert {kind: (kept, came) for kind, kept, came in await journey.changed(rows, text)} == LOST


@pytest.mark.parametrize("journey", [tuple(STATED)], indirect=True, ids=["all"])
async def test_each_type_goes_out_as_readme_says(journey: Journey) -> None:
    await journey.fill({kind: [value for value, _ in pairs] for kind, pairs in STATED.items()}, as_they_are(STATED))
    found = await journey.rows()
    for way in ("the table", "the table, lines", "t, a page", "t, lines", "t, CSV"):
        written = await journey.written(found[way])
        for kind, pairs in STATED.items():
            told = TOLD.get(kind, {}) if way.startswith("t,") else {}
            assert [bare(told.get(each, each)) for _, each in pairs] == list(map(bare, written[kind]))[: len(pairs)]


def bare(text: str) -> str:
    """JSON without the spaces that jsonb puts behind commas and colons."""
    return text.replace(", ", ",").replace(": ", ":")


@pytest.mark.parametrize("journey", [("timestamptz", "interval", "bytea", "daterange")], indirect=True, ids=["all"])
async def test_what_is_published_by_to_jsonb_has_the_forms_of_its_session(journey: Journey) -> None:
    values = {"timestamptz": "2026-11-22Z", "interval": "1 month", "bytea": "a\\000", "daterange": "[2026-11-22,)"}
    await journey.fill({kind: [value] for kind, value in values.items()}, as_they_are(values))
    written = await journey.written((await journey.rows())["p, a page"])
    assert written == {
        "row": ["1"],
        "timestamptz": ['"2026-11-22T05:30:00+05:30"'],
        "interval": ['"1 mon"'],
        "bytea": [r'"a\\000"'],
        "daterange": ['"[22.11.2026,)"'],
    }
