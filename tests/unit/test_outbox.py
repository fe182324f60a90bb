"""The queues of a producer: order, one batch in flight a partition, company, and nobody forgotten."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rustmq_sdk import OutgoingMessage, SentMessage
from rustmq_sdk._core.outbox import Batch, Chunk, Outbox, PartitionQueue, PendingSend, State, Unflushed
from rustmq_sdk.values import Payloads

LINGER = 1.0
BATCH_SIZE = 4


class Desk:
    """An outbox and its queues, as a producer keeps them."""

    def __init__(self, append_messages: int = 0, *, queues: int = 3) -> None:
        self.outbox = Outbox(batch_size=BATCH_SIZE, linger=LINGER, append_messages=append_messages)
        self.queues = [PartitionQueue("t", number, b"id") for number in range(queues)]
        self.unflushed = Unflushed()
        self.told: list[str] = []

    def put(self, queue: int, names: str, now: float = 0.0, *, awaited: bool = False) -> PendingSend | None:
        messages = [OutgoingMessage(name.encode()) for name in names]
        pending = PendingSend(len(messages), lambda: self.told.append(names)) if awaited else None
        self.unflushed.unsettled += len(messages)
        chunk = Chunk(messages, range(len(messages)), pending, now, self.unflushed)
        self.outbox.put(self.queues[queue], chunk, now)
        return pending

    def take(self) -> str | None:
        batch = self.outbox.take()
        return None if batch is None else text(batch)


def text(batch: Batch) -> str:
    return b"".join(message.payload or b"" for message in batch.messages).decode()


def test_whoever_awaits_does_not_linger() -> None:
    desk = Desk()
    desk.put(0, "a", awaited=True)
    assert desk.take() == "a"


def test_messages_nobody_awaits_linger_for_company() -> None:
    desk = Desk()
    desk.put(0, "a")
    desk.put(0, "b", now=0.5)
    assert desk.take() is None
    desk.outbox.wake_due(0.99)
    assert desk.take() is None
    assert desk.outbox.next_due() == LINGER
    desk.outbox.wake_due(LINGER)
    assert desk.take() == "ab"


def test_a_full_batch_does_not_linger() -> None:
    desk = Desk()
    for name in "abcd":
        desk.put(0, name)

    assert desk.take() == "abcd"


def test_an_awaited_message_takes_the_lingering_ones_along() -> None:
    desk = Desk()
    desk.put(0, "a")
    desk.put(0, "b", awaited=True)
    assert desk.take() == "ab"


def test_a_flush_lets_nothing_linger_even_behind_a_batch_in_flight() -> None:
    desk = Desk()
    desk.put(0, "a", awaited=True)
    batch = desk.outbox.take()
    assert batch is not None
    desk.put(0, "b")
    desk.put(1, "c")
    desk.outbox.hurry(0.0)
    assert desk.take() == "c"
    desk.outbox.done(batch, 0.0)
    assert desk.take() == "b"


def test_what_comes_after_a_flush_lingers_again() -> None:
    desk = Desk()
    desk.outbox.hurry(0.0)
    desk.put(0, "a", now=0.1)
    assert desk.take() is None


def test_one_batch_of_a_partition_is_in_flight_and_others_are_not_held_up() -> None:
    desk = Desk()
    desk.put(0, "a", awaited=True)
    batch = desk.outbox.take()
    assert batch is not None
    desk.put(0, "b", awaited=True)
    desk.put(1, "c", awaited=True)
    assert desk.take() == "c"
    assert desk.take() is None
    desk.outbox.done(batch, 0.0)
    assert desk.take() == "b"


def test_sequence_numbers_count_messages_and_a_failed_batch_leaves_no_gap() -> None:
    desk = Desk()
    desk.put(0, "abc", awaited=True)
    batch = desk.outbox.take()
    assert batch is not None
    assert batch.sequence == (b"id", 0)
    desk.outbox.done(batch, 0.0)
    desk.put(0, "d", awaited=True)
    batch = desk.outbox.take()
    assert batch is not None
    assert batch.sequence == (b"id", 3)
    desk.outbox.done(batch, 0.0, fresh_id=b"new")
    desk.put(0, "e", awaited=True)
    batch = desk.outbox.take()
    assert batch is not None
    assert batch.sequence == (b"new", 0)


def test_a_ticket_is_told_once_when_the_last_of_its_messages_is_settled() -> None:
    told: list[int] = []
    pending = PendingSend(3, lambda: told.append(1))
    first, second = SentMessage("t", 0, 5, 0), SentMessage("t", 0, 6, 0)
    pending.settle([2, 0], [first, second])
    assert not told
    error = ValueError("no")
    pending.fail(1, error)
    assert told == [1]
    assert pending.results == [second, None, first]
    assert (pending.error, pending.stored) == (error, 2)


def test_what_is_ready_and_too_old_is_given_back_with_what_is_young_left() -> None:
    desk = Desk()
    desk.put(0, "a", now=0.0, awaited=True)
    desk.put(0, "b", now=5.0, awaited=True)
    desk.put(1, "c", now=1.0, awaited=True)
    assert desk.outbox.oldest_ready() == 0.0
    expired = desk.outbox.expire(11.0, 10.0)
    assert [(topic, chunk.messages[0].payload) for topic, chunk in expired] == [("t", b"a"), ("t", b"c")]
    assert desk.take() == "b"
    assert desk.take() is None
    desk.put(1, "d", now=6.0, awaited=True)
    assert desk.take() == "d"


def test_the_oldest_that_is_ready_is_known_without_a_look_at_all_of_them() -> None:
    class Looked(deque[PartitionQueue]):
        looks = 0

        def __iter__(self) -> Iterator[PartitionQueue]:
            self.looks += 1
            return super().__iter__()

    desk = Desk(queues=50)
    desk.outbox.ready = ready = Looked()
    for number in range(50):
        desk.put(number, "a", now=float(number), awaited=True)

    for number in range(50):
        oldest = desk.outbox.oldest_ready()
        assert oldest is not None
        assert oldest <= number
        assert desk.outbox.expire(50.0, 60.0) == []
        assert desk.take() == "a"

    assert ready.looks == 0
    assert desk.outbox.oldest_ready() is None


def test_what_has_its_moment_is_given_back_at_that_moment_however_it_is_rounded() -> None:
    born, timeout = 0.2, 30.0
    assert born + timeout - timeout < born
    desk = Desk()
    desk.put(0, "a", now=born, awaited=True)
    assert len(desk.outbox.expire(born + timeout, timeout)) == 1


def test_the_oldest_is_never_taken_for_younger_than_it_is() -> None:
    desk = Desk()
    desk.put(0, "a", now=0.0, awaited=True)
    batch = desk.outbox.take()
    assert batch is not None
    desk.put(0, "b", now=1.0, awaited=True)
    desk.put(1, "c", now=5.0, awaited=True)
    assert desk.outbox.oldest_ready() == 5.0
    desk.outbox.done(batch, 6.0)
    assert desk.outbox.oldest_ready() == 1.0, "it came last, and was born first"
    desk.outbox.expire(11.0, 10.0)
    assert desk.outbox.oldest_ready() == 5.0


def test_batches_of_bare_payloads_stay_columns_when_they_share_an_append() -> None:
    desk = Desk()
    for names in ([b"a", b"b"], [b"c"]):
        pending = PendingSend(len(names), lambda: None)
        chunk = Chunk(Payloads(names), range(len(names)), pending, 0.0, desk.unflushed)
        desk.outbox.put(desk.queues[0], chunk, 0.0)

    desk.put(0, "d", awaited=True)
    batch = desk.outbox.take()
    assert batch is not None
    assert text(batch) == "abcd"
    desk.outbox.done(batch, 0.0)
    for _ in range(2):
        chunk = Chunk(Payloads([b"e"]), range(1), PendingSend(1, lambda: None), 0.0, desk.unflushed)
        desk.outbox.put(desk.queues[0], chunk, 0.0)

    batch = desk.outbox.take()
    assert batch is not None
    assert isinstance(batch.messages, Payloads)
    assert batch.messages.bodies == [b"e", b"e"]


def test_who_joins_needs_company_of_the_same_flush_that_nobody_awaits() -> None:
    desk = Desk()
    queue, message = desk.queues[0], OutgoingMessage(b"b")
    assert not desk.outbox.join(queue, message, desk.unflushed)
    desk.put(0, "a")
    assert not desk.outbox.join(queue, message, Unflushed())
    assert desk.outbox.join(queue, message, desk.unflushed)
    assert desk.outbox.next_due() == LINGER
    desk.put(1, "c", awaited=True)
    assert not desk.outbox.join(desk.queues[1], message, desk.unflushed)
    desk.outbox.hurry(0.0)
    assert [desk.take(), desk.take()] == ["c", "ab"]


def test_nobody_joins_to_fill_a_batch_without_its_being_sent() -> None:
    desk = Desk()
    desk.put(0, "abc")
    assert not desk.outbox.join(desk.queues[0], OutgoingMessage(b"d"), desk.unflushed)
    desk.put(0, "d")
    assert desk.take() == "abcd"


def test_nobody_joins_to_fill_a_batch_of_several_flushes_without_its_being_sent() -> None:
    desk = Desk()
    desk.put(0, "ab")
    desk.unflushed = Unflushed()
    desk.put(0, "c")
    assert not desk.outbox.join(desk.queues[0], OutgoingMessage(b"d"), desk.unflushed)
    desk.put(0, "d")
    assert desk.take() == "abcd"


def test_batches_that_wait_for_one_partition_go_together_where_the_sink_takes_more() -> None:
    desk = Desk(append_messages=10)
    for names in ("abc", "defg", "hi", "jk"):
        desk.put(0, names, awaited=True)

    batch = desk.outbox.take()
    assert batch is not None
    assert text(batch) == "abcdefghi"
    desk.outbox.done(batch, 0.0)
    batch = desk.outbox.take()
    assert batch is not None
    assert (text(batch), batch.sequence.first) == ("jk", 9)


class OutboxModel(RuleBasedStateMachine):
    """Against a list a partition: what comes out is what went in, in order, and nobody is forgotten."""

    append_messages = BATCH_SIZE

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(self.append_messages)
        self.now = 0.0
        self.model: list[deque[bytes]] = [deque(), deque(), deque()]
        self.in_flight: dict[int, Batch] = {}
        self.next_name = 0

    def names(self, count: int) -> list[bytes]:
        self.next_name += count
        return [str(number).encode() for number in range(self.next_name - count, self.next_name)]

    @rule(queue=st.integers(0, 2), count=st.integers(1, BATCH_SIZE), awaited=st.booleans())
    def put(self, queue: int, count: int, awaited: bool) -> None:
        names = self.names(count)
        pending = PendingSend(count, lambda: None) if awaited else None
        messages = [OutgoingMessage(name) for name in names]
        chunk = Chunk(messages, range(count), pending, self.now, self.desk.unflushed)
        self.desk.outbox.put(self.desk.queues[queue], chunk, self.now)
        self.model[queue].extend(names)

    @rule(queue=st.integers(0, 2))
    def join(self, queue: int) -> None:
        (name,) = self.names(1)
        if self.desk.outbox.join(self.desk.queues[queue], OutgoingMessage(name), self.desk.unflushed):
            self.model[queue].append(name)

    @rule()
    def take(self) -> None:
        batch = self.desk.outbox.take()
        if batch is None:
            return

        number = batch.queue.partition
        assert number not in self.in_flight
        assert 0 < len(batch.messages) <= self.append_messages
        assert [message.payload for message in batch.messages] == [
            self.model[number].popleft() for _ in range(len(batch.messages))
        ]
        self.in_flight[number] = batch

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), failed=st.booleans())
    def done(self, data: Any, failed: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_flight)))
        self.desk.outbox.done(self.in_flight.pop(number), self.now, fresh_id=b"new" if failed else None)

    @rule(seconds=st.sampled_from([0.1, 0.5, LINGER]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds
        self.desk.outbox.wake_due(self.now)

    @rule()
    def hurry(self) -> None:
        self.desk.outbox.hurry(self.now)

    @invariant()
    def every_queue_knows_what_it_holds(self) -> None:
        for queue, expected in zip(self.desk.queues, self.model, strict=True):
            assert queue.count == len(expected) == sum(len(chunk.messages) for chunk in queue.chunks)

    @invariant()
    def nobody_is_forgotten(self) -> None:
        ready = Counter(queue.partition for queue in self.desk.outbox.ready)
        due = self.desk.outbox.next_due()
        for queue in self.desk.queues:
            assert ready[queue.partition] == (queue.state is State.READY)
            assert (queue.state is State.BUSY) == (queue.partition in self.in_flight)
            if queue.state is State.LINGERING:
                assert due is not None
                assert due <= queue.due
                assert queue.due <= self.now + LINGER
            elif queue.state is State.IDLE:
                assert not queue.chunks


class OutboxOfALargeSinkModel(OutboxModel):
    """The same where several batches share an append."""

    append_messages = 2 * BATCH_SIZE + 1


TestOutboxModel = OutboxModel.TestCase
TestOutboxOfALargeSinkModel = OutboxOfALargeSinkModel.TestCase
