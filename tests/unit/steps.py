"""State machines that take every step they can take.

Hypothesis switches rules off for whole examples (swarm testing) and skips those whose precondition does not hold. Of a
machine with a dozen rules, where acking needs fetching first, little more than the first rules is left in a hundred
short examples. So these machines have one rule: it draws one of the steps that are possible now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

F = TypeVar("F", bound=Callable[..., None])


def step(
    weight: int = 1, *, when: Callable[[Any], object] = lambda _: True, **arguments: st.SearchStrategy[Any]
) -> Callable[[F], F]:
    """Marks a step: how often it is taken compared to others, when it is possible, and what its arguments are."""

    def mark(function: F) -> F:
        function._step = (weight, when, arguments)  # type: ignore[attr-defined]
        return function

    return mark


class Steps(RuleBasedStateMachine):
    """Takes one of its steps at a time."""

    steps: ClassVar[dict[str, tuple[int, Callable[[Any], object], dict[str, st.SearchStrategy[Any]]]]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.steps = {name: getattr(cls, name)._step for name in dir(cls) if hasattr(getattr(cls, name), "_step")}

    @rule(data=st.data())
    def next_step(self, data: st.DataObject) -> None:
        possible = []
        for name, (weight, when, _) in self.steps.items():
            if when(self):
                possible += [name] * weight

        name = data.draw(st.sampled_from(possible), "step")
        arguments = {
            # A step that draws while it runs uses the same source.
            argument: data if argument == "data" else data.draw(strategy, argument)
            for argument, strategy in self.steps[name][2].items()
        }
        getattr(self, name)(**arguments)


def run(machine: type[Steps], *, examples: int, steps: int) -> None:
    """The same examples each time."""
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=steps, derandomize=True, deadline=None),
    )
