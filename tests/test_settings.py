"""What a setting is taken for, and which are refused."""

from __future__ import annotations

import pytest

from hub.errors import SetupError
from hub.settings import Settings


@pytest.mark.parametrize(
    ("text", "size"), [("any", None), ("1KB", 1 << 10), ("500MB", 500 << 20), ("10GB", 10 << 30), ("2TB", 2 << 40)]
)
def test_a_size_is_a_number_with_its_unit(text: str, size: int | None) -> None:
    assert Settings(retention_size=text).retention_bytes == size


@pytest.mark.parametrize("text", ["", "0GB", "-1GB", "10", "10 GB", "10gb", "1.5GB", "9999999GB", "GB", "٣GB"])
def test_what_is_no_size_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(SetupError, match=r"HUB_RETENTION_SIZE is .*10GB"):
        Settings(retention_size=text)


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("500", 0.5), ("500ms", 0.5), ("2s", 2.0)])
def test_a_slow_query_is_so_many_milliseconds_or_seconds(text: str, seconds: float) -> None:
    assert Settings(slow_query=text).slow_seconds == seconds


@pytest.mark.parametrize("text", ["", "-1", "0.5s", "1m", "٣s"])
def test_what_is_no_duration_of_a_query_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(SetupError, match=r"HUB_SLOW_QUERY is .*500ms"):
        Settings(slow_query=text)


def test_loggers_have_levels_by_name() -> None:
    levels = Settings(log_levels="hub.postgres=debug, asyncpg=error").levels
    assert levels == {"hub.postgres": "debug", "asyncpg": "error"}


@pytest.mark.parametrize("text", ["hub", "hub=loud", "=debug"])
def test_what_is_no_level_by_name_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(SetupError, match=r"HUB_LOG_LEVELS has .*asyncpg=error"):
        Settings(log_levels=text)
