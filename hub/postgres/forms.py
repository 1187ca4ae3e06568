"""What Postgres writes for a value, made from the value as Python has it.

JSON forms are those of to_jsonb and are ready for orjson; text forms those of a cast to text, which ranges are made of.
Both are as under the settings of hub/postgres/watched.py: floats in their shortest digits, bytes in hexadecimal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address, IPv6Interface, IPv6Network
from typing import Any, Final, TypeAlias

import orjson

from hub.postgres import times

Form: TypeAlias = Callable[[Any], Any]

_EXACT: Final = 2.0**53  # below it no shortest digits of a float lie in the very middle between two floats
_NORMAL: Final = -125  # exponents of floats of 32 bits that have all their digits
_IPV4: Final = (b"\0\0\0\0", b"\0\0\xff\xff")  # what stands before an IPv4 address inside an IPv6 one
_TO_QUOTE: Final = re.compile(r'[ \t\n\v\f\r"\\()\[\],]')
_DOUBLED: Final = re.compile(r'(["\\])')


def same(value: Any) -> Any:
    """The form of what orjson writes as Postgres does."""
    return value


def float8(value: float) -> object:
    if -_EXACT < value < _EXACT:
        return value or 0  # jsonb has no negative zero
    return orjson.Fragment(_shortest(value)) if math.isfinite(value) else _not_finite(value)


def _shortest(value: float) -> str:
    """The shortest digits that are nearer to `value`, which is 2^53 or more, than to any other float.

    Python's may lie in the middle between two floats, if reading them gives the right one; Postgres's never do.
    """
    size = abs(value)
    lower = Fraction(size) - Fraction(math.ulp(math.nextafter(size, 0))) / 2
    upper = Fraction(size) + Fraction(math.ulp(size)) / 2
    candidates = (repr(value), *(f"{value:.{digits}e}" for digits in range(17)))
    return next(text for text in candidates if lower < abs(Fraction(text)) < upper)


def float4(value: float) -> object:
    """The shortest digits that stand for this float of 32 bits, as a float of 64 whose digits they are."""
    if not math.isfinite(value):
        return _not_finite(value)
    size = abs(value)
    fraction, exponent = math.frexp(size)
    normal = exponent > _NORMAL
    gap = math.ldexp(0.5, max(exponent, _NORMAL) - 24)
    at_power = normal and fraction == 0.5  # where the floats below lie twice as close as those above
    lower, upper = size - (gap / 2 if at_power else gap), size + gap
    for digits in range(6 if normal else 1, 10):
        near = float(f"{size:.{digits}g}")
        if at_power and near <= lower:
            near = float(Context(digits, ROUND_CEILING).create_decimal_from_float(size))
        if lower < near < upper:
            return math.copysign(near, value) or 0  # as in float8
    return 0


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def numeric(value: Decimal) -> object:
    text = numeric_in_text(value)
    return orjson.Fragment(text) if value.is_finite() else text


def numeric_in_text(value: Decimal) -> str:
    return f"{value:f}"


def bool_in_text(value: bool) -> str:
    return "t" if value else "f"


def bytea(value: bytes) -> str:
    return "\\x" + value.hex()


def bits(value: Any) -> str:
    """Of an asyncpg.BitString, whose own text is in groups."""
    length = len(value)
    return f"{value.to_int():0{length}b}" if length else ""


def network(value: Any) -> str:
    """Of inet and cidr. Whether it has a netmask is right as asyncpg gives it; how IPv6 is written is not."""
    match value:
        case IPv6Network():
            return f"{_ipv6(value.network_address)}/{value.prefixlen}"
        case IPv6Interface():
            return f"{_ipv6(value.ip)}/{value.network.prefixlen}"
        case IPv6Address():
            return _ipv6(value)
        case _:
            return str(value)


def _ipv6(address: IPv6Address) -> str:
    head, tail = address.packed[8:12], address.packed[12:]
    if any(address.packed[:8]) or head not in _IPV4 or (head == _IPV4[0] and not any(tail[:2])):
        return str(address)
    return f"::{'ffff:' if head == _IPV4[1] else ''}{IPv4Address(tail)}"


# What is made of others


def array(form: Form) -> Form:
    """Of lists in lists, one for each dimension. No value of `form` may be a list itself."""
    if form is same:
        return same

    def of(values: list[Any]) -> list[Any]:
        return [of(value) if value.__class__ is list else None if value is None else form(value) for value in values]

    return of


def composite(fields: Mapping[str, Form]) -> Form:
    """Of records with values in the order of `fields`."""
    parts = tuple(fields.items())

    def of(record: Iterable[Any]) -> dict[str, Any]:
        return {
            name: value if value is None else form(value) for (name, form), value in zip(parts, record, strict=True)
        }

    return of


def span(bound: Form) -> Form:
    """Of ranges whose bounds have the text form `bound`."""

    def of(value: Any) -> str:
        if value.isempty:
            return "empty"
        lower = "" if value.lower is None else _quoted(bound(value.lower))
        upper = "" if value.upper is None else _quoted(bound(value.upper))
        return f"{'[' if value.lower_inc else '('}{lower},{upper}{']' if value.upper_inc else ')'}"

    return of


def spans(bound: Form) -> Form:
    """Of multiranges."""
    one = span(bound)

    def of(values: Iterable[Any]) -> str:
        return "{" + ",".join(map(one, values)) + "}"

    return of


def _quoted(text: str) -> str:
    return '"' + _DOUBLED.sub(r"\1\1", text) + '"' if not text or _TO_QUOTE.search(text) else text


_IN_BOTH: Final[Mapping[str, Form]] = {
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "interval"), same),
    "uuid": str,
    "date": times.of_date,
    "time": times.of_time,
    "timetz": times.of_timetz,
    "bytea": bytea,
    "bit": bits,
    "varbit": bits,
    "inet": network,
    "cidr": network,
}
JSON: Final[Mapping[str, Form]] = {
    **_IN_BOTH,
    **dict.fromkeys(("bool", "int2", "int4", "int8", "json", "jsonb"), same),
    "float4": float4,
    "float8": float8,
    "numeric": numeric,
    "timestamp": times.of_timestamp,
    "timestamptz": times.of_timestamptz,
}
"""The JSON form of each base type that is known, by its name in pg_catalog."""
TEXT: Final[Mapping[str, Form]] = {
    **_IN_BOTH,
    **dict.fromkeys(("int2", "int4", "int8"), str),
    "bool": bool_in_text,
    "numeric": numeric_in_text,
    "timestamp": times.of_timestamp_in_text,
    "timestamptz": times.of_timestamptz_in_text,
}
"""The text form of those that may bound a range."""
