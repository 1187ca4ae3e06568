"""README says what is true: settings, codes, files and tests that it names."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from hub import errors
from hub.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_every_setting_stands_in_the_table_with_its_default(field: dataclasses.Field[object]) -> None:
    row = next((row for row in ROWS if row[0] == f"`HUB_{field.name.upper()}`"), None)
    assert row is not None, f"HUB_{field.name.upper()} is not in README"
    stated = row[1].strip("`")
    default = field.default
    expected = "" if default in (None, "") else "no" if default is False else str(default)
    assert stated == expected


def test_no_other_setting_stands_in_the_table() -> None:
    known = {f"`HUB_{field.name.upper()}`" for field in dataclasses.fields(Settings)}
    assert {row[0] for row in ROWS if row[0].startswith("`HUB_")} == known


@pytest.mark.parametrize("code", list(errors.Code))
def test_every_error_code_is_explained(code: errors.Code) -> None:
    assert [row for row in ROWS if row[0] == f"`{code}`"]


@pytest.mark.parametrize("close", errors.CLOSE_CODES, ids=lambda close: str(close.code))
def test_every_close_code_says_whether_to_reconnect(close: errors.Close) -> None:
    row = next(row for row in ROWS if row[0] == str(close.code))
    assert row[2].startswith("yes" if close.reconnect else "no")


def test_the_seventeen_techniques_are_all_there_in_order() -> None:
    numbers = [row[0] for row in ROWS if len(row) == 4 and row[0].isdigit()]
    assert numbers == [str(number) for number in range(1, 18)]


def test_every_file_and_test_that_is_named_exists() -> None:
    for path, test in re.findall(r"`((?:hub|tests|static|sql)/[\w/.]+)(?:::(\w+))?`", README):
        assert (ROOT / path).exists(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"
