"""Whole consumers and a producer over a driver that fails, by seeded schedules: the promises hold, whatever happens.

``RUSTMQ_SEED=417`` plays one seed; ``RUSTMQ_SEEDS=0:5000`` a range. A failure prints the scenario, the faults, the last
events, and the line that repeats it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import pytest

from rustmq_sdk.testing import BACKENDS
from rustmq_sdk.testing.clock import Backend
from tests.faults.records import Violation
from tests.faults.simulation import simulate

SEEDS = 1000
WORTH_PROCESSES = 50
"""Seeds; fewer are played sooner than processes have started."""


def seeds() -> range:
    """What the environment asks for."""
    one = os.environ.get("RUSTMQ_SEED")
    if one is not None:
        return range(int(one), int(one) + 1)

    first, _, end = os.environ.get("RUSTMQ_SEEDS", f"0:{SEEDS}").partition(":")
    return range(int(first), int(end))


Played = Mapping[tuple[Backend, int], "Future[str | None]"]


def play(backend: Backend, seed: int) -> str | None:
    """One seed; the story of what was broken, None if nothing was."""
    # Faults are logged by the thousand, and formatting them would take longer than playing them.
    logger = logging.getLogger("rustmq_sdk")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        simulate(seed, backend)
    except Violation as violation:
        return str(violation)
    finally:
        logger.setLevel(before)

    return None


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Iterator[Played]:
    """What the chosen seeds come to: many of them on all cores, one alone right here, where a debugger can follow."""
    calls: list[Any] = [item for item in request.session.items if "test_no_fault" in item.name]
    pairs = [(call.callspec.params["backend"], call.callspec.params["seed"]) for call in calls]
    if len(pairs) < WORTH_PROCESSES:
        yield {}
        return

    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        yield {pair: pool.submit(play, *pair) for pair in pairs}


@pytest.mark.parametrize("seed", seeds(), ids=lambda seed: f"seed-{seed:04}")
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_fault_breaks_a_promise(backend: Backend, seed: int, played: Played) -> None:
    future = played.get((backend, seed))
    story = play(backend, seed) if future is None else future.result()
    if story is not None:
        pytest.fail(story, pytrace=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_seed_repeats_itself(backend: Backend) -> None:
    """Otherwise a failing seed would say nothing."""
    for seed in (3, 11):
        assert simulate(seed, backend).trace == simulate(seed, backend).trace
