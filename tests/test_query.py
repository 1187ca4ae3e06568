"""What is asked of the log, from parameters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hub.errors import Code, CommandError
from hub.query import Query, parse

NAMES = some.sampled_from(["channel", "tag", "since", "until", "from", "to", "last", "limit", "other"])


def test_nothing_asks_for_all() -> None:
    assert Query() == parse([], limit=10)


@given(some.lists(some.tuples(NAMES, some.text(some.characters(exclude_categories=())) | some.integers().map(str))))
def test_whatever_it_is_it_is_a_query_or_refused_in_a_sentence(parameters: list[tuple[str, str]]) -> None:
    found: Query | CommandError
    try:
        found = parse(parameters, limit=10)
    except CommandError as refusal:
        found = refusal
    if isinstance(found, CommandError):
        assert found.code in (Code.BAD_REQUEST, Code.BAD_CHANNEL, Code.FORBIDDEN)
        assert found.field in dict(parameters)
    else:
        assert found.limit is None or 1 <= found.limit <= 10


def test_a_time_without_a_zone_is_utc() -> None:
    expected = datetime(2026, 11, 22, 9, tzinfo=UTC)
    for text in ("2026-11-22T09:00:00Z", "2026-11-22 09:00", "20261122T100000+0100"):
        assert expected == parse([("from", text)], limit=1).begin
    assert expected - timedelta(hours=9) == parse([("to", "2026-11-22")], limit=1).end


@pytest.mark.parametrize(("name", "most"), [("channel", 1_000), ("tag", 32)])
def test_neither_channels_nor_tags_are_without_number(name: str, most: int) -> None:
    parse([(name, "a")] * most, limit=1)
    with pytest.raises(CommandError) as caught:
        parse([(name, "a")] * (most + 1), limit=1)
    assert (caught.value.code, caught.value.field) == (Code.BAD_REQUEST, name)
