"""docs/observing.md has every event, code, count and method that there is, and no other."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import re
import typing
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from rustmq_sdk._runtime import health
from rustmq_sdk.observe import EVENTS, LOG_EVENTS, REASONS, Health, Observer, PartitionStatistics, Reason, Statistics

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rustmq_sdk"
PAGE = (ROOT / "docs" / "observing.md").read_text(encoding="utf-8")
CODES = typing.get_args(typing.get_type_hints(Reason)["code"])

CALLS = [
    (path.relative_to(PACKAGE), node)
    for path in sorted(PACKAGE.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Call)
]


def calls(*names: str) -> Iterator[tuple[Path, ast.Call]]:
    """All calls in the package of functions and methods with these names."""
    for path, call in CALLS:
        if getattr(call.func, "attr", getattr(call.func, "id", None)) in names:
            yield path, call


def words(node: ast.expr) -> set[str]:
    """What a literal, or a choice between literals, can be."""
    if isinstance(node, ast.IfExp):
        return words(node.body) | words(node.orelse)

    assert isinstance(node, ast.Constant), ast.unparse(node)
    return {str(node.value)}


def logged() -> dict[str, set[str]]:
    """The levels of each event, by the calls of ``log``."""
    found = defaultdict[str, set[str]](set)
    for _, call in calls("log"):
        # The memory driver's broker has a method of this name; it takes no level.
        if call.args and ast.unparse(call.args[0]).startswith("logging."):
            (event,) = words(call.args[1])
            found[event].add(ast.unparse(call.args[0]).removeprefix("logging."))

    return found


def section(title: str) -> str:
    """The text below a heading of the page, until the next heading like it."""
    return PAGE.split(f"\n{title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables whose first column is code."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]


def code(cell: str) -> str:
    return cell.strip("`")


def levels(cell: str) -> set[str]:
    return set(cell.split(" or "))


def test_every_record_has_a_listed_name_and_every_listed_name_is_logged() -> None:
    assert set(logged()) == set(LOG_EVENTS)


def test_nothing_is_logged_past_the_one_function() -> None:
    of_loggers = calls("debug", "info", "warning", "error", "critical", "exception", "getLogger")
    filtering = {"cli/_commands.py", "drivers/kafka/quieting.py", "drivers/kafka/security.py"}
    found = {path.as_posix() for path, call in of_loggers if "log" in ast.unparse(call.func).lower()}
    assert found - filtering == {"_log.py"}


def test_the_page_has_every_record_with_its_level_and_its_sentence() -> None:
    said = {code(event): (levels(level), what) for event, level, what, _ in rows(section("## Log records"))}
    assert said == {event: (logged()[event], sentence) for event, sentence in LOG_EVENTS.items()}
    assert all(isinstance(logging.getLevelName(level), int) for found in logged().values() for level in found)


def test_what_is_told_and_logged_has_one_name() -> None:
    both = {"dead_lettered", "commit_failed", "partition_stopped", "circuit_changed", "rebalanced", "stalled", "lost"}
    assert both == set(EVENTS) & set(LOG_EVENTS)


def test_the_page_has_every_method_of_an_observer_with_its_arguments() -> None:
    said = [code(method) for method, _ in rows(section("## Observers"))]
    methods = {name: inspect.signature(method) for name, method in vars(Observer).items() if name.startswith("on_")}
    assert said == [f"{name}({', '.join(list(taken.parameters)[1:])})" for name, taken in methods.items()]
    assert list(methods) == [f"on_{event}" for event in EVENTS]


def test_the_page_names_every_circuit() -> None:
    named = set(re.findall(r"`((?:source|dead_letters|state)\.\w+)`", section("## Observers")))
    made = {word for _, call in calls("circuit") if call.args for word in words(call.args[0])}
    assert named == made
    assert all(name in inspect.getdoc(Observer.on_circuit_changed) for name in made)  # type: ignore[operator]


def test_every_reason_of_a_rebalance_is_explained() -> None:
    assert set(re.findall(r'``"(\w+)"``', inspect.getdoc(Observer.on_rebalanced) or "")) == set(REASONS)


def test_the_page_has_every_code_of_health_and_whether_it_is_ok() -> None:
    said = {code(name): ok == "yes" for name, ok, _, _ in rows(section("## Health"))}
    assert said == {name: name in health._OK for name in CODES}


def test_every_code_of_health_is_given_by_some_part() -> None:
    given = {word for _, call in calls("Reason") for word in words(call.args[0])}
    assert given == set(CODES)


def test_the_page_has_every_state_of_health() -> None:
    states = typing.get_args(typing.get_type_hints(Health)["state"])
    assert all(f"`{state}`" in section("## Health") for state in states)


@pytest.mark.parametrize(("number", "numbers"), [(0, Statistics), (1, PartitionStatistics)])
def test_the_page_has_every_field_of_the_statistics(number: int, numbers: type[Statistics]) -> None:
    table = section("## Statistics").split("| field | unit |")[number + 1]
    assert [code(name) for name, _, _ in rows(table)] == [field.name for field in dataclasses.fields(numbers)]
