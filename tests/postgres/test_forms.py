"""The forms of values, as far as they can be told without Postgres; tests/postgres/test_rows.py asks it."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import orjson
import pytest
from asyncpg import BitString, Range

from hub.postgres import forms
from hub.postgres.times import DECODERS


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("bool", True, b"true"),
        ("int8", 2**63 - 1, b"9223372036854775807"),
        ("float4", 0.10000000149011612, b"0.1"),
        ("float4", 1.262177448353619e-29, b"1.2621775e-29"),
        ("float8", 0.1, b"0.1"),
        ("float8", 1e23, b"9.999999999999999e+22"),
        ("float8", -0.0, b"0"),
        ("float8", float("nan"), b'"NaN"'),
        ("float4", -0.0, b"0"),
        ("float4", float("-inf"), b'"-Infinity"'),
        ("numeric", Decimal("1.500"), b"1.500"),
        ("numeric", Decimal("1E+20"), b"100000000000000000000"),
        ("numeric", Decimal("NaN"), b'"NaN"'),
        ("timestamp", datetime(2020, 1, 1, 12, 0, 0, 120_000), b'"2020-01-01T12:00:00.12"'),  # noqa: DTZ001
        ("timestamptz", datetime(2020, 1, 1, tzinfo=UTC), b'"2020-01-01T00:00:00+00:00"'),
        ("timetz", time(1, 2, tzinfo=timezone(timedelta(hours=-8, minutes=-30))), b'"01:02:00-08:30"'),
        ("bytea", b"\x00\xff", b'"\\\\x00ff"'),
        ("bit", BitString("1010 1"), b'"10101"'),
        ("varbit", BitString(""), b'""'),
        ("inet", ip_address("::1.2.3.4"), b'"::1.2.3.4"'),
        ("inet", ip_interface("::ffff:1.2.3.4/96"), b'"::ffff:1.2.3.4/96"'),
        ("cidr", ip_network("10.0.0.0/8"), b'"10.0.0.0/8"'),
    ],
)
def test_json_forms(name: str, value: Any, written: bytes) -> None:
    assert orjson.dumps(forms.JSON[name](value)) == written


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ((0, 0, 0), "PT0S"),
        ((14, -3, -3_723_500_000), "P1Y2M-3DT-1H-2M-3.5S"),
        ((-1, 0, 86_400_000_000), "P-1MT24H"),
        ((0, 0, -1), "PT-0.000001S"),
        ((2**31 - 1, 2**31 - 1, 2**63 - 1), "infinity"),
    ],
)
def test_intervals_keep_months_days_and_hours_apart(sent: tuple[int, int, int], text: str) -> None:
    assert DECODERS["interval"](sent) == text


@pytest.mark.parametrize(
    ("name", "sent", "native"),
    [
        ("timestamptz", (0,), datetime(2000, 1, 1, tzinfo=UTC)),
        ("timestamptz", (252_455_616_000_000_000,), "10000-01-01T00:00:00+00:00"),
        ("timestamp", (-(2**63),), "-infinity"),
        ("date", (-730_120,), "0001-12-31 BC"),
        ("time", (86_400_000_000,), "24:00:00"),
        ("timetz", (0, -5_415), time(tzinfo=timezone(timedelta(seconds=5_415)))),
    ],
)
def test_what_python_cannot_hold_is_text(name: str, sent: tuple[int, ...], native: Any) -> None:
    assert DECODERS[name](sent) == native


def test_ranges_quote_what_could_be_mistaken() -> None:
    written = forms.span(forms.same)
    assert written(Range("a", "b")) == "[a,b)"
    assert written(Range("", None)) == '["",)'
    assert written(Range('"\\', "a,b", upper_inc=True)) == '["""\\\\","a,b"]'
    assert written(Range(empty=True)) == "empty"
    assert forms.spans(str)([Range(1, 2), Range(3, None)]) == "{[1,2),[3,)}"


def test_bounds_are_in_their_text_form_and_not_in_that_of_json() -> None:
    assert forms.TEXT["timestamptz"](datetime(2020, 1, 1, 0, 0, 0, 500_000, UTC)) == "2020-01-01 00:00:00.5+00"
    assert forms.TEXT["timestamptz"]("0044-03-15T00:00:00+00:00 BC") == "0044-03-15 00:00:00+00 BC"
    assert (forms.TEXT["bool"](False), forms.TEXT["int4"](1)) == ("f", "1")


def test_arrays_are_as_deep_as_they_come() -> None:
    written = forms.array(forms.bytea)
    assert written([]) == []
    assert written([[b"a", None], [b"b", b""]]) == [["\\x61", None], ["\\x62", "\\x"]]
