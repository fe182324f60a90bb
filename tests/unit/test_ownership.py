"""Whether a partition that comes back is still the same, and its fence."""

from __future__ import annotations

import pytest

from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._core.ownership import RESTARTS, Ownership
from rustmq_sdk.values import Assignment, Checkpoint, TopicPartition

TP = TopicPartition("t", 0)


def released(generation: int) -> tuple[Ownership, Ledger]:
    """One partition that was assigned in this generation, and revoked."""
    ownership = Ownership()
    ledger = Ledger(Assignment(TP, ownership.epoch(TP, generation)), 5)
    ownership.assign(TP, generation, ledger)
    ownership.release(ledger.assignment)
    return ownership, ledger


@pytest.mark.parametrize("later", [0, 1])
def test_a_partition_comes_back_in_the_same_generation_or_the_next(later: int) -> None:
    ownership, ledger = released(generation=7)

    assert ownership.comes_back(TP, 7 + later, ledger.written) is ledger


@pytest.mark.parametrize("later", [-7, -1, 2, 3])
def test_somebody_else_may_have_had_it_in_any_other_generation(later: int) -> None:
    ownership, ledger = released(generation=7)

    assert ownership.comes_back(TP, 7 + later, ledger.written) is None


def test_a_position_that_somebody_else_wrote_makes_it_another() -> None:
    ownership, _ = released(generation=7)

    assert ownership.comes_back(TP, 8, Checkpoint(6)) is None


def test_what_was_not_revoked_does_not_come_back() -> None:
    ownership = Ownership()
    ledger = Ledger(Assignment(TP, 7 * RESTARTS), 5)
    ownership.assign(TP, 7, ledger)

    assert ownership.comes_back(TP, 8, ledger.written) is None


def test_the_fence_grows_when_a_partition_is_assigned_again_in_the_same_generation() -> None:
    ownership, ledger = released(generation=7)
    epochs = [ledger.assignment.epoch]
    for _ in range(3):
        again = Ledger(Assignment(TP, ownership.epoch(TP, 7)), 5)
        ownership.assign(TP, 7, again)
        epochs.append(again.assignment.epoch)

    assert epochs == [7 * RESTARTS + restarts for restarts in range(4)]


def test_the_fence_grows_with_a_seek_and_with_the_next_generation() -> None:
    ownership, ledger = released(generation=7)
    moved = Ledger(Assignment(TP, ownership.epoch(TP, 7, restart=True)), 9)
    ownership.restart(TP, moved)

    assert ledger.assignment.epoch == 7 * RESTARTS
    assert moved.assignment.epoch == 7 * RESTARTS + 1
    assert ownership.epoch(TP, 7) == 7 * RESTARTS + 2
    assert ownership.epoch(TP, 8) == 8 * RESTARTS
