"""The producer over a memory sink: durable, in order, once, in time, bounded, and nothing fails unheard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from rustmq_sdk import (
    BufferFull,
    Client,
    ConfigurationError,
    ConsumerStateError,
    OutcomeUnknown,
    OutgoingMessage,
    PermanentDriverError,
    Producer,
    ProducerConfig,
    SentMessage,
    TransientDriverError,
    UnknownTopic,
)
from rustmq_sdk._core.partitioner import partition_for
from rustmq_sdk._runtime.breaker import Breaker
from rustmq_sdk._runtime.postman import ASK_AGAIN_AFTER, SENDERS
from rustmq_sdk.drivers.memory.driver import MemoryDriver
from rustmq_sdk.slots import Sink
from rustmq_sdk.values import ProducerSequence

pytestmark = pytest.mark.virtual_time

Fault = Callable[[Callable[[], Any]], Any]


async def refuse(append: Callable[[], Any]) -> Any:
    """Nothing is stored, and the sink says so."""
    raise TransientDriverError("refused", slot="sink", operation="append")


async def lose_the_answer(append: Callable[[], Any]) -> Any:
    """It is stored, and nobody hears of it."""
    await append()
    raise OutcomeUnknown("the connection broke")


async def hang(append: Callable[[], Any]) -> Any:
    """Nothing is stored and nothing is said."""
    await anyio.sleep_forever()


async def store_and_hang(append: Callable[[], Any]) -> Any:
    """It is stored, and the answer never comes."""
    await append()
    await anyio.sleep_forever()


async def forbid(append: Callable[[], Any]) -> Any:
    """It will never be stored."""
    raise PermanentDriverError("too large", slot="sink", operation="append")


class Wire:
    """A memory sink behind a wire: appends take time, faults happen, and what happens is written down."""

    def __init__(self, sink: Sink, seconds: float = 0.0) -> None:
        self.sink = sink
        self.seconds = seconds
        self.faults: dict[tuple[str, int], list[Fault]] = {}
        self.always: Fault | None = None
        self.asking: list[Exception | float] = []
        self.asked: list[str] = []
        self.appends: list[tuple[int, list[bytes | None], ProducerSequence | None]] = []
        self.in_flight: set[tuple[str, int]] = set()
        self.most_at_once = 0

    async def partitions(self, topic: str) -> int:
        self.asked.append(topic)
        fault = self.asking.pop(0) if self.asking else 0.0
        if isinstance(fault, Exception):
            raise fault

        await anyio.sleep(fault)
        return await self.sink.partitions(topic)

    async def append(
        self,
        topic: str,
        partition: int,
        messages: Sequence[OutgoingMessage],
        *,
        sequence: ProducerSequence | None,
    ) -> Sequence[SentMessage]:
        place = (topic, partition)
        assert place not in self.in_flight, "two appends to one partition at once"
        self.in_flight.add(place)
        self.most_at_once = max(self.most_at_once, len(self.in_flight))
        self.appends.append((partition, [message.payload for message in messages], sequence))
        try:
            await anyio.sleep(self.seconds)
            queued = self.faults.get(place)
            fault = queued.pop(0) if queued else self.always

            async def append() -> Sequence[SentMessage]:
                return await self.sink.append(topic, partition, messages, sequence=sequence)

            return await (append() if fault is None else fault(append))
        finally:
            self.in_flight.discard(place)

    def fail(self, *faults: Fault, topic: str = "t", partition: int = 0) -> None:
        self.faults[topic, partition] = list(faults)


class Bench:
    """A driver, its topic ``t``, and the wire to it."""

    def __init__(self, driver: MemoryDriver) -> None:
        self.driver = driver
        self.wire = Wire(driver.sink())

    async def create(self, partitions: int, topic: str = "t") -> None:
        await self.driver.admin().create_topic(topic, partitions, {})

    def producer(
        self, *, idempotent: bool = True, append_messages: int = 0, breaker: Breaker | None = None, **settings: Any
    ) -> Producer:
        return Producer(
            self.wire,
            config=ProducerConfig(**settings),
            idempotent=idempotent,
            append_messages=append_messages,
            breaker=breaker,
            rng=Random(7),
        )

    def stored(self, topic: str = "t", partition: int = 0) -> list[str]:
        log = self.driver.broker.logs(topic, slot="source", operation="read")[partition]
        return [(entry[0] or b"").decode() for entry in log._entries]  # type: ignore[union-attr]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with MemoryDriver() as driver:
        bench = Bench(driver)
        await bench.create(1)
        yield bench


class TestDurable:
    async def test_what_send_returns_is_where_it_is_stored(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            assert (await producer.send("t", "a"))[:3] == ("t", 0, 0)
            assert (await producer.send("t", b"b", timestamp=77)) == SentMessage("t", 0, 1, 77)
            assert bench.stored() == ["a", "b"]

    async def test_everything_of_a_message_is_stored(self, bench: Bench) -> None:
        headers = [("h", b"1"), ("h", None)]
        async with bench.producer() as producer:
            await producer.send("t", "Grüße", key="k", headers=headers, partition=0, timestamp=5)

        (log,) = bench.driver.broker.logs("t", slot="source", operation="read")
        assert log._entries == [("Grüße".encode(), b"k", tuple(headers), 0, 5)]

    async def test_a_batch_comes_back_in_its_order_across_partitions(self, bench: Bench) -> None:
        await bench.create(3, "wide")
        messages = [OutgoingMessage(str(n).encode(), key=f"key-{n % 5}".encode()) for n in range(50)]
        async with bench.producer(batch_size=4) as producer:
            sent = await producer.send_batch("wide", messages)

        assert len(sent) == 50
        for message, place in zip(messages, sent, strict=True):
            assert message.key is not None
            assert place.partition == partition_for(message.key, 3)
            assert place.offset is not None
            assert bench.stored("wide", place.partition)[place.offset].encode() == message.payload

    async def test_a_batch_larger_than_the_buffer_is_sent_all_the_same(self, bench: Bench) -> None:
        async with bench.producer(batch_size=3, max_buffered=7) as producer:
            sent = await producer.send_batch("t", [str(n) for n in range(25)])

        assert [place.offset for place in sent] == list(range(25))
        assert bench.stored() == [str(n) for n in range(25)]

    async def test_an_empty_batch_is_sent_at_once(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            assert await producer.send_batch("t", []) == []

    async def test_a_topic_that_is_not_there_is_created_where_the_driver_does_that(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            assert (await producer.send("new", "a")).topic == "new"


class TestSharing:
    """Messages that are sent at the same time share appends."""

    async def test_concurrent_sends_share_an_append(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        async with bench.producer() as producer:
            await producer.send("t", "first")
            async with anyio.create_task_group() as tasks:
                for n in range(100):
                    tasks.start_soon(producer.send, "t", str(n))

            assert len(bench.wire.appends) == 2
            assert len(set(bench.stored())) == 101

    async def test_a_lone_send_does_not_linger(self, bench: Bench) -> None:
        async with bench.producer(linger=3600) as producer:
            await producer.send("t", "a")
            before = anyio.current_time()
            await producer.send("t", "b")
            assert anyio.current_time() - before < 1

    async def test_messages_nobody_waits_for_linger_and_share_an_append(self, bench: Bench) -> None:
        async with bench.producer(linger=5.0) as producer:
            await producer.send("t", "first")
            for n in range(10):
                producer.send_nowait("t", str(n))
                await anyio.sleep(0.1)

            await anyio.sleep(3.9)
            assert len(bench.wire.appends) == 1
            await anyio.sleep(0.2)
            assert len(bench.wire.appends) == 2
            assert bench.stored() == ["first", *map(str, range(10))]

    async def test_no_append_is_larger_than_a_batch(self, bench: Bench) -> None:
        async with bench.producer(batch_size=10, linger=1.0) as producer:
            for n in range(95):
                producer.send_nowait("t", str(n))

        assert [len(messages) for _, messages, _ in bench.wire.appends] == [10] * 9 + [5]

    async def test_what_waited_for_an_append_goes_together_where_the_sink_takes_more(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        answers: dict[int, Sequence[SentMessage]] = {}

        async def send(producer: Producer, n: int) -> None:
            answers[n] = await producer.send_batch("t", [f"{n}.{m}" for m in range(5)])

        async with bench.producer(batch_size=5, append_messages=12) as producer, anyio.create_task_group() as tasks:
            for n in range(6):
                tasks.start_soon(send, producer, n)
                await checkpoint()

        assert [len(messages) for _, messages, _ in bench.wire.appends] == [10, 10, 10]
        stored = bench.stored()
        for n, sent in answers.items():
            assert [stored[each.offset or 0] for each in sent] == [f"{n}.{m}" for m in range(5)]

    async def test_messages_without_a_key_take_turns_between_partitions_batch_by_batch(self, bench: Bench) -> None:
        await bench.create(4, "wide")
        async with bench.producer(batch_size=10) as producer:
            for n in range(80):
                producer.send_nowait("wide", str(n))

        assert sorted(partition for partition, _, _ in bench.wire.appends) == [0, 0, 1, 1, 2, 2, 3, 3]

    async def test_a_batch_without_keys_fills_batches(self, bench: Bench) -> None:
        await bench.create(4, "wide")
        async with bench.producer(batch_size=10) as producer:
            await producer.send_batch("wide", [str(n) for n in range(40)])

        assert sorted((partition, len(messages)) for partition, messages, _ in bench.wire.appends) == [
            (0, 10),
            (1, 10),
            (2, 10),
            (3, 10),
        ]

    async def test_one_message_after_the_other_without_a_key_takes_turns_too(self, bench: Bench) -> None:
        await bench.create(4, "wide")
        async with bench.producer() as producer:
            sent = [await producer.send("wide", str(n)) for n in range(8)]

        assert [place.offset for place in sent] == [0] * 4 + [1] * 4

    async def test_many_messages_of_one_key_are_cut_into_batches(self, bench: Bench) -> None:
        await bench.create(4, "wide")
        async with bench.producer(batch_size=10) as producer:
            sent = await producer.send_batch("wide", [OutgoingMessage(b"x", key=b"k") for _ in range(25)])

        assert [place.offset for place in sent] == list(range(25))
        assert [len(messages) for _, messages, _ in bench.wire.appends] == [10, 10, 5]

    async def test_partitions_append_at_the_same_time_with_a_fixed_number_of_tasks(self, bench: Bench) -> None:
        await bench.create(30, "wide")
        bench.wire.seconds = 1.0
        async with bench.producer() as producer:
            before = anyio.current_time()
            await producer.send_batch("wide", [OutgoingMessage(b"x", partition=n) for n in range(30)])
            assert anyio.current_time() - before < 5
            assert bench.wire.most_at_once == SENDERS


class TestOrder:
    async def test_order_within_a_partition_survives_refusals(self, bench: Bench) -> None:
        bench.wire.fail(refuse, refuse, lose_the_answer, refuse)
        async with bench.producer(batch_size=5) as producer:
            for n in range(40):
                producer.send_nowait("t", str(n))

        assert bench.stored() == [str(n) for n in range(40)]

    async def test_order_holds_from_before_the_number_of_partitions_was_known(self, bench: Bench) -> None:
        await bench.create(3, "wide")
        bench.wire.asking = [5.0]
        async with bench.producer() as producer:
            for n in range(20):
                producer.send_nowait("wide", str(n), key="same")
                await checkpoint()

            await producer.send("wide", "last", key="same")

        partition = partition_for(b"same", 3)
        assert bench.stored("wide", partition) == [*map(str, range(20)), "last"]

    async def test_a_stream_that_nobody_awaits_keeps_the_order_of_every_partition(self, bench: Bench) -> None:
        await bench.create(3, "wide")
        bench.wire.seconds = 0.01
        expected: dict[int, list[str]] = {0: [], 1: [], 2: []}
        async with bench.producer(batch_size=7, linger=0.02) as producer:
            for n in range(300):
                key = b"k%d" % (n % 5)
                if n % 4 == 0:
                    producer.send_nowait("wide", str(n), partition=n % 3)
                    expected[n % 3].append(str(n))
                elif n % 4 == 1:
                    producer.send_nowait("wide", str(n))
                else:
                    producer.send_nowait("wide", str(n), key=key)
                    expected[partition_for(key, 3)].append(str(n))

                if n % 11 == 0:
                    await anyio.sleep(0.005)

                if n % 37 == 0:
                    await producer.flush()

        stored = [bench.stored("wide", number) for number in range(3)]
        assert sorted(int(name) for names in stored for name in names) == list(range(300))
        for number, names in enumerate(stored):
            assert [name for name in names if int(name) % 4 != 1] == expected[number]
            assert names == sorted(names, key=int)

        assert max(len(messages) for _, messages, _ in bench.wire.appends) <= 7

    async def test_a_slow_partition_does_not_hold_up_the_others(self, bench: Bench) -> None:
        await bench.create(2, "wide")
        bench.wire.fail(hang, topic="wide", partition=0)
        async with bench.producer() as producer:
            producer.send_nowait("wide", "slow", partition=0)
            before = anyio.current_time()
            await producer.send("wide", "fast", partition=1)
            assert anyio.current_time() - before < 1


class TestOnce:
    @pytest.mark.parametrize("fault", [lose_the_answer, store_and_hang, refuse, hang])
    async def test_a_repeated_append_is_stored_once_where_the_sink_recognises_it(
        self, bench: Bench, fault: Fault
    ) -> None:
        bench.wire.fail(fault, fault)
        async with bench.producer() as producer:
            assert (await producer.send("t", "a")).offset == 0
            assert (await producer.send("t", "b")).offset == 1

        assert bench.stored() == ["a", "b"]
        assert len({sequence for _, messages, sequence in bench.wire.appends if messages == [b"a"]}) == 1

    async def test_a_lost_answer_is_the_callers_to_know_where_the_sink_recognises_nothing(self, bench: Bench) -> None:
        bench.wire.fail(lose_the_answer)
        async with bench.producer(idempotent=False) as producer:
            with pytest.raises(OutcomeUnknown, match="may or may not be stored"):
                await producer.send("t", "a")

        assert bench.stored() == ["a"]
        assert [sequence for _, _, sequence in bench.wire.appends] == [None]

    async def test_a_refusal_is_repeated_even_where_the_sink_recognises_nothing(self, bench: Bench) -> None:
        bench.wire.fail(refuse, refuse)
        async with bench.producer(idempotent=False) as producer:
            assert (await producer.send("t", "a")).offset == 0

    async def test_after_a_batch_of_unknown_fate_no_later_one_is_taken_for_it(self, bench: Bench) -> None:
        bench.wire.always = store_and_hang
        async with bench.producer() as producer:
            with pytest.raises(OutcomeUnknown):
                await producer.send("t", "a")

            bench.wire.always = None
            assert (await producer.send("t", "b")).offset == 1
            assert (await producer.send("t", "c")).offset == 2

        assert bench.stored() == ["a", "b", "c"]
        ids = {messages[0]: sequence for _, messages, sequence in bench.wire.appends if sequence is not None}
        assert ids[b"a"].producer_id != ids[b"b"].producer_id == ids[b"c"].producer_id
        assert (ids[b"b"].first, ids[b"c"].first) == (0, 1)

    async def test_two_producers_are_told_apart(self, bench: Bench) -> None:
        async with bench.producer() as one, bench.producer() as two:
            await one.send("t", "a")
            await two.send("t", "b")

        assert bench.stored() == ["a", "b"]


class TestInTime:
    @pytest.mark.parametrize(("fault", "error"), [(refuse, TransientDriverError), (hang, OutcomeUnknown)])
    async def test_a_message_is_stored_or_has_failed_when_its_time_is_up(
        self, bench: Bench, fault: Fault, error: type[Exception]
    ) -> None:
        bench.wire.always = fault
        async with bench.producer(send_timeout=10) as producer:
            before = anyio.current_time()
            with pytest.raises(error, match="send_timeout=10 s" if error is OutcomeUnknown else "refused"):
                await producer.send("t", "a")

            assert 8 <= anyio.current_time() - before <= 10.1

    async def test_what_waits_behind_a_dead_partition_fails_in_time_too(self, bench: Bench) -> None:
        bench.wire.always = hang
        failed: list[float] = []

        async def send(producer: Producer, name: str) -> None:
            before = anyio.current_time()
            with pytest.raises((OutcomeUnknown, TransientDriverError)):
                await producer.send("t", name)

            failed.append(anyio.current_time() - before)

        async with bench.producer(send_timeout=10, batch_size=1) as producer, anyio.create_task_group() as tasks:
            for n in range(5):
                tasks.start_soon(send, producer, str(n))
                await anyio.sleep(1)

        assert len(failed) == 5
        assert max(failed) <= 10.1

    async def test_what_no_sender_has_time_for_fails_in_time_as_not_sent(self, bench: Bench) -> None:
        last = SENDERS
        await bench.create(SENDERS + 1, "wide")
        bench.wire.always = hang

        async def behind_a_dead_batch(producer: Producer) -> None:
            before = anyio.current_time()
            with pytest.raises(TransientDriverError, match="all senders are waiting"):
                await producer.send("wide", "behind", partition=last)

            assert 9 < anyio.current_time() - before <= 10.1

        async with bench.producer(send_timeout=10, idempotent=False) as producer, anyio.create_task_group() as tasks:
            # Its partition is held by a batch until 10; then younger ones of other partitions hold all the senders.
            producer.send_nowait("wide", "dead", partition=last)
            await anyio.sleep(1)
            tasks.start_soon(behind_a_dead_batch, producer)
            await anyio.sleep(8)
            for n in range(SENDERS):
                producer.send_nowait("wide", "x", partition=n)

            with pytest.raises(OutcomeUnknown):
                await producer.flush()

    async def test_what_is_too_old_when_a_sender_comes_is_known_not_to_be_sent(self, bench: Bench) -> None:
        await bench.create(3 * SENDERS, "wide")
        bench.wire.always = hang
        kinds: list[type[Exception]] = []

        async def send(producer: Producer, partition: int) -> None:
            try:
                await producer.send("wide", "x", partition=partition)
            except (OutcomeUnknown, TransientDriverError) as error:
                kinds.append(type(error))

        async with bench.producer(send_timeout=10, idempotent=False) as producer, anyio.create_task_group() as tasks:
            for n in range(3 * SENDERS):
                tasks.start_soon(send, producer, n)

        assert sorted(kinds, key=str) == [OutcomeUnknown] * SENDERS + [TransientDriverError] * 2 * SENDERS

    async def test_a_topic_that_cannot_be_asked_for_fails_its_messages_in_time(self, bench: Bench) -> None:
        bench.wire.asking = [3600.0] * 10
        async with bench.producer(send_timeout=10) as producer:
            before = anyio.current_time()
            with pytest.raises(TransientDriverError, match="sink partitions: no answer"):
                await producer.send("t", "a")

            assert anyio.current_time() - before <= 10.1

    async def test_those_who_came_later_are_not_failed_with_those_whose_time_is_up(self, bench: Bench) -> None:
        bench.wire.asking = [3600.0] * 3
        async with bench.producer(send_timeout=10) as producer, anyio.create_task_group() as tasks:

            async def first() -> None:
                with pytest.raises(TransientDriverError):
                    await producer.send("t", "early")

            tasks.start_soon(first)
            await anyio.sleep(9)
            assert (await producer.send("t", "late")).offset == 0

    async def test_what_will_never_be_stored_fails_at_once_and_the_rest_goes_on(self, bench: Bench) -> None:
        bench.wire.fail(forbid)
        async with bench.producer() as producer:
            with pytest.raises(PermanentDriverError, match="too large"):
                await producer.send("t", "a")

            assert (await producer.send("t", "b")).offset == 0

    async def test_a_bug_in_a_sink_reaches_the_caller_and_stops_nothing(self, bench: Bench) -> None:
        async def slip(append: Callable[[], Any]) -> Any:
            raise KeyError("slip")

        bench.wire.fail(slip)
        async with bench.producer() as producer:
            with pytest.raises(KeyError):
                await producer.send("t", "a")

            await producer.send("t", "b")

    async def test_a_sink_that_answers_for_fewer_messages_is_not_believed(self, bench: Bench) -> None:
        async def forget_one(append: Callable[[], Any]) -> Any:
            return (await append())[:-1]

        bench.wire.fail(forget_one)
        async with bench.producer() as producer:
            with pytest.raises(PermanentDriverError, match="appended 2 messages and was told where 1"):
                await producer.send_batch("t", ["a", "b"])


class TestFailures:
    async def test_a_batch_that_fails_in_part_says_how_much_is_stored(self, bench: Bench) -> None:
        await bench.create(2, "wide")
        bench.wire.fail(forbid, topic="wide", partition=1)
        async with bench.producer() as producer:
            messages = [OutgoingMessage(b"x", partition=n % 2) for n in range(10)]
            with pytest.raises(PermanentDriverError) as caught:
                await producer.send_batch("wide", messages)

        assert caught.value.__notes__ == ["Of these 10 messages 5 are known to be stored."]

    async def test_callers_who_shared_an_append_each_get_an_error_of_their_own(self, bench: Bench) -> None:
        bench.wire.fail(forbid)
        errors: list[Exception] = []

        async def send(producer: Producer) -> None:
            try:
                await producer.send_batch("t", ["a", "b"])
            except PermanentDriverError as error:
                errors.append(error)

        async with bench.producer() as producer, anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(send, producer)

        assert len(bench.wire.appends) == 1
        assert len({id(error) for error in errors}) == 3
        assert [error.__notes__ for error in errors] == [["Of these 2 messages 0 are known to be stored."]] * 3
        assert {
            (type(error), str(error), error.slot) for error in errors if isinstance(error, PermanentDriverError)
        } == {(PermanentDriverError, "sink append: too large", "sink")}

    async def test_flush_raises_what_send_nowait_could_not(self, bench: Bench) -> None:
        bench.wire.fail(forbid)
        async with bench.producer() as producer:
            for n in range(3):
                producer.send_nowait("t", str(n))

            with pytest.raises(PermanentDriverError, match="too large") as caught:
                await producer.flush()

            assert caught.value.__notes__ == [
                "Messages of send_nowait() that were not stored, or may not be: 3 to 't'."
            ]
            await producer.flush()

    async def test_leaving_raises_what_no_flush_has_raised(self, bench: Bench) -> None:
        bench.wire.fail(forbid)
        with pytest.raises(PermanentDriverError, match="too large"):
            async with bench.producer() as producer:
                producer.send_nowait("t", "a")

    async def test_an_exception_of_the_block_is_not_replaced_but_told_of_the_failure(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench.wire.fail(forbid)

        async def failing_block() -> None:
            async with bench.producer() as producer:
                producer.send_nowait("t", "a")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError) as caught:
            await failing_block()

        assert "1 to 't'" in caught.value.__notes__[0]
        assert "too large" in caught.value.__notes__[0]
        (record,) = [record for record in caplog.records if record.name == "rustmq_sdk.producer"]
        assert record.levelno == logging.ERROR

    async def test_what_send_raised_is_not_raised_again(self, bench: Bench) -> None:
        bench.wire.fail(forbid)
        async with bench.producer() as producer:
            with pytest.raises(PermanentDriverError):
                await producer.send("t", "a")

            await producer.flush()

    async def test_an_unknown_topic_is_asked_for_again_next_time(self, bench: Bench) -> None:
        missing = UnknownTopic("no such topic", slot="sink", operation="partitions")
        bench.wire.asking = [missing]
        async with bench.producer() as producer:
            with pytest.raises(UnknownTopic):
                await producer.send("t", "a")

            assert (await producer.send("t", "b")).offset == 0

    async def test_a_topic_that_went_away_is_asked_for_again_next_time(self, bench: Bench) -> None:
        async def gone(append: Callable[[], Any]) -> Any:
            raise UnknownTopic("no such topic", slot="sink", operation="append")

        async with bench.producer() as producer:
            bench.wire.fail(gone)
            with pytest.raises(UnknownTopic):
                await producer.send("t", "a")

            await producer.send("t", "b")
            assert bench.wire.asked == ["t", "t"]

    async def test_what_is_sent_while_a_flush_waits_belongs_to_the_next(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        async with bench.producer(linger=0) as producer, anyio.create_task_group() as tasks:
            producer.send_nowait("t", "a")
            await checkpoint()
            producer.send_nowait("t", "b")
            tasks.start_soon(producer.flush)
            await checkpoint()
            producer.send_nowait("t", "c")
            with anyio.fail_after(5):
                await producer.flush()

            assert bench.stored() == ["a", "b", "c"]


class TestPartitions:
    async def test_a_partition_that_is_not_there_is_refused_after_asking_again(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            await producer.send("t", "a")
            with pytest.raises(ConfigurationError, match="topic 't' has partitions 0 to 0"):
                await producer.send("t", "b", partition=1)

            assert bench.wire.asked == ["t", "t"]
            with pytest.raises(ConfigurationError):
                await producer.send_batch("t", [OutgoingMessage(b"c"), OutgoingMessage(b"d", partition=7)])

        assert bench.stored() == ["a"]

    async def test_a_partition_that_was_added_is_found(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            await producer.send("t", "a")
            await bench.driver.admin().delete_topic("t")
            await bench.create(2)
            assert (await producer.send("t", "b", partition=1)).partition == 1

    async def test_the_number_of_partitions_is_asked_for_now_and_then(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            for _ in range(10):
                await producer.send("t", "a")

            assert len(bench.wire.asked) == 1
            await anyio.sleep(ASK_AGAIN_AFTER)
            await producer.send("t", "a")
            assert len(bench.wire.asked) == 2


class TestBounded:
    async def test_send_nowait_says_when_the_buffer_is_full(self, bench: Bench) -> None:
        async with bench.producer(max_buffered=3, batch_size=3) as producer:
            for n in range(3):
                producer.send_nowait("t", str(n))

            with pytest.raises(BufferFull, match=r"max_buffered=3 .*await producer\.flush\(\)"):
                producer.send_nowait("t", "4")

            await producer.flush()
            producer.send_nowait("t", "4")

        assert bench.stored() == ["0", "1", "2", "4"]

    async def test_send_waits_for_room_and_those_who_wait_are_served_in_order(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        async with bench.producer(max_buffered=2, batch_size=2) as producer, anyio.create_task_group() as tasks:
            for n in range(9):
                tasks.start_soon(producer.send, "t", str(n))
                await checkpoint()

        assert bench.stored() == [str(n) for n in range(9)]
        assert max(len(messages) for _, messages, _ in bench.wire.appends) <= 2

    async def test_who_needs_little_room_does_not_overtake_who_needs_much(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        async with bench.producer(max_buffered=3, batch_size=3) as producer, anyio.create_task_group() as tasks:
            for messages in (["a", "b"], ["c", "d", "e"], ["f"]):
                tasks.start_soon(producer.send_batch, "t", messages)
                await checkpoint()

        assert bench.stored() == list("abcdef")

    async def test_waiting_for_room_ends_in_time(self, bench: Bench) -> None:
        async with bench.producer(max_buffered=2, batch_size=2, send_timeout=10) as producer:
            # Places that nobody gives back, as by a sink that goes on hanging beyond its time.
            assert producer._room.take_nowait(1)
            before = anyio.current_time()
            with pytest.raises(TransientDriverError, match="max_buffered=2 messages were waiting"):
                await producer.send_batch("t", ["a", "b"])

            assert anyio.current_time() - before == pytest.approx(10)
            await producer.send("t", "c")


class TestCancellation:
    async def test_a_cancelled_send_takes_nothing_from_others_and_doubles_nothing(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        results: list[SentMessage] = []

        async def send(producer: Producer, name: str) -> None:
            results.append(await producer.send("t", name))

        async with bench.producer() as producer, anyio.create_task_group() as tasks:
            tasks.start_soon(send, producer, "before")
            await checkpoint()
            with anyio.move_on_after(0.5):
                await producer.send("t", "cancelled")

            tasks.start_soon(send, producer, "after")

        stored = bench.stored()
        assert [stored[result.offset or 0] for result in results] == ["before", "after"]
        assert sorted(stored) in (["after", "before"], ["after", "before", "cancelled"])

    async def test_a_cancelled_wait_for_room_gives_its_place_to_the_next(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        async with bench.producer(max_buffered=2, batch_size=2) as producer, anyio.create_task_group() as tasks:
            tasks.start_soon(producer.send_batch, "t", ["a", "b"])
            await checkpoint()
            waiting = anyio.CancelScope()

            async def give_up() -> None:
                with waiting:
                    await producer.send_batch("t", ["x", "y"])

            tasks.start_soon(give_up)
            await checkpoint()
            tasks.start_soon(producer.send, "t", "c")
            await checkpoint()
            waiting.cancel()

        assert bench.stored() == ["a", "b", "c"]

    async def test_a_cancelled_flush_leaves_its_messages_to_the_next(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        async with bench.producer() as producer:
            producer.send_nowait("t", "a")
            with anyio.move_on_after(0.5):
                await producer.flush()

            await producer.flush()
            assert bench.stored() == ["a"]

    async def test_a_cancelled_block_still_sends_what_it_was_given(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        with anyio.CancelScope() as scope:
            async with bench.producer() as producer:
                producer.send_nowait("t", "a")
                scope.cancel()
                await checkpoint()

        assert bench.stored() == ["a"]

    async def test_native_cancellation_of_asyncio_loses_nothing_either(
        self, bench: Bench, anyio_backend_name: str
    ) -> None:
        if anyio_backend_name != "asyncio":
            pytest.skip("trio has no cancellation but scopes")

        bench.wire.seconds = 1.0

        async def block() -> None:
            async with bench.producer() as producer:
                producer.send_nowait("t", "a")
                async with asyncio.timeout(0.5):
                    await producer.send("t", "b")

        with pytest.raises(TimeoutError):
            await block()

        task = asyncio.create_task(block())
        await anyio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert sorted(bench.stored()) == ["a", "a", "b", "b"]


class TestLife:
    async def test_leaving_sends_what_waits(self, bench: Bench) -> None:
        async with bench.producer(linger=3600) as producer:
            for n in range(5):
                producer.send_nowait("t", str(n))

        assert bench.stored() == [str(n) for n in range(5)]

    async def test_leaving_is_bounded_by_the_send_timeout(self, bench: Bench) -> None:
        bench.wire.always = hang
        before = anyio.current_time()

        async def block() -> None:
            async with bench.producer(send_timeout=5) as producer:
                for n in range(1000):
                    producer.send_nowait("t", str(n))

        with pytest.raises(OutcomeUnknown):
            await block()

        assert anyio.current_time() - before <= 6

    async def test_a_send_that_waits_for_room_while_it_is_left_hears_of_it(self, bench: Bench) -> None:
        bench.wire.always = hang
        heard: list[str] = []

        async def send(producer: Producer, name: str) -> None:
            try:
                await producer.send("t", name)
            except (TransientDriverError, OutcomeUnknown):
                heard.append(name)

        settings: dict[str, Any] = {"max_buffered": 1, "batch_size": 1, "send_timeout": 10}
        async with anyio.create_task_group() as tasks, bench.producer(**settings) as producer:
            for name in "abc":
                tasks.start_soon(send, producer, name)
                await anyio.sleep(0.1)

        assert sorted(heard) == ["a", "b", "c"]

    async def test_what_is_in_flight_or_waits_when_a_sink_hangs_for_good_is_not_lost_silently(
        self, bench: Bench
    ) -> None:
        async def deaf(append: Callable[[], Any]) -> Any:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3600)

        bench.wire.always = deaf

        async def block() -> None:
            async with bench.producer(send_timeout=5, batch_size=1) as producer:
                for name in "ab":
                    producer.send_nowait("t", name)

        with pytest.raises((OutcomeUnknown, TransientDriverError)) as caught:
            await block()

        assert "2 to 't'" in caught.value.__notes__[-1]

    @pytest.mark.parametrize("call", ["send", "send_batch", "send_nowait", "flush"])
    async def test_before_and_after_its_block_every_call_names_the_remedy(self, bench: Bench, call: str) -> None:
        async def use(producer: Producer) -> None:
            result = getattr(producer, call)(
                *(() if call == "flush" else ("t", ["a"] if call == "send_batch" else "a"))
            )
            if call != "send_nowait":
                await result

        producer = bench.producer()
        with pytest.raises(ConsumerStateError, match="Use it inside"):
            await use(producer)

        async with producer:
            pass

        with pytest.raises(ConsumerStateError, match="the producer is closed"):
            await use(producer)

        with pytest.raises(ConsumerStateError, match="closed already"):
            await producer.__aenter__()

    async def test_its_number_of_tasks_does_not_grow_with_messages(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        before = len(anyio.get_running_tasks())
        async with bench.producer() as producer:
            for n in range(1000):
                producer.send_nowait("t", str(n))

            await anyio.sleep(0.5)
            assert len(anyio.get_running_tasks()) - before == SENDERS + 1

        assert len(anyio.get_running_tasks()) == before

    async def test_leaving_it_in_another_task_names_the_reason(self, bench: Bench) -> None:
        async with bench.producer() as producer, anyio.create_task_group() as tasks:

            async def leave() -> None:
                with pytest.raises(ConsumerStateError, match="async-generator fixtures of pytest-asyncio"):
                    await producer.__aexit__(None, None, None)

            tasks.start_soon(leave)

    async def test_bad_input_is_refused_before_anything_is_sent(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            with pytest.raises(TypeError, match=r"json\.dumps"):
                await producer.send("t", {"a": 1})  # type: ignore[arg-type]

            with pytest.raises(TypeError, match=r"json\.dumps"):
                producer.send_nowait("t", 5)  # type: ignore[arg-type]

            with pytest.raises(TypeError):
                await producer.send_batch("t", "abc")

            with pytest.raises(ConfigurationError, match="expected a topic's name"):
                await producer.send("", "a")

        assert bench.stored() == []


class TestCircuit:
    async def test_an_open_circuit_is_waited_for_within_the_send_timeout(self, bench: Bench) -> None:
        breaker = Breaker("sink.append", failures=2, open_for=5.0, clock=anyio.current_time)
        bench.wire.fail(refuse, refuse)
        async with bench.producer(breaker=breaker) as producer:
            before = anyio.current_time()
            assert (await producer.send("t", "a")).offset == 0
            assert 5 <= anyio.current_time() - before < 10

        assert len(bench.wire.appends) == 3

    async def test_hanging_appends_open_the_circuit(self, bench: Bench) -> None:
        breaker = Breaker("sink.append", failures=2, open_for=5.0, clock=anyio.current_time)
        bench.wire.fail(hang, hang)
        async with bench.producer(breaker=breaker, send_timeout=60) as producer:
            await producer.send("t", "a")

        assert len(bench.wire.appends) == 3
        assert breaker.state == "closed"


async def test_a_client_sends_through_its_driver() -> None:
    async with Client("memory://?") as client:
        async with client.producer(linger=0) as producer:
            await producer.send("t", "a", key="k")

        assert await client.topics() == {"t": 1}
