"""How much is fetched: the bounds hold whatever is answered, and no partition starves another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant

from rustmq_sdk._core.buffer import Buffer
from rustmq_sdk._core.intake import BYTE_FLOORS, Demand, Intake, Limits
from rustmq_sdk._core.lane import Lane, Waiting
from rustmq_sdk._core.log_book import LogBook
from rustmq_sdk.message import DONE, WATCH, AnyPiece, Message, Settler
from rustmq_sdk.values import Assignment, TopicPartition
from tests.unit.steps import Steps, run, step

NOBODY = cast(Settler, None)
"""The owner of these messages: the tests settle them through the ledger, as the runtime's settler does."""
PARTITIONS = [1, 3, 100]


def limits(
    prefetch: int = 1000,
    max_in_flight: int = 10_000,
    max_in_flight_bytes: int = 1 << 26,
    max_uncommitted: int = 100_000,
    max_span: int = 100_000,
) -> Limits:
    return Limits(prefetch, max_in_flight, max_in_flight_bytes, max_uncommitted, max_span)


def build(records: Sequence[Any], piece: AnyPiece, first: int) -> list[Message]:
    return [Message(b"", None, (), offset, 0, piece, first + number) for number, offset in enumerate(records)]


class Consumer:
    """Lanes, a buffer, an intake, and a driver that answers every demand with as much as was asked for."""

    def __init__(self, bounds: Limits, partitions: int, *, size: int = 10) -> None:
        self.bounds = bounds
        self.size = self.largest = size
        self.buffer = Buffer()
        self.intake = Intake(bounds)
        self.lanes = [self.assign(number) for number in range(partitions)]
        self.left: dict[Lane, int] = {}
        """Messages that a partition's log still has; without an entry it never ends."""
        self.same_partitions = True
        """No partition came or went: what was fetched when there were fewer fits into their larger floors."""
        self.fetched: list[Demand] = []
        self.received: dict[Lane, int] = {}
        self._served: dict[Lane, int] = {}

    def assign(self, number: int) -> Lane:
        lane = Lane(LogBook(Assignment(TopicPartition("t", number), None), 0))
        self.buffer.add(lane)
        return lane

    def fetch(self) -> bool:
        """One round of the fetcher; whether it asked for something and got it."""
        for lane in self.lanes:
            if lane.ledger.open:
                lane.ledger.recount_all()

        demand = self.intake.demand(self.lanes, self.buffer.backlog, self.buffer.withheld)
        return demand is not None and self.answer(demand)

    def answer(self, demand: Demand) -> bool:
        assert demand.max_messages > 0
        assert demand.max_bytes > 0
        lanes = [lane for lane in demand.lanes if self.left.get(lane, 1) > 0]
        if not lanes:
            return False

        # Promise 2 of a subscription: whoever has records is served within as many fetches as there are wanted.
        lane = min(lanes, key=lambda lane: self._served.get(lane, 0))
        self._served[lane] = len(self.fetched) + 1
        count = max(1, min(demand.max_messages, demand.max_bytes // self.size, self.left.get(lane, 1 << 30)))
        if lane in self.left:
            self.left[lane] -= count

        first = lane.ledger.scanned
        offsets = range(first, first + count)
        size = count * self.size
        piece, _ = lane.log.admit(offsets, offsets.stop, size=size, largest=self.size, owner=NOBODY)
        assert piece is not None
        self.buffer.push(Waiting(piece, offsets, build))
        self.fetched.append(demand)
        self.check()
        return True

    def receive(self) -> Message | None:
        if not self.buffer.ready and not self.buffer.load(0.0):
            return None

        message = self.buffer.ready.pop()
        lane = self.lanes[cast(int, message.partition)]
        self.received[lane] = self.received.get(lane, 0) + 1
        return message

    def ack(self, message: Message) -> None:
        piece = cast(Any, message._piece)
        before = piece[message._index]
        piece[message._index] = DONE
        if before == WATCH:
            piece.ledger.note(piece, message._index)

    def pause(self, lane: Lane) -> None:
        lane.paused = True
        self.buffer.hold(lane)

    def check(self) -> None:
        bounds = self.bounds
        floors = len(self.lanes) * max(1, bounds.prefetch // len(self.lanes))
        assert not self.same_partitions or self.buffer.backlog <= bounds.prefetch + floors
        assert sum(lane.ledger.in_flight for lane in self.lanes) <= bounds.max_in_flight
        # Beyond the bytes by one message at most, and by none where they are a multiple of its size. Beside a message
        # that fills them alone there is an eighth of them, and again one message at most beyond that.
        bound, largest = bounds.max_in_flight_bytes, self.largest
        most = bound + largest - 1 if largest < bound else 2 * largest + bound // BYTE_FLOORS
        assert sum(lane.ledger.in_flight_bytes for lane in self.lanes) <= most

    def work(self, rounds: int, *, keeps: Lane | None = None) -> None:
        """Fetches, receives and acks; what comes from the lane ``keeps`` is never settled."""
        for _ in range(rounds):
            fetched = self.fetch()
            handled = 0
            while handled < self.intake.low and (message := self.receive()) is not None:
                handled += 1
                if keeps is None or message.partition != keeps.ledger.assignment.tp.partition:
                    self.ack(message)

            if not fetched and not handled:
                return

    def keep_all(self, stuck: Lane) -> None:
        """Receives until nothing comes any more, and settles nothing."""
        while self.fetch():
            while self.receive() is not None:
                pass

        self.received.clear()

    def starving(self, *but: Lane) -> list[TopicPartition]:
        return [lane.ledger.assignment.tp for lane in self.lanes if lane not in (*but, *self.received)]


@pytest.mark.parametrize("partitions", [*PARTITIONS, 1000])
def test_full_pieces_are_asked_for_while_all_is_well(partitions: int) -> None:
    consumer = Consumer(limits(), partitions)
    consumer.work(40)
    # Half of a full buffer is not low yet.
    assert len(consumer.fetched) >= 20
    assert all(demand.max_messages >= consumer.intake.low and not demand.partial for demand in consumer.fetched)


@pytest.mark.parametrize(
    ("partitions", "bounds"),
    [
        *((partitions, limits()) for partitions in PARTITIONS),
        *((partitions, limits(prefetch=1)) for partitions in PARTITIONS),
        (1000, limits(prefetch=50, max_in_flight=2000)),
    ],
)
def test_a_paused_partition_with_a_full_buffer_starves_nobody(partitions: int, bounds: Limits) -> None:
    consumer = Consumer(bounds, partitions)
    paused = consumer.lanes[0]
    for lane in consumer.lanes[1:]:
        consumer.left[lane] = 0

    assert consumer.fetch()
    assert consumer.buffer.backlog == bounds.prefetch
    consumer.pause(paused)
    for lane in consumer.lanes[1:]:
        consumer.left[lane] = 1

    consumer.work(2 * partitions)
    assert consumer.starving(paused) == []


@pytest.mark.parametrize("partitions", PARTITIONS)
@pytest.mark.parametrize(
    "bounds",
    [
        limits(max_in_flight=2000),
        limits(prefetch=1, max_in_flight=200),
        limits(max_in_flight=100_000, max_in_flight_bytes=100_000),
    ],
)
def test_a_partition_where_nothing_is_settled_starves_nobody(partitions: int, bounds: Limits) -> None:
    consumer = Consumer(bounds, partitions)
    stuck = consumer.lanes[0]
    for lane in consumer.lanes[1:]:
        consumer.left[lane] = 0

    consumer.keep_all(stuck)
    for lane in consumer.lanes[1:]:
        consumer.left[lane] = 1

    consumer.work(2 * partitions, keeps=stuck)
    assert consumer.starving(stuck) == []


@pytest.mark.parametrize("partitions", PARTITIONS)
@pytest.mark.parametrize("size", [300, 1000, 10_000])
def test_a_message_for_each_partition_does_not_add_up_beyond_the_bytes(partitions: int, size: int) -> None:
    """The model's check looks after each fetch: what each partition has kept free is not a message of any size."""
    consumer = Consumer(limits(max_in_flight_bytes=1000), partitions, size=size)
    consumer.keep_all(consumer.lanes[0])
    in_flight = sum(lane.ledger.in_flight for lane in consumer.lanes)
    assert in_flight == 4 if size == 300 else min(partitions, 2)


@pytest.mark.parametrize("partitions", [3, 100])
def test_a_stuck_message_that_is_larger_than_all_bytes_starves_nobody(partitions: int) -> None:
    consumer = Consumer(limits(max_in_flight_bytes=100_000), partitions, size=200_000)
    stuck = consumer.lanes[0]
    for lane in consumer.lanes:
        consumer.left[lane] = int(lane is stuck)

    consumer.keep_all(stuck)
    consumer.size = 10
    for lane in consumer.lanes:
        consumer.left[lane] = 1000

    consumer.work(2 * partitions, keeps=stuck)
    assert consumer.starving(stuck) == []


def test_nobody_waits_for_a_quiet_partition() -> None:
    """A fetch waits where there is nothing: so whoever has kept room free is asked together."""
    consumer = Consumer(limits(), 100)
    consumer.fetch()
    consumer.pause(consumer.lanes[0])
    assert consumer.buffer.withheld == 1000
    for lane in consumer.lanes[:-1]:
        consumer.left[lane] = 0

    for _ in range(3):
        assert consumer.fetch()
        demand = consumer.fetched[-1]
        assert (len(demand.lanes), demand.max_messages, demand.partial) == (99, 10, True)
        while (message := consumer.receive()) is not None:
            consumer.ack(message)


def test_little_shared_room_does_not_make_tiny_pieces_while_there_is_something_to_hand_out() -> None:
    consumer = Consumer(limits(), 10)
    consumer.left[consumer.lanes[0]] = 900
    consumer.fetch()
    consumer.pause(consumer.lanes[0])
    consumer.fetch()
    assert consumer.fetched[-1].max_messages == 100
    consumer.receive()
    consumer.fetch()
    assert (consumer.fetched[-1].max_messages, consumer.fetched[-1].partial) == (100, True)


def test_a_partition_with_little_room_does_not_make_all_pieces_tiny() -> None:
    consumer = Consumer(limits(), 10)
    consumer.fetch()
    consumer.pause(consumer.lanes[0])
    for lane in consumer.lanes:
        consumer.left[lane] = 0

    consumer.left[consumer.lanes[2]] = 99
    consumer.fetch()
    for lane in consumer.lanes[3:]:
        consumer.left[lane] = 1000

    sizes = []
    for _ in range(4):
        consumer.buffer.load(0.0)
        for message in consumer.buffer.ready:
            if message.partition != 2:
                consumer.ack(message)

        consumer.buffer.ready.clear()
        consumer.fetch()
        sizes.append(consumer.fetched[-1].max_messages)

    assert sorted(sizes) == [1, 1, 100, 100]


@pytest.mark.parametrize("partitions", PARTITIONS)
def test_a_hot_partition_starves_nobody(partitions: int) -> None:
    consumer = Consumer(limits(), partitions)
    for lane in consumer.lanes[1:]:
        consumer.left[lane] = 2

    consumer.work(2 * partitions)
    assert consumer.starving() == []


@pytest.mark.parametrize(("partitions", "max_in_flight"), [(3, 1), (3, 2), (100, 1), (100, 50), (1000, 100)])
def test_the_bound_holds_and_messages_flow_with_fewer_in_flight_than_partitions(
    partitions: int, max_in_flight: int
) -> None:
    consumer = Consumer(limits(prefetch=10, max_in_flight=max_in_flight), partitions)
    for lane in consumer.lanes:
        consumer.left[lane] = 1

    consumer.work(2 * partitions)
    assert consumer.starving() == []


def test_new_partitions_do_not_push_what_is_in_flight_over_the_bound() -> None:
    """The old ones may have used up all there is; then the new ones wait until something is settled."""
    consumer = Consumer(limits(prefetch=100, max_in_flight=100), 1)
    hands = []
    while consumer.fetch():
        while (message := consumer.receive()) is not None:
            hands.append(message)

    assert len(hands) == 100
    consumer.lanes.append(consumer.assign(1))
    assert not consumer.fetch()
    for message in hands[:60]:
        consumer.ack(message)

    assert consumer.fetch()


def test_a_partition_whose_checkpoint_is_full_gets_nothing_until_it_has_moved() -> None:
    consumer = Consumer(limits(), 2)
    full = consumer.lanes[0]
    consumer.work(1, keeps=full)
    full.pressed_at = full.ledger.watermark
    consumer.received.clear()
    consumer.work(20, keeps=full)
    consumer.received.clear()
    consumer.work(5, keeps=full)
    assert consumer.starving() == [TopicPartition("t", 0)]
    full.pressed_at = None
    consumer.work(5, keeps=full)
    assert consumer.starving() == []


def test_a_full_checkpoint_holds_nothing_back_that_alone_can_move_the_watermark() -> None:
    consumer = Consumer(limits(), 2)
    full = consumer.lanes[0]
    assert full.ledger.watermark == full.ledger.scanned
    full.pressed_at = full.ledger.watermark
    consumer.work(5)
    assert consumer.starving() == []


def test_a_partition_stops_at_its_span_and_goes_on_when_its_watermark_has_moved() -> None:
    consumer = Consumer(limits(max_span=3000), 2)
    slow = consumer.lanes[0]
    first = None
    for _ in range(40):
        consumer.fetch()
        while (message := consumer.receive()) is not None:
            if first is None and message.partition == 0:
                first = message
            else:
                consumer.ack(message)

    assert 3000 <= slow.ledger.span < 3000 + consumer.bounds.prefetch
    scanned, other = slow.ledger.scanned, consumer.lanes[1].ledger.scanned
    consumer.work(3)
    assert (slow.ledger.scanned, consumer.lanes[1].ledger.scanned > other) == (scanned, True)
    assert first is not None
    consumer.ack(first)
    consumer.work(3)
    assert slow.ledger.scanned > scanned


def test_settled_pieces_above_one_that_is_not_do_not_look_like_a_wide_span() -> None:
    """The span from above is that of the first open piece; when that is wide, the exact one counts."""
    consumer = Consumer(limits(max_span=900), 1)
    consumer.fetch()
    for number in range(1000):
        message = consumer.receive()
        assert message is not None
        if number < 900:
            consumer.ack(message)

    ledger = consumer.lanes[0].ledger
    assert (ledger.span_at_most, ledger.span) == (1000, 100)
    assert consumer.fetch()


def test_too_much_uncommitted_is_the_sum_of_all_partitions() -> None:
    consumer = Consumer(limits(max_uncommitted=2500), 2)
    consumer.work(2)
    assert not consumer.intake.too_much_uncommitted(consumer.lanes)
    while sum(lane.ledger.uncommitted for lane in consumer.lanes) < 2500:
        consumer.work(1)

    each = [lane.ledger.uncommitted for lane in consumer.lanes]
    assert max(each) < 2500 <= sum(each)
    assert consumer.intake.too_much_uncommitted(consumer.lanes)
    for lane in consumer.lanes:
        snapshot = lane.log.snapshot(None)
        assert snapshot is not None
        lane.log.wrote(snapshot)

    assert not consumer.intake.too_much_uncommitted(consumer.lanes)


@pytest.mark.parametrize("bound", [500, 3000, 20_000, 60_000])
def test_too_much_uncommitted_is_noticed_before_the_bound_is_passed_by_a_fetch(bound: int) -> None:
    consumer = Consumer(limits(max_in_flight=2000, max_uncommitted=bound), 3)
    while not consumer.intake.too_much_uncommitted(consumer.lanes):
        consumer.work(1)
        assert sum(lane.ledger.uncommitted for lane in consumer.lanes) <= bound + consumer.bounds.prefetch


def test_only_unsettled_messages_make_room_worth_looking_for() -> None:
    consumer = Consumer(limits(max_in_flight=2000), 1)
    assert not consumer.intake.short_of_room([])
    consumer.fetch()
    assert not consumer.intake.short_of_room(consumer.lanes)
    while consumer.receive() is not None:
        pass

    consumer.fetch()
    assert consumer.intake.short_of_room(consumer.lanes)


def test_nothing_is_asked_for_while_enough_is_at_hand_or_nobody_may_have_it() -> None:
    consumer = Consumer(limits(), 2)
    consumer.fetch()
    assert consumer.intake.demand(consumer.lanes, consumer.buffer.backlog, 0) is None
    for lane in consumer.lanes:
        consumer.pause(lane)

    assert consumer.intake.demand(consumer.lanes, consumer.buffer.backlog, consumer.buffer.withheld) is None


class Intakes(Steps):
    """Small bounds, and users and rebalances that do as they like."""

    @initialize(
        prefetch=st.integers(1, 12),
        max_in_flight=st.integers(1, 20) | st.just(200),
        size=st.integers(1, 9),
        size_bound=st.integers(1, 200),
        partitions=st.integers(1, 6),
    )
    def begin(self, prefetch: int, max_in_flight: int, size: int, size_bound: int, partitions: int) -> None:
        bounds = limits(prefetch, max_in_flight, size_bound, max_span=50)
        self.consumer = Consumer(bounds, partitions, size=size)
        self.in_hand: list[Message] = []

    @step(3, rounds=st.integers(1, 4))
    def fetch(self, rounds: int) -> None:
        for _ in range(rounds):
            self.consumer.fetch()

    @step(3, count=st.integers(1, 5))
    def receive(self, count: int) -> None:
        for _ in range(count):
            message = self.consumer.receive()
            if message is not None:
                self.in_hand.append(message)

    @step(2, data=st.data(), count=st.integers(1, 10))
    def ack(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.in_hand))):
            self.consumer.ack(self.in_hand.pop(data.draw(st.integers(0, len(self.in_hand) - 1))))

    @step(data=st.data())
    def pause_or_resume(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from(range(len(self.consumer.lanes))))
        chosen = self.consumer.lanes[lane]
        if chosen.paused:
            chosen.paused = False
            self.consumer.buffer.resume(chosen)
        else:
            self.consumer.pause(chosen)

    @step(data=st.data())
    def move_a_partition(self, data: st.DataObject) -> None:
        """Its last one leaves, or one more comes."""
        consumer = self.consumer
        consumer.same_partitions = False
        number = len(consumer.lanes)
        if number > 1 and data.draw(st.booleans()):
            lane = consumer.lanes.pop()
            lane.ledger.fence()
            consumer.buffer.remove(lane.ledger)
            self.in_hand = [message for message in self.in_hand if message.partition != number - 1]
        elif number < 8:
            consumer.lanes.append(consumer.assign(number))

    @invariant()
    def bounds_hold(self) -> None:
        if hasattr(self, "consumer"):
            self.consumer.check()

    def teardown(self) -> None:
        """Whatever happened before: all is resumed and acked, and everybody gets something."""
        if not hasattr(self, "consumer"):
            return

        consumer = self.consumer
        for lane in consumer.lanes:
            lane.paused = False
            consumer.buffer.resume(lane)

        for message in self.in_hand:
            consumer.ack(message)

        consumer.received.clear()
        consumer.work(4 * len(consumer.lanes))
        assert consumer.starving() == []


def test_the_bounds_hold_whatever_happens() -> None:
    run(Intakes, examples=100, steps=30)
