"""What a driver was asked to do is said in words, in every error that this package raises."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from rustmq_sdk._operations import words_for
from rustmq_sdk.errors import PermanentDriverError

PACKAGE = Path(__file__).parents[2] / "rustmq_sdk"


def named() -> Iterator[tuple[str, str]]:
    """The slots and operations that the code names together."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                given = {each.arg: each.value.value for each in node.keywords if isinstance(each.value, ast.Constant)}
                if isinstance(slot := given.get("slot"), str) and isinstance(operation := given.get("operation"), str):
                    yield slot, operation


@pytest.mark.parametrize(("slot", "operation"), sorted(set(named())))
def test_each_operation_of_the_package_has_words(slot: str, operation: str) -> None:
    assert not words_for(slot, operation).startswith(slot)


def test_an_error_says_what_was_tried_and_keeps_the_parts() -> None:
    error = PermanentDriverError("the loft is closed", slot="sink", operation="append")
    assert str(error) == "sending messages: the loft is closed"
    assert (error.problem, error.slot, error.operation) == ("the loft is closed", "sink", "append")


def test_an_operation_that_is_not_known_is_named_as_it_is() -> None:
    assert str(PermanentDriverError("no", slot="pigeon", operation="fly")) == "pigeon fly: no"
