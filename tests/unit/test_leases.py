"""A queue's ledger: every slot is told to the broker exactly once, and what is told frees what it held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from hypothesis import strategies as st
from hypothesis.stateful import invariant

from rustmq_sdk._core.leases import TOO_LATE, Due, LeaseBook, Leased, Return
from rustmq_sdk._core.piece import Piece
from rustmq_sdk.message import DONE, FREE, STALE, TAKEN, WATCH, Settler
from rustmq_sdk.values import Assignment, Receipt, TopicPartition
from tests.unit.steps import Steps, run, step

NOBODY = cast(Settler, None)
"""The owner of these messages: the tests settle them through the book, as the runtime's settler does."""
SIZE = 10


def book_() -> LeaseBook:
    return LeaseBook(Assignment(TopicPartition("q", None), None))


def lease(book: LeaseBook, count: int) -> Leased:
    first = book.scanned
    receipts = [Receipt(f"m{first + number}", first + number) for number in range(count)]
    piece = book.lease(receipts, (), size=SIZE * count, largest=SIZE, owner=NOBODY)
    assert piece is not None
    return piece


def ack(piece: Piece, index: int) -> bool:
    """What ``Message.ack`` and, for everything but a FREE slot, the settler do; whether it settled the message."""
    before = piece[index]
    if before not in (FREE, WATCH):
        return False

    piece[index] = DONE
    if before == WATCH:
        piece.ledger.note(piece, index)

    return True


def told(book: LeaseBook) -> list[tuple[int, Return | None]]:
    return [(due.piece.offsets[due.slot], due.verb) for due in book.due()]


def test_an_empty_fetch_leaves_nothing_behind() -> None:
    book = book_()
    assert book.lease((), (), size=0, largest=0, owner=NOBODY) is None
    book.recount_all()
    assert not book.open
    assert not book.unreported


def test_names_and_attempts_are_the_brokers() -> None:
    book = book_()
    receipts = [Receipt("a", 1), Receipt("b", 2)]
    piece = book.lease(receipts, [3, 1], size=2, largest=1, owner=NOBODY)
    assert piece is not None
    assert [piece.attempt_at(0), piece.attempt_at(1)] == [3, 1]
    assert [piece.id_at(0, None), piece.id_at(1, None)] == ["a", "b"]
    child = book.retry(*book.take(piece, 1), 2)
    assert (child.id_at(0, None), child.attempt_at(0)) == ("b", 2)


def test_a_lease_lost_while_its_message_was_on_its_way_back_is_not_counted_for_ever() -> None:
    """The renewal is answered after the message was nacked: what is told of it never is."""
    book = book_()
    piece = lease(book, 1)
    book.take(piece, 0)
    book.give_back(piece, 0, Return(5.0))
    assert book.uncommitted == 1
    book.lose(piece, 0)
    assert told(book) == []
    assert book.uncommitted == 0
    assert (book.in_flight, book.in_flight_bytes, book.returned) == (0, 0, 1)
    assert not book.unreported


def test_a_durable_ack_that_came_too_late_is_stale_even_if_it_was_the_last_of_its_piece() -> None:
    book = book_()
    piece = lease(book, 2)
    assert ack(piece, 0)
    assert ack(piece, 1)
    for due in list(book.due()):
        book.report(due, lost=due.slot == 1)

    assert not book.unreported
    assert [book.is_written(number) for number in range(2)] == [True, True]
    assert [book.was_too_late(number) for number in range(2)] == [False, True]
    assert list(piece) == [DONE, STALE]


def test_a_lease_lost_while_the_broker_is_told_is_counted_once() -> None:
    book = book_()
    piece = lease(book, 2)
    book.take(piece, 0)
    book.give_back(piece, 0, Return(5.0))
    (due,) = book.due()
    book.lose(piece, 0)
    assert book.report(due, lost=False).messages == 0
    assert (book.uncommitted, book.returned, book.in_flight) == (0, 1, 1)


def test_a_retry_whose_lease_ran_out_is_stale() -> None:
    book = book_()
    piece = lease(book, 1)
    child = book.retry(*book.take(piece, 0), 2)
    book.lose(piece, 0)
    assert not ack(child, 0)
    assert list(child) == list(piece) == [STALE]


def test_acks_that_came_too_late_are_not_remembered_for_ever() -> None:
    book = book_()
    for _ in range(2 * TOO_LATE):
        ack(lease(book, 1), 0)
        for due in list(book.due()):
            book.report(due, lost=True)

    assert sum(book.was_too_late(number) for number in range(book.scanned)) == TOO_LATE


def test_an_answer_that_comes_after_the_queue_was_lost_counts_nothing() -> None:
    book = book_()
    piece = lease(book, 3)
    assert ack(piece, 0)
    dues = list(book.due())
    book.fence()
    assert book.report(dues[0], lost=False).messages == 0
    assert (book.in_flight, book.in_flight_bytes) == (0, 0)
    assert list(book.due()) == []


def test_but_whoever_waits_for_it_hears_it() -> None:
    book = book_()
    piece = lease(book, 4)
    for index in range(3):
        assert ack(piece, index)

    told, lost, _ = list(book.due())
    book.fence()
    book.report(told, lost=False)
    book.report(lost, lost=True)
    assert [book.is_written(number) for number in range(4)] == [True, True, False, False]
    assert [book.was_too_late(number) for number in range(4)] == [False, True, False, False]


def test_retries_that_went_back_to_the_broker_leave_nothing_behind() -> None:
    book = book_()
    for _ in range(100):
        piece = lease(book, 1)
        book.attempts[piece.offsets[0]] = 1
        book.first_failures[piece.offsets[0]] = 0
        parent, index = book.take(piece, 0)
        book.take(book.retry(parent, index, 2), 0)
        book.give_back(parent, index, Return())
        for due in list(book.due()):
            book.report(due, lost=False)

    assert book.children == book.attempts == book.first_failures == book.unreported == book.open == {}


@dataclass
class Slot:
    """What the model knows of one delivery."""

    piece: Leased
    index: int
    state: str = "open"
    """open, taken, acked, back, dead, lost"""
    handle: tuple[Piece, int] | None = None
    reported: bool = False
    late: bool = False
    """Acked or dead-lettered after its lease had run out."""


class Books(Steps):
    """A broker that confirms, refuses, forgets and calls leases lost, whenever it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.book = book_()
        self.slots: dict[int, Slot] = {}
        self.old_handles: list[tuple[Piece, int]] = []
        self.on_its_way: list[Due] = []
        self.asked_to_renew: list[tuple[Leased, int]] = []
        self.confirmed: dict[int, int] = {}

    def some(self, data: st.DataObject, *states: str) -> Slot | None:
        numbers = [number for number, slot in self.slots.items() if slot.state in states]
        return self.slots[data.draw(st.sampled_from(numbers))] if numbers else None

    @step(2, count=st.integers(1, 5))
    def fetch(self, count: int) -> None:
        piece = lease(self.book, count)
        for index, number in enumerate(piece.offsets):
            self.slots[number] = Slot(piece, index, handle=(piece, index))

    @step(2, data=st.data(), count=st.integers(1, 4))
    def ack(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            slot = self.some(data, "open")
            if slot is not None and slot.handle is not None:
                assert ack(*slot.handle)
                slot.state = "acked"

    @step()
    def late_acks(self) -> None:
        for handle in self.old_handles:
            assert not ack(*handle)

        for slot in self.slots.values():
            assert slot.state == "open" or slot.handle is None or not ack(*slot.handle)

    @step(2, data=st.data(), delayed=st.booleans())
    def nack(self, data: st.DataObject, delayed: bool) -> None:
        """To the broker, or to a retry of our own, whose body may be lost later."""
        slot = self.some(data, "open")
        if slot is None or slot.handle is None:
            return

        parent, index = self.book.take(*slot.handle)
        assert (parent, index) == (slot.piece, slot.index)
        self.old_handles.append(slot.handle)
        slot.handle, slot.state = None, "taken"
        if delayed:
            self.book.give_back(parent, index, Return(1.0))
            slot.state = "back"
        else:
            self.book.attempts[parent.offsets[index]] = 1

    @step(3, data=st.data(), how=st.sampled_from(["retry", "dead letter", "give back"]))
    def go_on(self, data: st.DataObject, how: str) -> None:
        slot = self.some(data, "taken")
        if slot is None:
            return

        assert slot.piece[slot.index] == TAKEN
        if how == "retry":
            slot.handle, slot.state = (self.book.retry(slot.piece, slot.index, 2), 0), "open"
        elif how == "give back":
            self.book.give_back(slot.piece, slot.index, Return())
            slot.state = "back"
        else:
            self.book.give_back(slot.piece, slot.index, Return(dead=True))
            slot.piece[slot.index] = DONE
            self.book.note(slot.piece, slot.index)
            slot.state = "dead"

    # The broker

    @step(3, when=lambda self: not self.on_its_way)
    def tell(self) -> None:
        self.book.recount_all()
        self.on_its_way = list(self.book.due())
        verbs = dict(told(self.book))
        expected = {number for number, slot in self.slots.items() if slot.state in ("acked", "back", "dead")}
        assert set(verbs) == {number for number in expected if not self.slots[number].reported}
        assert len(verbs) == len(self.on_its_way)
        for number, verb in verbs.items():
            said = "acked" if verb is None else "dead" if verb.dead else "back"
            assert said == self.slots[number].state

    @step(4, when=lambda self: self.on_its_way, data=st.data())
    def hear(self, data: st.DataObject) -> None:
        for due in self.on_its_way:
            number = due.piece.offsets[due.slot]
            answer = data.draw(st.sampled_from(["settled", "settled", "lost", "again"]))
            if answer == "again":
                continue

            slot = self.slots[number]
            before = self.book.in_flight
            freed = self.book.report(due, lost=answer == "lost")
            assert self.book.in_flight == before - freed.messages
            if not slot.reported:
                slot.reported = True
                slot.late = answer == "lost" and slot.state != "back"
                self.confirmed[number] = self.confirmed.get(number, 0) + 1
                if due.verb is None:
                    assert self.book.was_too_late(number) == (answer == "lost")
            else:
                assert freed.messages == 0

        self.on_its_way = []

    @step(2, when=lambda self: not self.asked_to_renew)
    def renew(self) -> None:
        self.asked_to_renew = list(self.book.leased())
        leased = {piece.offsets[index] for piece, index in self.asked_to_renew}
        assert leased == {number for number, slot in self.slots.items() if slot.state in ("open", "taken")}
        acked = {piece.offsets[index] for piece, index in self.book.acked()}
        assert acked == {number for number, slot in self.slots.items() if slot.state == "acked" and not slot.reported}

    @step(3, when=lambda self: self.asked_to_renew, data=st.data())
    def leases_are_lost(self, data: st.DataObject) -> None:
        """Some time after they were asked for: much may have happened to them."""
        for piece, index in data.draw(st.lists(st.sampled_from(self.asked_to_renew), max_size=3)):
            if piece[index] in (DONE, STALE):
                continue

            slot = self.slots[piece.offsets[index]]
            self.book.lose(piece, index)
            slot.state, slot.reported = "lost", True
            assert slot.handle is None or slot.handle[0][slot.handle[1]] == STALE

        self.asked_to_renew = []

    # What always holds

    @invariant()
    def counts_are_right(self) -> None:
        book = self.book
        unsettled = [slot for slot in self.slots.values() if slot.state in ("open", "taken")]
        returning = [slot for slot in self.slots.values() if slot.state == "back" and not slot.reported]
        assert book.in_flight >= len(unsettled) + len(returning)
        assert book.in_flight_bytes >= SIZE * (len(unsettled) + len(returning))
        assert all(count == 1 for count in self.confirmed.values())

    @step()
    def count(self) -> None:
        book = self.book
        book.recount_all()
        states = [slot.state for slot in self.slots.values() if not slot.reported]
        assert book.uncommitted == states.count("acked") + states.count("back") + states.count("dead")
        assert book.in_flight == states.count("open") + states.count("taken") + states.count("back")
        assert book.in_flight_bytes <= SIZE * sum(map(len, book.open.values()))
        for number, slot in self.slots.items():
            assert book.is_written(number) == slot.reported

    @invariant()
    def what_is_over_is_forgotten(self) -> None:
        book = self.book
        unreported = {number for number, slot in self.slots.items() if not slot.reported}
        known = {number for piece in book.unreported.values() for number in piece.offsets}
        assert unreported <= known
        for leased in book.unreported.values():
            assert unreported & set(leased.offsets), "a piece that the broker has heard all about is still there"

        for piece in book.open.values():
            assert piece.count(DONE) + piece.count(STALE) < len(piece), "a piece that is over is still there"
            assert piece.count(WATCH) + piece.count(TAKEN), "nobody would notice the last ack"
            assert FREE not in piece or WATCH in piece, "nobody would notice until what was taken is settled"

        alive = {number for number, slot in self.slots.items() if not slot.reported}
        assert set(book.children) <= alive
        assert set(book.attempts) <= alive

    def teardown(self) -> None:
        self.on_its_way = []
        for slot in self.slots.values():
            if slot.state == "taken":
                self.book.give_back(slot.piece, slot.index, Return())
                slot.state = "back"
            elif slot.state == "open" and slot.handle is not None:
                assert ack(*slot.handle)
                slot.state = "acked"

        self.tell()
        for due in self.on_its_way:
            self.book.report(due, lost=False)

        book = self.book
        assert (book.in_flight, book.in_flight_bytes, book.uncommitted) == (0, 0, 0)
        assert book.open == book.unreported == book.children == book.attempts == {}
        good = [slot for slot in self.slots.values() if slot.state in ("acked", "dead") and not slot.late]
        assert book.settled_for_good == len(good)
        book.fence()
        for slot in self.slots.values():
            assert slot.handle is None or not ack(*slot.handle)


def test_every_slot_is_told_exactly_once_whatever_happens() -> None:
    run(Books, examples=120, steps=40)
