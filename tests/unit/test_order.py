"""Order by key and by partition: who waits for whom, that nobody waits for ever, and that nothing adds up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import strategies as st

from rustmq_sdk._core.buffer import Buffer
from rustmq_sdk._core.lane import Lane, Waiting
from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._core.log_book import LogBook
from rustmq_sdk._core.order import KeyOrder, slot_of, unpark, unpark_all
from rustmq_sdk._core.piece import Piece
from rustmq_sdk.message import DONE, FREE, TAKEN, WATCH, AnyPiece, Message, Settler, Span
from rustmq_sdk.values import Assignment, TopicPartition
from tests.unit.steps import Steps, run, step

NOBODY = cast(Settler, None)
"""The owner of these messages: the tests settle them through the ledger, as the runtime's settler does."""
Record = tuple[int, bytes | None]


def build(records: Sequence[Any], piece: AnyPiece, first: int) -> list[Message]:
    return [
        Message(b"", key, (), offset, 0, piece, first + number)
        for number, (offset, key) in enumerate(cast(Sequence[Record], records))
    ]


class Desk:
    """A buffer whose messages are taken in order, settled, nacked and brought back as the runtime does it."""

    def __init__(self, *, whole_partition: bool = False) -> None:
        self.buffer = Buffer()
        self.order = KeyOrder(self.buffer, whole_partition=whole_partition)

    def assign(self, number: int = 0) -> Lane:
        lane = Lane(LogBook(Assignment(TopicPartition("t", number), None), 0))
        self.buffer.add(lane)
        return lane

    def fetch(self, lane: Lane, keys: Sequence[bytes | None]) -> None:
        first = lane.ledger.scanned
        offsets = range(first, first + len(keys))
        piece, _ = lane.log.admit(offsets, offsets.stop, size=len(keys), largest=1, owner=NOBODY)
        assert piece is not None
        self.buffer.push(Waiting(piece, list(zip(offsets, keys, strict=True)), build))

    def pop(self) -> Message | None:
        while True:
            try:
                return self.order.pop()
            except IndexError:
                if not self.buffer.load(0.0):
                    return None

    def pop_all(self) -> list[int | None]:
        popped = []
        while (message := self.pop()) is not None:
            popped.append(message.offset)

        return popped

    def take(self, most: int) -> tuple[list[Message], list[Span]]:
        return self.order.take_batch(most, 0.0)

    def ack(self, message: Message) -> None:
        piece, index = message._piece, message._index
        assert isinstance(piece, Piece)
        before = piece[index]
        assert before in (FREE, WATCH)
        piece[index] = DONE
        if before == WATCH:
            root, slot = slot_of(message)
            piece.ledger.note(piece, index)
            unpark(self.buffer, root, slot)

    def ack_span(self, span: Span) -> None:
        piece, first, end = span
        assert isinstance(piece, Piece)
        hooked = [index for index in piece.hooks or () if first <= index < end and piece[index] in (FREE, WATCH)]
        if not piece.settle_range(first, end):
            return

        piece.ledger.note(piece, end - 1)
        root = piece if piece.parent is None else piece.parent
        for index in hooked if piece.parent is None else [piece.parent_index]:
            unpark(self.buffer, root, index)

    def nack(self, message: Message) -> Message:
        """Takes the message back; answers its next attempt, for :meth:`retry`."""
        piece = message._piece
        assert isinstance(piece, Piece)
        parent, index = piece.ledger.take(piece, message._index)
        child = piece.ledger.retry(parent, index, piece.attempt + 1)
        return Message(b"", message.key, (), message.offset, 0, child, 0)

    def retry(self, message: Message) -> None:
        self.buffer.push_front(self.buffer.lanes[slot_of(message)[0].ledger], [message])

    def dead_letter(self, message: Message) -> None:
        piece, index = slot_of(message)
        assert piece[index] == TAKEN
        piece[index] = DONE
        piece.ledger.note(piece, index)
        unpark(self.buffer, piece, index)


def keys(text: str) -> list[bytes | None]:
    return [None if letter == "-" else letter.encode() for letter in text]


def popped(desk: Desk) -> Message:
    message = desk.pop()
    assert message is not None
    return message


def test_a_message_waits_for_the_one_of_its_key_and_others_go_by() -> None:
    desk = Desk()
    desk.fetch(desk.assign(), keys("aab-a"))
    first = popped(desk)
    assert desk.pop_all() == [2, 3]
    desk.ack(first)
    second = popped(desk)
    assert second.offset == 1
    assert desk.pop() is None
    desk.ack(second)
    assert popped(desk).offset == 4


def test_a_nacked_message_holds_back_its_own_key_only() -> None:
    desk = Desk()
    desk.fetch(desk.assign(), keys("aabab"))
    retry = desk.nack(popped(desk))
    second = popped(desk)
    assert second.offset == 2
    assert desk.pop() is None
    desk.retry(retry)
    again = popped(desk)
    assert (again.offset, again.attempt) == (0, 2)
    desk.ack(again)
    assert desk.pop_all() == [1]
    desk.ack(second)
    assert desk.pop_all() == [4]


def test_a_whole_partition_is_one_key_and_partitions_do_not_wait_for_each_other() -> None:
    desk = Desk(whole_partition=True)
    desk.fetch(desk.assign(0), keys("ab-"))
    desk.fetch(desk.assign(1), keys("a"))
    first = popped(desk)
    other = popped(desk)
    assert (first.topic, first.partition, other.partition) == ("t", 0, 1)
    assert desk.pop() is None
    desk.ack(first)
    assert desk.pop_all() == [1]


def test_a_dead_letter_lets_the_next_of_its_key_go() -> None:
    desk = Desk()
    desk.fetch(desk.assign(), keys("aa"))
    gone = desk.nack(popped(desk))
    assert desk.pop() is None
    desk.dead_letter(gone)
    assert desk.pop_all() == [1]


def test_a_batch_may_hold_several_of_a_key_and_the_next_batch_waits_for_all_of_them() -> None:
    desk = Desk()
    desk.fetch(desk.assign(), keys("aaaa"))
    batch, _ = desk.take(2)
    assert [message.offset for message in batch] == [0, 1]
    assert desk.take(2) == ([], [])
    desk.ack(batch[1])
    assert desk.take(2) == ([], [])
    desk.ack(batch[0])
    assert [message.offset for message in desk.take(2)[0]] == [2]


def test_messages_of_one_key_nacked_together_come_back_in_order_whichever_is_due_first() -> None:
    for due in ((0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)):
        desk = Desk()
        desk.fetch(desk.assign(), keys("aaaa"))
        batch, _ = desk.take(3)
        retries = [desk.nack(message) for message in batch]
        order = []
        for number in due:
            desk.retry(retries[number])
            while (message := desk.pop()) is not None:
                order.append(message.offset)
                desk.ack(message)

        assert order == [0, 1, 2, 3], due


def test_a_batch_of_one_key_may_be_longer_than_the_interpreters_stack() -> None:
    desk = Desk(whole_partition=True)
    lane = desk.assign()
    for _ in range(2):
        desk.fetch(lane, keys("a" * 3000))
        batch, spans = desk.take(3000)
        assert len(batch) == 3000
        for span in spans:
            desk.ack_span(span)


def test_busy_keys_do_not_add_up() -> None:
    desk = Desk()
    lane = desk.assign()
    for number in range(200):
        desk.fetch(lane, [b"%d" % (number * 50 + more) for more in range(50)])
        while (message := desk.pop()) is not None:
            desk.ack(message)

    assert len(lane.ledger.busy) <= 2 * lane.ledger.in_flight + 1000 + 50


def test_what_a_key_remembers_does_not_grow_while_one_of_its_messages_is_tried_for_ever() -> None:
    desk = Desk()
    lane = desk.assign()
    desk.fetch(lane, keys("a"))
    poison = desk.nack(popped(desk))
    for _ in range(50):
        desk.fetch(lane, keys("aa"))
        desk.retry(poison)
        batch, _ = desk.take(3)
        poison = desk.nack(batch[0])
        for message in batch[1:]:
            desk.ack(message)

    length, holder = 0, lane.ledger.busy.get(b"a")
    while holder is not None:
        length, holder = length + 1, holder[2]

    assert length <= 4


def test_parked_messages_of_a_lost_partition_go_with_it() -> None:
    desk = Desk()
    lane = desk.assign()
    desk.fetch(lane, keys("aaa"))
    first = popped(desk)
    assert desk.pop() is None
    assert lane.parked_messages == 2
    lane.ledger.fence()
    desk.buffer.remove(lane.ledger)
    assert not unpark(desk.buffer, *slot_of(first))
    assert desk.pop() is None
    assert desk.buffer.backlog == lane.parked_messages == 0


def test_a_paused_partition_keeps_what_its_keys_let_go() -> None:
    desk = Desk()
    lane = desk.assign()
    desk.fetch(lane, keys("aa"))
    first = popped(desk)
    assert desk.pop() is None
    lane.paused = True
    desk.buffer.hold(lane)
    desk.ack(first)
    assert desk.pop() is None
    lane.paused = False
    desk.buffer.resume(lane)
    assert desk.pop_all() == [1]


def test_without_order_parked_messages_come_in_the_order_of_their_offsets() -> None:
    desk = Desk()
    desk.fetch(desk.assign(), keys("abaabba"))
    assert desk.pop_all() == [0, 1]
    unpark_all(desk.buffer)
    assert desk.buffer.load(0.0) == 5
    assert [message.offset for message in reversed(desk.buffer.ready)] == [2, 3, 4, 5, 6]


def test_a_message_in_backoff_holds_its_key_for_the_next_run_as_well() -> None:
    desk = Desk()
    desk.fetch(desk.assign(), keys("aaa"))
    retry = desk.nack(popped(desk))
    assert desk.pop() is None
    unpark_all(desk.buffer)
    desk.order = KeyOrder(desk.buffer, whole_partition=False)
    assert desk.pop() is None
    desk.retry(retry)
    again = popped(desk)
    assert again.offset == 0
    desk.ack(again)
    assert desk.pop_all() == [1]


class Orders(Steps):
    """Two partitions, three keys, and everything that can happen to their messages, against one dict of states."""

    whole_partition = False
    most = 1

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(whole_partition=self.whole_partition)
        self.lanes = [self.desk.assign(0), self.desk.assign(1)]
        self.keys: dict[tuple[Ledger, int], bytes | None] = {}
        """Of all messages that are not settled."""
        self.in_hand: list[Message] = []
        self.in_backoff: list[Message] = []
        self.together: set[tuple[Ledger, int]] = set()
        """Handed out beside another one of their key, in one batch."""

    @step(3, number=st.integers(0, 1), text=st.text("ab-", min_size=1, max_size=6))
    def fetch(self, number: int, text: str) -> None:
        ledger = self.lanes[number].ledger
        for more, key in enumerate(keys(text)):
            self.keys[ledger, ledger.scanned + more] = key

        self.desk.fetch(self.lanes[number], keys(text))

    @step(6)
    def receive(self) -> None:
        if self.most == 1:
            message = self.desk.pop()
            self.handed_out([message] if message is not None else [])
        else:
            self.handed_out(self.desk.take(self.most)[0])

    def handed_out(self, messages: list[Message]) -> None:
        batch: list[tuple[Ledger, int]] = []
        for message in messages:
            ledger, offset = slot_of(message)[0].ledger, cast(int, message.offset)
            assert (ledger, offset) in self.keys
            rivals = [place for place in self.keys if self.same_key(place, (ledger, offset))]
            earlier = {place for place in rivals if place[1] < offset}
            assert earlier <= set(batch), "an earlier one of its key is unsettled"
            hands = {(slot_of(other)[0].ledger, other.offset) for other in self.in_hand}
            assert (ledger, offset) not in hands, "handed out twice"
            if hands & set(rivals):
                assert (ledger, offset) in self.together, "two of a key in different hands"

            if earlier:
                self.together |= earlier | {(ledger, offset)}

            batch.append((ledger, offset))

        self.in_hand += messages

    def same_key(self, one: tuple[Ledger, int], other: tuple[Ledger, int]) -> bool:
        if one[0] is not other[0] or one[1] == other[1]:
            return False

        return self.whole_partition or self.keys[one] == self.keys[other] != None  # noqa: E711

    def settled(self, message: Message) -> None:
        del self.keys[slot_of(message)[0].ledger, cast(int, message.offset)]

    @step(4, when=lambda self: self.in_hand, data=st.data())
    def ack(self, data: st.DataObject) -> None:
        message = self.in_hand.pop(data.draw(st.integers(0, len(self.in_hand) - 1)))
        self.settled(message)
        self.desk.ack(message)

    @step(when=lambda self: self.in_hand)
    def ack_everything_at_once(self) -> None:
        for message in self.in_hand:
            self.settled(message)
            self.desk.ack_span((message._piece, message._index, message._index + 1))

        self.in_hand.clear()

    @step(3, when=lambda self: self.in_hand, data=st.data())
    def nack(self, data: st.DataObject) -> None:
        message = self.in_hand.pop(data.draw(st.integers(0, len(self.in_hand) - 1)))
        self.in_backoff.append(self.desk.nack(message))

    @step(4, when=lambda self: self.in_backoff, data=st.data(), dead=st.booleans())
    def come_back_or_be_dead_lettered(self, data: st.DataObject, dead: bool) -> None:
        message = self.in_backoff.pop(data.draw(st.integers(0, len(self.in_backoff) - 1)))
        if dead:
            self.settled(message)
            self.desk.dead_letter(message)
        else:
            self.desk.retry(message)

    @step(number=st.integers(0, 1))
    def pause_or_resume(self, number: int) -> None:
        lane = self.lanes[number]
        lane.paused = not lane.paused
        if lane.paused:
            self.desk.buffer.hold(lane)
        else:
            self.desk.buffer.resume(lane)

    @step(number=st.integers(0, 1))
    def move_elsewhere(self, number: int) -> None:
        ledger = self.lanes[number].ledger
        ledger.fence()
        self.desk.buffer.remove(ledger)
        self.keys = {place: key for place, key in self.keys.items() if place[0] is not ledger}
        self.in_hand = [message for message in self.in_hand if slot_of(message)[0].ledger is not ledger]
        self.in_backoff = [message for message in self.in_backoff if slot_of(message)[0].ledger is not ledger]
        self.lanes[number] = self.desk.assign(number)

    @step()
    def end_the_run_and_begin_another(self) -> None:
        unpark_all(self.desk.buffer)
        self.desk.order = KeyOrder(self.desk.buffer, whole_partition=self.whole_partition)

    def teardown(self) -> None:
        """Whatever happened before: if everything is acked from here on, everything comes, and nothing is left."""
        for lane in self.lanes:
            lane.paused = False
            self.desk.buffer.resume(lane)

        for message in self.in_backoff:
            self.desk.retry(message)

        while self.keys:
            before = len(self.keys)
            self.receive()
            for message in self.in_hand:
                self.settled(message)
                self.desk.ack(message)

            self.in_hand.clear()
            assert len(self.keys) < before, f"never delivered: {sorted(offset for _, offset in self.keys)}"

        assert self.desk.buffer.backlog == 0
        assert not any(lane.parked for lane in self.lanes)


class Batches(Orders):
    most = 4


class OrdersOfPartitions(Orders):
    whole_partition = True


class BatchesOfPartitions(Batches):
    whole_partition = True


@pytest.mark.parametrize("machine", [Orders, Batches, OrdersOfPartitions, BatchesOfPartitions])
def test_order_holds_whatever_happens(machine: type[Orders]) -> None:

    run(machine, examples=60, steps=40)
