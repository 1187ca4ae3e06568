"""Dates and times: from what Postgres sends, a whole number of days or microseconds, to what it writes.

On the way they are Python's where that is exact. Else (infinity, BC, years over 9999, 24:00:00, all intervals) they are
text at once, in their JSON form. Both are as under TimeZone UTC, DateStyle ISO and IntervalStyle iso_8601.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any, Final

_DATE: Final = date(2000, 1, 1)  # from which Postgres counts
_TIMESTAMP: Final = datetime(2000, 1, 1)  # noqa: DTZ001 - a timestamp has no zone
_TIMESTAMPTZ: Final = datetime(2000, 1, 1, tzinfo=UTC)
_DAY: Final = 86_400_000_000  # microseconds
_FIRST: Final = (date.min - _DATE).days
_LAST: Final = (date.max - _DATE).days
_CYCLE: Final = 146_097  # days in 400 years, after which the calendar repeats
_MOST: Final = {bits: ((1 << bits) - 1, -(1 << bits)) for bits in (31, 63)}
_INFINITE: Final = ("infinity", "-infinity")
_INFINITE_DATES: Final = dict(zip(_MOST[31], _INFINITE, strict=True))
_INFINITE_TIMES: Final = dict(zip(_MOST[63], _INFINITE, strict=True))
_INFINITE_INTERVALS: Final = dict(zip(zip(_MOST[31], _MOST[31], _MOST[63], strict=True), _INFINITE, strict=True))


# From what is sent


def _date(sent: tuple[int]) -> date | str:
    (days,) = sent
    if _FIRST <= days <= _LAST:
        return _DATE + timedelta(days)
    return _INFINITE_DATES.get(days) or "".join(_far(days))


def _timestamp(sent: tuple[int]) -> datetime | str:
    (moment,) = sent
    if _FIRST * _DAY <= moment < (_LAST + 1) * _DAY:
        return _TIMESTAMP + timedelta(0, 0, moment)
    return _INFINITE_TIMES.get(moment) or _far_time(moment, "")


def _timestamptz(sent: tuple[int]) -> datetime | str:
    (moment,) = sent
    if _FIRST * _DAY <= moment < (_LAST + 1) * _DAY:
        return _TIMESTAMPTZ + timedelta(0, 0, moment)
    return _INFINITE_TIMES.get(moment) or _far_time(moment, "+00:00")


def _time(sent: tuple[int]) -> time | str:
    (moment,) = sent
    return (_TIMESTAMP + timedelta(0, 0, moment)).time() if moment < _DAY else _clock(moment)


def _timetz(sent: tuple[int, int]) -> time | str:
    moment, west = sent
    of_day = _time((moment,))
    if isinstance(of_day, str):
        return of_day + _offset(-west)
    return of_day.replace(tzinfo=timezone(timedelta(seconds=-west)))


def _interval(sent: tuple[int, int, int]) -> str:
    """In ISO 8601, each part with a sign of its own, and none turned into another: a month is not 30 days."""
    months, days, moment = sent
    if (infinite := _INFINITE_INTERVALS.get(sent)) is not None:
        return infinite
    years, months = _parts(months, 12)
    minutes, moment = _parts(moment, 60_000_000)
    hours, minutes = _parts(minutes, 60)
    dates = _units((years, "Y"), (months, "M"), (days, "D"))
    times = _units((hours, "H"), (minutes, "M")) + (f"{_seconds(moment)}S" if moment else "")
    return f"P{dates}T{times}" if times else f"P{dates}" if dates else "PT0S"


DECODERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "date": _date,
    "timestamp": _timestamp,
    "timestamptz": _timestamptz,
    "time": _time,
    "timetz": _timetz,
    "interval": _interval,
}
"""By the types' names in pg_catalog, for asyncpg's `tuple` format."""


def _far_time(moment: int, zone: str) -> str:
    days, rest = divmod(moment, _DAY)
    text, era = _far(days)
    return f"{text}T{_clock(rest)}{zone}{era}"


def _far(days: int) -> tuple[str, str]:
    """A date of any year, and what goes behind it and its time."""
    cycles, rest = divmod(days - _FIRST, _CYCLE)
    near = date.fromordinal(rest + 1)
    year = near.year + 400 * cycles
    return f"{year if year > 0 else 1 - year:04d}{near.isoformat()[4:]}", "" if year > 0 else " BC"


def _clock(moment: int) -> str:
    minutes, moment = divmod(moment, 60_000_000)
    second = _seconds(moment)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{'0' if moment < 10_000_000 else ''}{second}"


def _seconds(moment: int) -> str:
    whole, fraction = divmod(abs(moment), 1_000_000)
    text = f"{whole}.{fraction:06d}".rstrip("0") if fraction else str(whole)
    return f"-{text}" if moment < 0 else text


def _offset(east: int) -> str:
    """A time zone that is `east` seconds ahead of UTC: whole hours alone, if that is all."""
    text = _clock(abs(east) * 1_000_000).removesuffix(":00").removesuffix(":00")
    return ("-" if east < 0 else "+") + text


def _parts(number: int, size: int) -> tuple[int, int]:
    """How often `size` is in `number`, and the rest, both with its sign."""
    sign = -1 if number < 0 else 1
    whole, rest = divmod(abs(number), size)
    return sign * whole, sign * rest


def _units(*parts: tuple[int, str]) -> str:
    return "".join(f"{number}{unit}" for number, unit in parts if number)


# To what is written


def of_date(value: date | str) -> str:
    return value if isinstance(value, str) else value.isoformat()


def of_timestamp(value: datetime | str) -> str:
    if isinstance(value, str):
        return value
    text = value.isoformat()
    return text.rstrip("0") if value.microsecond else text


def of_timestamptz(value: datetime | str) -> str:
    if isinstance(value, str):
        return value
    text = value.isoformat()
    return text[:26].rstrip("0") + text[26:] if value.microsecond else text


def of_time(value: time | str) -> str:
    if isinstance(value, str):
        return value
    text = value.isoformat()
    return text.rstrip("0") if value.microsecond else text


def of_timetz(value: time | str) -> str:
    if isinstance(value, str):
        return value
    east = value.utcoffset() or timedelta(0)
    return of_time(value.replace(tzinfo=None)) + _offset(round(east.total_seconds()))


def of_timestamp_in_text(value: datetime | str) -> str:
    return of_timestamp(value).replace("T", " ")


def of_timestamptz_in_text(value: datetime | str) -> str:
    return of_timestamptz(value).replace("T", " ").replace("+00:00", "+00")
