"""Events as they stand on the wire."""

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import event

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize("payload", ['{"a": 1}', "[1,  2]", "0.10", '"text"', "null", ' {"b":1,"b":2} '])
def test_json_goes_through_byte_for_byte(payload: str) -> None:
    assert event.as_json(payload) == payload.encode()


@pytest.mark.parametrize("payload", ["", "hello", "{", "NaN", "1e400000", "01", "'a'", '"\\ud800"', "\x00", "[" * 2000])
def test_anything_else_becomes_a_json_string(payload: str) -> None:
    assert orjson.loads(event.as_json(payload)) == payload


def test_an_ephemeral_event_has_all_its_fields() -> None:
    made = event.ephemeral("orders", '{"id":1}', NOON)
    assert orjson.loads(made.json) == {
        "channel": "orders",
        "id": None,
        "at": "2026-11-22T12:00:00.123456Z",
        "payload": {"id": 1},
        "tags": [],
    }
    assert made.ephemeral


@given(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1),
    st.text(st.characters(exclude_categories=("Cs",))),
)
def test_any_channel_and_payload_make_json(channel: str, payload: str) -> None:
    made = orjson.loads(event.ephemeral(channel, payload, NOON).json)
    assert made["channel"] == channel
