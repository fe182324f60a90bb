"""docs/writing-a-driver.md has a row for each test of the contract suites, and none for a test that is not there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from rustmq_sdk.testing import contracts
from rustmq_sdk.testing.contracts.base import Contract

PAGE = (Path(__file__).parents[2] / "docs" / "writing-a-driver.md").read_text(encoding="utf-8")
ROWS = {
    title: re.findall(r"^\| `(test_\w+)` \| \S", part, re.MULTILINE)
    for part in re.split(r"^###? ", PAGE, flags=re.MULTILINE)
    for title in re.findall(r"\A.*: `(\w+)`\n", part)
}
"""The names of tests, by the suite that a heading names."""


def suites() -> list[type[Contract]]:
    """The classes in which the tests are, without those that only join others."""
    public = [getattr(contracts, name) for name in contracts.__all__]
    classes = {base for suite in public for base in suite.__mro__ if issubclass(base, Contract)}
    return sorted((each for each in classes if rules_of(each)), key=lambda each: each.__name__)


def rules_of(suite: type[Contract]) -> list[str]:
    return [name for name in vars(suite) if name.startswith("test_")]


def test_every_suite_has_a_section_and_every_section_a_suite() -> None:
    assert sorted(ROWS) == [suite.__name__ for suite in suites()]


@pytest.mark.parametrize("suite", suites(), ids=lambda suite: suite.__name__)
def test_the_page_has_one_row_for_each_test_of_a_suite(suite: type[Contract]) -> None:
    assert Counter(ROWS[suite.__name__]) == Counter(rules_of(suite))
