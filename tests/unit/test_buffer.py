"""The buffer against lists of offsets: order, pause, turns, and its counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.stateful import invariant

from rustmq_sdk._core.buffer import LOAD, Buffer
from rustmq_sdk._core.checkpoint import Remembered
from rustmq_sdk._core.lane import Lane, Waiting
from rustmq_sdk._core.leases import LeaseBook
from rustmq_sdk._core.log_book import LogBook
from rustmq_sdk._core.piece import Piece
from rustmq_sdk.message import DONE, FREE, WATCH, AnyPiece, Message, Settler
from rustmq_sdk.values import Assignment, Receipt, TopicPartition
from tests.unit.steps import Steps, run, step

NOBODY = cast(Settler, None)
"""The owner of these messages: the tests settle them through the ledger, as the runtime's settler does."""


def build(records: Sequence[Any], piece: AnyPiece, first: int) -> list[Message]:
    return [Message(b"", None, (), offset, 0, piece, first + number) for number, offset in enumerate(records)]


def lane_of(buffer: Buffer, number: int = 0, remembered: Remembered | None = None) -> Lane:
    lane = Lane(LogBook(Assignment(TopicPartition("t", number), None), 0, remembered))
    buffer.add(lane)
    return lane


def fetch(buffer: Buffer, lane: Lane, count: int) -> None:
    first = lane.ledger.scanned
    offsets = range(first, first + count)
    piece, cut = lane.log.admit(offsets, offsets.stop, size=count, largest=1, owner=NOBODY)
    if piece is not None:
        buffer.push(Waiting(piece, offsets[cut:], build))


def receive(buffer: Buffer) -> Message | None:
    """What ``receive()`` does."""
    return buffer.ready.pop() if buffer.ready or buffer.load(1.0) else None


def received(buffer: Buffer) -> Message:
    message = receive(buffer)
    assert message is not None
    return message


def ack(message: Message) -> None:
    piece, index = message._piece, message._index
    assert isinstance(piece, Piece)
    before = piece[index]
    assert before in (FREE, WATCH)
    piece[index] = DONE
    if before == WATCH:
        piece.ledger.note(piece, index)


@dataclass
class Backoff:
    """A nacked message that waits for its next attempt."""

    parent: Piece
    index: int
    attempt: int

    @classmethod
    def of(cls, message: Message) -> Backoff:
        piece = message._piece
        assert isinstance(piece, Piece)
        return cls(*piece.ledger.take(piece, message._index), message.attempt + 1)

    def retry(self) -> Message:
        child = self.parent.ledger.retry(self.parent, self.index, self.attempt)
        return Message(b"", None, (), self.parent.offsets[self.index], 0, child, 0)


def places(messages: Sequence[Message]) -> list[tuple[int | None, int | None]]:
    return [(message.partition, message.offset) for message in messages]


def test_partitions_take_turns_by_piece() -> None:
    buffer = Buffer()
    lanes = [lane_of(buffer, number) for number in range(3)]
    for lane in lanes:
        for _ in range(3):
            fetch(buffer, lane, LOAD)

    order = [received(buffer).partition for _ in range(9 * LOAD)]
    assert order[::LOAD] == [0, 1, 2] * 3
    assert len(set(zip(*[iter(order)] * LOAD, strict=True))) == 3


def test_tiny_pieces_share_a_refill_and_a_large_one_is_not_cut() -> None:
    buffer = Buffer()
    for number in range(3):
        fetch(buffer, lane_of(buffer, number), 2)

    assert buffer.load(0.0) == 6
    assert places(buffer.ready)[::-1] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    fetch(buffer, buffer.lanes[next(iter(buffer.lanes))], 5 * LOAD)
    buffer.ready.clear()
    assert buffer.load(0.0) == 5 * LOAD


def test_the_list_that_receive_pops_from_stays_the_same_object() -> None:
    buffer = Buffer()
    lane = lane_of(buffer)
    ready = buffer.ready
    fetch(buffer, lane, 3)
    buffer.load(0.0)
    buffer.hold(lane)
    buffer.load(0.0)
    buffer.remove(lane.ledger)
    assert buffer.ready is ready == []


def test_a_message_settled_before_a_restart_is_not_handed_out() -> None:
    buffer = Buffer()
    lane = lane_of(buffer, remembered=Remembered([(1, 3), (5, 9)]))
    fetch(buffer, lane, 6)
    assert buffer.position(lane) == 0
    assert received(buffer).offset == 0
    assert buffer.handed_out(lane) == 1
    assert [received(buffer).offset for _ in range(2)] == [3, 4]
    assert receive(buffer) is None
    assert buffer.position(lane) == 9
    assert buffer.handed_out(lane) == 3


def test_the_position_is_the_next_offset_that_will_be_handed_out() -> None:
    buffer = Buffer()
    lane = lane_of(buffer, remembered=Remembered([(1, 3), (4, 6)]))
    fetch(buffer, lane, 7)
    batch, _ = buffer.take_batch(1, 0.0)
    assert places(batch) == [(0, 0)]
    assert buffer.position(lane) == 3
    assert places(buffer.take_batch(1, 0.0)[0]) == [(0, 3)]
    assert buffer.position(lane) == 6


def test_a_message_nacked_before_a_restart_comes_as_its_next_attempt() -> None:
    buffer = Buffer()
    lane = lane_of(buffer, remembered=Remembered(attempts={1: 2}))
    fetch(buffer, lane, 3)
    messages = [received(buffer) for _ in range(3)]
    assert [message.attempt for message in messages] == [1, 3, 1]
    assert [message.id for message in messages] == ["t[0]@0", "t[0]@1", "t[0]@2"]
    assert buffer.handed_out(lane) == 3
    ack(messages[1])
    ack(messages[0])
    assert lane.ledger.watermark == 2
    assert lane.ledger.attempts == {}


def test_a_batch_tells_the_runs_of_its_slots() -> None:
    buffer = Buffer()
    lanes = [lane_of(buffer, number) for number in range(2)]
    for lane in lanes:
        fetch(buffer, lane, 3)

    retry = Backoff.of(buffer.take_batch(1, 0.0)[0][0]).retry()
    buffer.push_front(lanes[0], [retry])
    messages, spans = buffer.take_batch(4, 0.0)
    assert sum(end - first for _, first, end in spans) == len(messages) == 4
    slots = [(state, index) for state, first, end in spans for index in range(first, end)]
    assert {(id(state), index) for state, index in slots} == {(id(one._piece), one._index) for one in messages}


def test_a_batch_of_messages_that_were_at_hand_already_is_few_runs() -> None:
    """A run costs as much to settle as a piece."""
    buffer = Buffer()
    fetch(buffer, lane_of(buffer), 6)
    pop = buffer.ready.pop
    received(buffer)
    messages, spans = buffer.take_batch(3, 0.0)
    assert places(messages) == [(0, 1), (0, 2), (0, 3)]
    assert [(first, end) for _, first, end in spans] == [(1, 4)]
    assert places([pop()]) == [(0, 4)]


def test_the_runs_of_a_batch_leave_room_for_a_later_attempt_between_two_first_ones() -> None:
    buffer = Buffer()
    lane = lane_of(buffer, remembered=Remembered(attempts={1: 2}))
    fetch(buffer, lane, 3)
    messages, spans = buffer.take_batch(3, 0.0)
    slots = [(id(state), index) for state, first, end in spans for index in range(first, end)]
    assert slots == [(id(message._piece), message._index) for message in messages]


def test_a_leased_message_whose_lease_ran_out_in_the_buffer_is_not_handed_out() -> None:
    buffer = Buffer()
    book = LeaseBook(Assignment(TopicPartition("q", None), None))
    lane = Lane(book)
    buffer.add(lane)
    pieces = [
        book.lease([Receipt(f"{name}{number}", None) for number in range(3)], (), size=3, largest=1, owner=NOBODY)
        for name in "ab"
    ]
    for piece in pieces:
        assert piece is not None
        buffer.push(Waiting(piece, range(3), build))

    first = pieces[0]
    assert first is not None
    book.lose(first, 1)
    assert [message.id for message in buffer.take_batch(2, 0.0)[0]] == ["a0", "a2"]
    assert buffer.handed_out(lane) == 2
    assert pieces[1] is not None
    book.lose(pieces[1], 0)
    assert buffer.handed_out(lane) == 2


class Buffers(Steps):
    """Three partitions: fetches, receives, batches, retries, pauses, revokes."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = Buffer()
        self.lanes = [lane_of(self.buffer, number) for number in range(3)]
        self.waiting: list[list[int]] = [[], [], []]
        """Offsets that were never handed out, in order."""
        self.retries: list[list[int]] = [[], [], []]
        """Offsets of retries that wait in the buffer, in the order in which they came."""
        self.in_hand: list[Message] = []
        self.in_backoff: list[Backoff] = []

    @step(2, number=st.integers(0, 2), count=st.sampled_from([1, 2, 5, LOAD + 3]))
    def fetch(self, number: int, count: int) -> None:
        lane = self.lanes[number]
        self.waiting[number] += range(lane.ledger.scanned, lane.ledger.scanned + count)
        fetch(self.buffer, lane, count)

    @step(3, count=st.integers(1, 4))
    def receive(self, count: int) -> None:
        for _ in range(count):
            message = receive(self.buffer)
            self.handed_out([message] if message is not None else [])

    @step(2, most=st.sampled_from([1, 3, 8, 2 * LOAD]))
    def take_batch(self, most: int) -> None:
        available = self.buffer.deliverable(most)
        messages, spans = self.buffer.take_batch(most, 1.0)
        assert len(messages) == min(most, available)
        assert [(state, index) for state, first, end in spans for index in range(first, end)] == [
            (message._piece, message._index) for message in messages
        ]
        self.handed_out(messages)

    def handed_out(self, messages: list[Message]) -> None:
        if not messages:
            assert not any(
                self.waiting[number] or self.retries[number] for number in range(3) if self.lanes[number].deliverable
            ), "there was something to hand out"

        for message in messages:
            number, offset = cast(int, message.partition), cast(int, message.offset)
            assert self.lanes[number].deliverable, "a paused partition was delivered"
            piece = message._piece
            assert isinstance(piece, Piece)
            assert piece[message._index] in (FREE, WATCH)
            if piece.parent is None:
                assert self.waiting[number].pop(0) == offset, "out of order, lost or twice"
            else:
                assert self.retries[number].pop(0) == offset
                assert message.attempt > 1

        self.in_hand += messages

    @step(4, when=lambda self: self.in_hand, data=st.data(), nacked=st.booleans())
    def settle(self, data: st.DataObject, nacked: bool) -> None:
        message = self.in_hand.pop(data.draw(st.integers(0, len(self.in_hand) - 1)))
        if nacked:
            self.in_backoff.append(Backoff.of(message))
        else:
            ack(message)

    @step(when=lambda self: self.in_hand)
    def ack_everything(self) -> None:
        for message in self.in_hand:
            ack(message)

        self.in_hand.clear()

    @step(4, when=lambda self: self.in_backoff, data=st.data(), next_=st.booleans())
    def come_back(self, data: st.DataObject, next_: bool) -> None:
        backoff = self.in_backoff.pop(data.draw(st.integers(0, len(self.in_backoff) - 1)))
        message = backoff.retry()
        assert message.attempt == backoff.attempt
        number, offset = cast(int, message.partition), cast(int, message.offset)
        lane = self.lanes[number]
        if next_ and lane.deliverable:
            self.buffer.deliver_next(lane, message)
            self.retries[number].insert(0, offset)
            assert receive(self.buffer) is message, "it should have been the very next"
            self.handed_out([message])
        elif next_:
            self.buffer.deliver_next(lane, message)
            self.retries[number].append(offset)
        else:
            self.buffer.push_front(lane, [message])
            self.retries[number].append(offset)

    @step(number=st.integers(0, 2), draining=st.booleans())
    def hold_or_resume(self, number: int, draining: bool) -> None:
        """One of two reasons comes or goes; the other one may still be there."""
        lane = self.lanes[number]
        before = lane.paused, lane.draining
        lane.paused, lane.draining = (before[0], not before[1]) if draining else (not before[0], before[1])
        if sum(before) < lane.paused + lane.draining:
            self.buffer.hold(lane)
        else:
            self.buffer.resume(lane)

    @step(number=st.integers(0, 2), paused=st.booleans())
    def start_over(self, number: int, paused: bool) -> None:
        """Revoked, or moved by a seek."""
        ledger = self.lanes[number].ledger
        ledger.fence()
        assert self.buffer.remove(ledger) is self.lanes[number]
        assert self.buffer.remove(ledger) is None
        self.waiting[number], self.retries[number] = [], []
        self.in_hand = [message for message in self.in_hand if message.partition != number]
        self.in_backoff = [backoff for backoff in self.in_backoff if backoff.parent.ledger is not ledger]
        self.lanes[number] = Lane(LogBook(Assignment(TopicPartition("t", number), None), 0), paused=paused)
        self.buffer.add(self.lanes[number])

    @invariant()
    def counts_are_exact(self) -> None:
        buffer = self.buffer
        each = [len(self.waiting[number]) + len(self.retries[number]) for number in range(3)]
        at_hand = [sum(message.partition == number for message in buffer.ready) for number in range(3)]
        assert buffer.backlog == sum(each)
        assert buffer.withheld == sum(each[number] for number in range(3) if not self.lanes[number].deliverable)
        deliverable = sum(each[number] for number in range(3) if self.lanes[number].deliverable)
        assert buffer.deliverable(1_000_000) == deliverable
        assert min(5, deliverable) <= buffer.deliverable(5) <= deliverable
        assert buffer.runnable == (deliverable > len(buffer.ready))
        for number, lane in enumerate(self.lanes):
            assert lane.backlog == each[number] - at_hand[number]
            assert lane.deliverable or not at_hand[number]
            hands = sum(message.partition == number for message in self.in_hand)
            backoff = sum(waiting.parent.ledger is lane.ledger for waiting in self.in_backoff)
            assert buffer.handed_out(lane) == hands
            assert buffer.position(lane) == min(self.waiting[number], default=lane.ledger.scanned)
            lane.ledger.recount_all()
            assert lane.ledger.in_flight == each[number] + hands + backoff

    def teardown(self) -> None:
        for lane in self.lanes:
            lane.paused = lane.draining = False
            self.buffer.resume(lane)

        while self.buffer.backlog:
            self.handed_out([received(self.buffer)])

        assert self.waiting == self.retries == [[], [], []]
        assert receive(self.buffer) is None


def test_nothing_is_lost_doubled_or_out_of_order_whatever_happens() -> None:
    run(Buffers, examples=60, steps=40)
