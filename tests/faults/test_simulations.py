"""Whole consumers and a producer over a driver that fails, by seeded schedules: the promises hold, whatever happens.

``RUSTMQ_SEED=417`` plays one seed; ``RUSTMQ_SEEDS=0:5000`` a range. A failure prints the scenario, the faults, the last
events, and the line that repeats it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from rustmq_sdk.testing import BACKENDS
from rustmq_sdk.testing.clock import Backend
from tests.faults.simulation import simulate

SEEDS = 1000


def seeds() -> range:
    """What the environment asks for."""
    one = os.environ.get("RUSTMQ_SEED")
    if one is not None:
        return range(int(one), int(one) + 1)

    first, _, end = os.environ.get("RUSTMQ_SEEDS", f"0:{SEEDS}").partition(":")
    return range(int(first), int(end))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Faults are logged by the thousand, and formatting them would take longer than playing them."""
    logger = logging.getLogger("rustmq_sdk")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("seed", seeds(), ids=lambda seed: f"seed-{seed:04}")
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_fault_breaks_a_promise(backend: Backend, seed: int) -> None:
    simulate(seed, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_seed_repeats_itself(backend: Backend) -> None:
    """Otherwise a failing seed would say nothing."""
    for seed in (3, 11):
        assert simulate(seed, backend).trace == simulate(seed, backend).trace
