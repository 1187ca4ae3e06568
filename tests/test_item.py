"""Events as they are posted and loaded."""

from __future__ import annotations

import pytest

from hub import item, protocol
from hub.errors import Code, CommandError


def refused(data: bytes) -> tuple[Code, str | None]:
    with pytest.raises(CommandError) as caught:
        item.one(data)
    assert len(caught.value.message) < 400
    caught.value.message.encode()
    return caught.value.code, caught.value.field


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        (b"", "bad_request", None),
        (b"{", "bad_request", None),
        (b"null", "bad_request", None),
        (b"3", "bad_request", None),
        (b"\xff", "bad_request", None),
        (b'{"channel":"a"}', "bad_request", "payload"),
        (b'{"payload":1}', "bad_request", "channel"),
        (b'{"channel":1,"payload":1}', "bad_request", "channel"),
        (b'{"channel":"","payload":1}', "bad_channel", "channel"),
        (b'{"channel":"a*","payload":1}', "bad_channel", "channel"),
        (b'{"channel":"a\\u0000","payload":1}', "bad_channel", "channel"),
        (b'{"channel":"\\ud800","payload":1}', "bad_request", None),
        (b'{"channel":"hub_bell","payload":1}', "forbidden", "channel"),
        (b'{"channel":"$hub","payload":1}', "forbidden", "channel"),
        (b'{"channel":"a","payload":1,"extra":1}', "bad_request", "extra"),
        (b'{"channel":"a","payload":1,"durable":false}', "bad_request", "durable"),
        (b'{"channel":"a","payload":1,"tags":["a",1]}', "bad_request", "tags[1]"),
        (b'{"channel":"a","payload":1,"tags":"a"}', "bad_request", "tags"),
        (b'{"channel":"a","payload":1,"tags":["a"' + b',"a"' * 32 + b"]}", "bad_request", "tags"),
        (b'{"channel":"a","payload":1,"key":""}', "bad_request", "key"),
        (b'{"channel":"a","payload":"\xff"}', "bad_request", "payload"),
        (b'{"channel":"a","payload":"\\ud800"}', "bad_request", None),
        (b'{"channel":"a","payload":NaN}', "bad_request", None),
        (b'{"channel":"a","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "bad_request", None),
        (b'{"channel":"a","payload":' + b"[" * 1_500 + b"]" * 1_500 + b"}", "bad_request", None),
        (b'{"channel":"a","payload":"' + b"x" * protocol.MAX_PAYLOAD + b'"}', "too_large", "payload"),
    ],
)
def test_what_is_no_event_is_refused_by_its_field(data: bytes, code: str, field: str | None) -> None:
    assert refused(data) == (code, field)


def test_an_event_has_its_payload_as_it_came() -> None:
    found = item.one(b'{"channel":"a","payload":{"b": 1e3,\n"a":"\\u00e9"},"tags":["x"],"key":"k"}')
    assert (found.channel, found.text, found.tags, found.key) == ("a", '{"b": 1e3,\n"a":"\\u00e9"}', ["x"], "k")


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"[]", "bad_request"), (b"[" + b"1," * 1_000 + b"1]", "too_many"), (b"[1", "bad_request"), (b"1", "bad_request")],
)
def test_an_array_has_one_to_a_thousand(data: bytes, code: str) -> None:
    assert len(item.several(b"[" + b"1," * 999 + b"1]")) == 1_000
    with pytest.raises(CommandError) as caught:
        item.several(data)
    assert caught.value.code == code


def test_a_line_becomes_a_row_of_copy() -> None:
    line = b'{"channel":"a\\\\b","payload":{"t":"\\t\\\\",\t"n":1},"tags":["x\\"y","\\\\","\\n"]}\r'
    assert item.row(line) == b'a\\\\b\t{"t":"\\\\t\\\\\\\\",\\t"n":1}\t{"x\\\\"y","\\\\\\\\","\\n"}\n'
    assert item.row(b' [1, "a"]\r', "orders") == b'orders\t[1, "a"]\t{}\n'


@pytest.mark.parametrize("line", [b"", b"  ", b'{"channel":"a","payload":1,"key":"k"}', b'{"channel":"a"}', b"1 2"])
def test_a_line_that_is_none(line: bytes) -> None:
    with pytest.raises(CommandError):
        item.row(line)


@pytest.mark.parametrize("line", [b"", b"1 2", b"{", b'"\xff"', b"[" * 5_000])
def test_a_bare_payload_that_is_none(line: bytes) -> None:
    with pytest.raises(CommandError):
        item.row(line, "orders")
