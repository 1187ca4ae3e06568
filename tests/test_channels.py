"""Channel names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub import channels


@pytest.mark.parametrize("name", ["orders", "Orders", 'a"b', "a b", "ü" * 31, "x" * 63, "'; DROP TABLE x", "a.b.c"])
def test_these_are_names(name: str) -> None:
    assert channels.fault(name) is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("x" * 64, "64 bytes"),
        ("ü" * 32, "64 bytes"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\x7fb", "control"),
        ("a.*", "*"),
        ("\ud800", "surrogate"),
    ],
)
def test_these_are_none_and_the_reason_is_told(name: str, reason: str) -> None:
    assert reason in (channels.fault(name) or "")


@given(st.text())
def test_a_name_without_fault_fits_into_a_postgres_identifier(name: str) -> None:
    if channels.fault(name) is None:
        assert 0 < len(name.encode()) <= 63
        assert "\0" not in name


def test_names_of_the_hub_are_recognised() -> None:
    assert channels.is_own("$hub")
    assert channels.is_own("hub_bell")
    assert not channels.is_own("hubs")
