"""The wire: commands in, messages out."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import protocol
from hub.cursor import Cursor
from hub.errors import Code, CommandError
from hub.snapshot import Snapshot


def read(text: str) -> protocol.Command | CommandError:
    try:
        return protocol.decode(text)
    except CommandError as refused:
        return refused


def refusal(text: str) -> CommandError:
    with pytest.raises(CommandError) as caught:
        protocol.decode(text)
    return caught.value


def test_a_subscribe_is_read() -> None:
    command = protocol.decode('{"type":"subscribe","id":2,"channels":["orders","b"]}')
    assert command == protocol.Subscribe(id=2, channels=["orders", "b"])


def test_a_published_payload_stays_as_it_was_sent() -> None:
    command = protocol.decode('{"type":"publish","id":5,"channel":"c","payload":{"n": 1.10},"durable":false}')
    assert isinstance(command, protocol.Publish)
    assert protocol.check_publish(command) == '{"n": 1.10}'


@pytest.mark.parametrize(
    ("text", "command_id", "word"),
    [
        ('{"type":"subscripe","id":3,"channels":["a"]}', 3, "subscripe"),
        ('{"type":"ping","id":1,"extra":true}', 1, "extra"),
        ('{"type":"subscribe","id":4}', 4, "channels"),
        ('{"type":"subscribe","id":4,"channels":"orders"}', 4, "channels"),
        ('{"type":"subscribe","id":4,"channels":[7]}', 4, "channels[0]"),
        ('{"type":"ping"}', None, "id"),
        ('{"type":"ping","id":0}', None, "id"),
        ('{"type":"ping","id":9007199254740992}', None, "id"),
        ('{"type":"ping","id":1.5}', None, "id"),
        ('{"id":6}', 6, "type"),
        ("[]", None, "object"),
        ("42", None, "object"),
        ("", None, "JSON"),
        ("{", None, "JSON"),
        ('{"type":"publish","id":5,"channel":"c","payload":}', None, "JSON"),
        ("[" * 100_000, None, ""),
    ],
)
def test_a_malformed_command_is_refused_by_id_and_field(text: str, command_id: int | None, word: str) -> None:
    refused = refusal(text)
    assert (refused.code, refused.command_id) == (Code.BAD_REQUEST, command_id)
    assert word in refused.message


@given(st.text())
def test_any_text_is_read_or_refused_and_the_refusal_can_be_sent(text: str) -> None:
    outcome = read(text)
    if isinstance(outcome, CommandError):
        assert orjson.loads(protocol.error(outcome))["code"] == "bad_request"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_read_or_refused(value: object) -> None:
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # an integer that orjson cannot write
        return
    outcome = read(text)
    assert not isinstance(outcome, CommandError) or outcome.message


def test_a_refusal_is_short_whatever_was_sent() -> None:
    assert len(refusal('{"type":"%s","id":1}' % ("x" * 100_000)).message) < 400


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ([], Code.BAD_REQUEST),
        (["a"] * 4, Code.TOO_MANY),
        (["ok", ""], Code.BAD_CHANNEL),
        (["ok", "x" * 64], Code.BAD_CHANNEL),
        (["ok", "a\0"], Code.BAD_CHANNEL),
        (["audit.*b"], Code.BAD_CHANNEL),
    ],
)
def test_channels_that_cannot_be_subscribed_to_are_refused(names: list[str], code: Code) -> None:
    with pytest.raises(CommandError) as caught:
        protocol.check_channels(names, most=3)
    assert caught.value.code == code


def test_the_offending_channels_are_listed() -> None:
    with pytest.raises(CommandError) as caught:
        protocol.check_channels(["ok", "", "a\0"], most=3)
    assert caught.value.channels == ("", "a\0")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tags": ["a"]}, Code.BAD_REQUEST),
        ({"key": "k"}, Code.BAD_REQUEST),
        ({"payload": "x" * 8000}, Code.TOO_LARGE),
    ],
)
def test_what_a_notify_cannot_carry_is_refused(fields: dict[str, object], code: Code) -> None:
    text = orjson.dumps({"type": "publish", "id": 1, "channel": "a", "payload": 1, "durable": False} | fields)
    command = protocol.decode(text.decode())
    assert isinstance(command, protocol.Publish)
    with pytest.raises(CommandError) as caught:
        protocol.check_publish(command)
    assert caught.value.code == code


def test_the_largest_payload_of_a_notify_is_accepted() -> None:
    text = '{"type":"publish","id":1,"channel":"a","durable":false,"payload":"%s"}' % ("x" * 7997)
    command = protocol.decode(text)
    assert isinstance(command, protocol.Publish)
    assert len(protocol.check_publish(command)) == 7999


def test_a_url_can_hold_the_first_subscribe() -> None:
    assert protocol.subscribe_from([("channel", "a"), ("channel", "b"), ("last", "5")]) == protocol.Subscribe(
        id=1, channels=["a", "b"], last=5
    )


@pytest.mark.parametrize(
    "query", [[("chanel", "a")], [("last", "x")], [("last", "0")], [("since", "a"), ("since", "b")]]
)
def test_a_url_with_anything_else_is_refused(query: list[tuple[str, str]]) -> None:
    with pytest.raises(CommandError):
        protocol.subscribe_from([("channel", "a"), *query])


@pytest.mark.parametrize("payload", ["x" * 786_431, "x" * 1_000_000])
def test_a_durable_payload_over_the_limit_is_refused(payload: str) -> None:
    command = protocol.decode(orjson.dumps({"type": "publish", "id": 1, "channel": "a", "payload": payload}).decode())
    assert isinstance(command, protocol.Publish)
    with pytest.raises(CommandError, match="786432 at the most"):
        protocol.check_publish(command)


@pytest.mark.parametrize("fields", [{"tags": ["t"] * 33}, {"key": ""}, {"key": "k" * 256}])
def test_tags_and_keys_are_bounded(fields: dict[str, object]) -> None:
    text = orjson.dumps({"type": "publish", "id": 1, "channel": "a", "payload": 1} | fields).decode()
    assert refusal(text).code == Code.BAD_REQUEST


def test_a_subscribe_goes_on_from_a_cursor_or_from_the_last_events_but_not_both() -> None:
    here = Cursor(1, Snapshot(5, 5))
    assert protocol.check_replay(protocol.Subscribe(id=1, channels=["a"], since=str(here))) == here
    assert protocol.check_replay(protocol.Subscribe(id=1, channels=["a"], last=5)) is None
    with pytest.raises(CommandError, match="exclude each other"):
        protocol.check_replay(protocol.Subscribe(id=1, channels=["a"], since=str(here), last=5))
    with pytest.raises(CommandError, match="none of this hub's"):
        protocol.check_replay(protocol.Subscribe(id=1, channels=["a"], since="nonsense"))
