"""Logs: JSON for machines, lines for people, by level; libraries' too."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
from collections.abc import Iterator

import asyncpg
import pytest
import structlog

from hub import logs


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Configuring logs is for the whole process; the next test finds it as this one did."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.getLogger("asyncpg.pool").setLevel(logging.NOTSET)
    logging.getLogger("asyncio").filters.clear()
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_than_on_a_terminal_each_event_is_a_line_of_json() -> None:
    stream = io.StringIO()
    logs.configure("info", stream)
    structlog.get_logger().info("serving", url="http://x")
    logging.getLogger("some.package").warning("odd: %s", "thing")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["url"], first["level"]) == ("serving", "http://x", "info")
    assert (second["event"], second["level"]) == ("odd: thing", "warning")
    assert first["timestamp"].endswith("Z")


def test_on_a_terminal_it_is_for_people() -> None:
    stream = Terminal()
    logs.configure("info", stream)
    structlog.get_logger().info("serving", url="http://x")
    assert "serving" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_on_a_terminal_a_traceback_shows_no_local_variable() -> None:
    stream = Terminal()
    logs.configure("info", stream)
    hidden = "".join(["hunter", "2"])
    try:
        raise ValueError("on purpose")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "on purpose" in stream.getvalue()
    assert hidden not in stream.getvalue()


def test_what_is_below_the_level_is_left_out() -> None:
    stream = io.StringIO()
    logs.configure("warning", stream)
    structlog.get_logger().info("not this")
    structlog.get_logger().error("this")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["this"]


async def test_a_future_that_nobody_asked_is_told_but_for_one_that_nobody_can_ask() -> None:
    stream = io.StringIO()
    logs.configure("info", stream)
    for error in (ValueError("lost"), asyncpg.ConnectionDoesNotExistError("gone")):
        asyncio.get_running_loop().create_future().set_exception(error)
        gc.collect()
    (line,) = stream.getvalue().splitlines()
    assert "lost" in json.loads(line)["exception"]


def test_loggers_can_have_levels_of_their_own() -> None:
    stream = io.StringIO()
    logs.configure("warning", stream, {"hub.postgres": "debug"})
    for name in ("hub.postgres.tail", "hub.web.app"):
        structlog.get_logger(name).debug("looked")
        logging.getLogger(name).debug("of %s", name)
    logging.getLogger("hub.postgres").setLevel(logging.NOTSET)
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["looked", "of hub.postgres.tail"]


def test_an_exception_is_one_line_with_its_traceback_inside() -> None:
    stream = io.StringIO()
    logs.configure("info", stream)
    try:
        raise ValueError("on purpose")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "on purpose" in json.loads(line)["exception"]
