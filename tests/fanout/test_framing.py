"""The framings: what they make is read back by parsers that are not ours, and one is what DESIGN says of it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from hub.errors import STALLED
from hub.fanout import frames
from hub.fanout.framing import DEFLATED, SERVER_SENT, WEBSOCKET
from tests.web.events import Received

LINES = st.text(st.sampled_from("a:\n\r \u2028\x0b"), min_size=1).filter(lambda text: text[-1] not in "\r\n")


@given(st.lists(st.tuples(LINES, st.none() | st.text("abc-_", min_size=1))), st.integers(1, 7))
def test_server_sent_messages_are_read_back_with_their_ids_however_they_arrive(
    sent: list[tuple[str, str | None]], size: int
) -> None:
    received, known, expected = Received(), "", []
    data = b"".join(SERVER_SENT.own(message.encode(), cursor) for message, cursor in sent)
    for start in range(0, len(data), size):
        received.feed(data[start : start + size])
    for message, cursor in sent:
        known = cursor or known
        expected.append((re.sub("\r\n|\r", "\n", message), known))
    assert received.messages == expected


def test_server_sent_signs_of_life_move_the_id_and_are_no_messages() -> None:
    received = Received()
    received.feed(SERVER_SENT.confirmed(b"{}", "a"))
    assert received.id == "a"
    received.feed(SERVER_SENT.sign(None))
    assert (received.id, received.comments) == ("a", 1)
    received.feed(SERVER_SENT.sign("b"))
    assert received == Received(id="b", ids=2, comments=1, _next="b")


def test_server_sent_events_have_no_ping_and_no_goodbye() -> None:
    assert SERVER_SENT.ping == SERVER_SENT.goodbye(STALLED) == b""


def test_only_what_many_get_is_deflated() -> None:
    message = b"x" * 1_000
    assert WEBSOCKET.shared(message, "a") == WEBSOCKET.own(message, "a") == frames.text(message)
    assert DEFLATED.shared(message, "a") == frames.deflated(message)
    assert DEFLATED.own(message, "a") == DEFLATED.confirmed(message, "a") == frames.text(message)
