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
