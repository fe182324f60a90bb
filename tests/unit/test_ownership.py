"""Whether a partition that comes back is still the same, and its fence."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from rustmq_sdk._core.log_book import LogBook
from rustmq_sdk._core.ownership import RESTARTS, Ownership
from rustmq_sdk.errors import ConsumerStateError
from rustmq_sdk.values import Assignment, Checkpoint, TopicPartition
from tests.unit.steps import Steps, run, step

TP = TopicPartition("t", 0)


def released(generation: int) -> tuple[Ownership, LogBook]:
    """One partition that was assigned in this generation, and revoked."""
    ownership = Ownership()
    ledger = LogBook(Assignment(TP, ownership.epoch(TP, generation)), 5)
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


def test_a_position_that_we_have_sent_is_ours_though_nobody_has_answered() -> None:
    ownership, ledger = released(generation=7)
    ledger.on_broker.stored = True
    ledger.on_broker.sent.extend([Checkpoint(6, b"1"), Checkpoint(7, b"2")])

    assert ownership.comes_back(TP, 8, Checkpoint(6, b"1")) is ledger
    assert ownership.moved(TP, 8, Checkpoint(6, b"1")) is None
    assert ownership.comes_back(TP, 8, Checkpoint(6, b"2")) is None


def test_having_nothing_to_commit_is_no_position_that_somebody_could_delete() -> None:
    ownership, ledger = released(generation=7)
    assert ledger.snapshot(None) is None

    assert ownership.comes_back(TP, 8, None) is ledger


def test_a_position_that_somebody_has_deleted_makes_it_another() -> None:
    ownership, ledger = released(generation=7)

    assert ownership.comes_back(TP, 8, None) is ledger
    assert ownership.moved(TP, 8, None) is None
    ledger.on_broker.stored = True
    assert ownership.comes_back(TP, 8, None) is None
    assert ownership.moved(TP, 8, None) == ledger.written


def test_only_what_would_have_come_back_was_moved_by_somebody() -> None:
    ownership, ledger = released(generation=7)

    assert ownership.moved(TP, 8, Checkpoint(6)) == ledger.written
    assert ownership.moved(TP, 8, ledger.written) is None
    assert ownership.moved(TP, 9, Checkpoint(6)) is None
    assert Ownership().moved(TP, 8, Checkpoint(6)) is None


def test_what_was_not_revoked_does_not_come_back() -> None:
    ownership = Ownership()
    ledger = LogBook(Assignment(TP, 7 * RESTARTS), 5)
    ownership.assign(TP, 7, ledger)

    assert ownership.comes_back(TP, 8, ledger.written) is None


def test_the_fence_grows_when_a_partition_is_assigned_again_in_the_same_generation() -> None:
    ownership, ledger = released(generation=7)
    epochs = [ledger.assignment.epoch]
    for _ in range(3):
        again = LogBook(Assignment(TP, ownership.epoch(TP, 7)), 5)
        ownership.assign(TP, 7, again)
        epochs.append(again.assignment.epoch)

    assert epochs == [7 * RESTARTS + restarts for restarts in range(4)]


def test_the_fence_grows_with_a_seek_and_with_the_next_generation() -> None:
    ownership, ledger = released(generation=7)
    moved = LogBook(Assignment(TP, ownership.epoch(TP, 7)), 9)
    ownership.restart(TP, moved)

    assert ledger.assignment.epoch == 7 * RESTARTS
    assert moved.assignment.epoch == 7 * RESTARTS + 1
    assert ownership.epoch(TP, 7) == 7 * RESTARTS + 2
    assert ownership.epoch(TP, 8) == 8 * RESTARTS


def test_a_fence_never_reaches_that_of_the_next_owner() -> None:
    ownership, _ = released(generation=7)
    ownership.restart(TP, LogBook(Assignment(TP, 8 * RESTARTS - 2), 0))
    ownership.restart(TP, LogBook(Assignment(TP, ownership.epoch(TP, 7)), 0))
    with pytest.raises(ConsumerStateError, match="was moved 65535 times"):
        ownership.epoch(TP, 7)

    assert ownership.epoch(TP, 8) == 8 * RESTARTS


def test_a_fence_grows_here_although_the_group_was_deleted_and_counts_anew() -> None:
    ownership, _ = released(generation=7)
    assert ownership.epoch(TP, 1) == 7 * RESTARTS + 1


def test_the_fence_grows_when_a_lost_partition_is_assigned_again_in_the_same_generation() -> None:
    ownership, ledger = released(generation=7)
    ownership.forget(TP)
    assert ledger.assignment.epoch == 7 * RESTARTS
    assert ownership.epoch(TP, 7) == 7 * RESTARTS + 1


def test_what_was_told_of_the_assignment_before_does_not_touch_a_ledger_that_went_on() -> None:
    ownership, ledger = released(generation=7)
    before = ledger.assignment
    ledger.assignment = Assignment(TP, ownership.epoch(TP, 8))
    ownership.assign(TP, 8, ledger)

    assert ownership.known(before) is ownership.ledger_of(before) is ownership.release(before) is None
    assert ownership.known(ledger.assignment) is ownership.get(TP) is ledger


def test_a_partition_without_generations_has_no_fence_and_does_not_come_back() -> None:
    ownership = Ownership()
    assert ownership.epoch(TP, None) is None
    ledger = LogBook(Assignment(TP, None), 5)
    ownership.assign(TP, None, ledger)
    ownership.release(ledger.assignment)
    assert ownership.comes_back(TP, None, ledger.written) is ownership.comes_back(TP, 1, ledger.written) is None


class Ownerships(Steps):
    """Two partitions that come, go, come back and start over, in generations that a driver counts."""

    def __init__(self) -> None:
        super().__init__()
        self.ownership = Ownership()
        self.generation = 1
        self.ledgers: dict[TopicPartition, LogBook] = {}
        """Owned or released."""
        self.released: dict[TopicPartition, int] = {}
        """The generation in which each released partition was assigned."""
        self.assigned_in: dict[TopicPartition, int] = {}
        self.over: list[Assignment] = []
        """Assignments that nothing may be found by any more."""
        self.epochs: dict[TopicPartition, list[int]] = {}

    def fresh(self, tp: TopicPartition, offset: int = 0) -> LogBook:
        return LogBook(self.fenced(tp), offset)

    def fenced(self, tp: TopicPartition) -> Assignment:
        epoch = self.ownership.epoch(tp, self.generation)
        assert epoch is not None
        assert epoch // RESTARTS == self.generation
        assert all(epoch > before for before in self.epochs.setdefault(tp, [])), "a fence that does not grow"
        self.epochs[tp].append(epoch)
        return Assignment(tp, epoch)

    @step(more=st.integers(1, 2))
    def a_rebalance_goes_on(self, more: int) -> None:
        self.generation += more

    @step(
        3,
        number=st.integers(0, 1),
        committed=st.sampled_from(["nothing", "what we wrote", "by somebody else"]),
    )
    def assign(self, number: int, committed: str) -> None:
        tp = TopicPartition("t", number)
        before = self.ledgers.get(tp)
        checkpoint = Checkpoint(99) if committed == "by somebody else" else None
        if committed == "what we wrote" and before is not None:
            checkpoint = before.written

        ledger = self.ownership.comes_back(tp, self.generation, checkpoint)
        untouched = committed != "by somebody else" and tp in self.released
        directly = self.generation - self.released.get(tp, -9) <= 1
        assert ledger is (before if untouched and directly else None)
        if before is not None:
            self.over.append(before.assignment)

        if ledger is None:
            # As the runtime does: what was known is dropped first.
            assert self.ownership.forget(tp) is before
            ledger = self.fresh(tp)
        else:
            ledger.assignment = self.fenced(tp)

        self.ownership.assign(tp, self.generation, ledger)
        self.ledgers[tp] = ledger
        self.assigned_in[tp] = self.generation
        self.released.pop(tp, None)

    @step(2, when=lambda self: self.ledgers, data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        tp = data.draw(st.sampled_from(sorted(self.ledgers)))
        assert self.ownership.release(self.ledgers[tp].assignment) is self.ledgers[tp]
        self.released[tp] = self.assigned_in[tp]

    @step(when=lambda self: self.ledgers, data=st.data())
    def lose(self, data: st.DataObject) -> None:
        tp = data.draw(st.sampled_from(sorted(self.ledgers)))
        ledger = self.ledgers.pop(tp)
        assert self.ownership.forget(tp) is ledger
        assert self.ownership.forget(tp) is None
        self.over.append(ledger.assignment)
        self.released.pop(tp, None)

    @step(when=lambda self: len(self.ledgers) > len(self.released), data=st.data())
    def seek(self, data: st.DataObject) -> None:
        tp = data.draw(st.sampled_from(sorted(set(self.ledgers) - set(self.released))))
        self.over.append(self.ledgers[tp].assignment)
        generation, self.generation = self.generation, self.assigned_in[tp]
        assert self.ownership.generation(tp) == self.generation
        self.ledgers[tp] = self.fresh(tp, 50)
        self.generation = generation
        self.ownership.restart(tp, self.ledgers[tp])

    @invariant()
    def only_current_assignments_are_found(self) -> None:
        for assignment in self.over:
            assert self.ownership.known(assignment) is None
            assert self.ownership.ledger_of(assignment) is None
            assert self.ownership.release(assignment) is None

        for tp, ledger in self.ledgers.items():
            assert self.ownership.known(ledger.assignment) is ledger
            ours = None if tp in self.released else ledger
            assert self.ownership.ledger_of(ledger.assignment) is self.ownership.get(tp) is ours

        current = {tp: ledger for tp, ledger in self.ledgers.items() if tp not in self.released}
        assert {ledger.assignment.tp: ledger for ledger in self.ownership.current()} == current
        assert {ledger.assignment.tp: ledger for ledger in self.ownership.all()} == self.ledgers


def test_a_late_assignment_never_finds_a_new_ledger_and_fences_grow_whatever_happens() -> None:
    run(Ownerships, examples=100, steps=30)
