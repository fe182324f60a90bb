"""Where a sink fails, hangs or lies: messages fail in time, nothing fails unheard, and the rest goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from rustmq_sdk import (
    OutcomeUnknown,
    OutgoingMessage,
    PermanentDriverError,
    Producer,
    TransientDriverError,
    UnknownTopic,
)
from rustmq_sdk._runtime.dispatcher import SENDERS
from rustmq_sdk.errors import NotAllStored
from tests.unit.producer_bench import Bench, Fault, forbid, hang, refuse, store_all_but
from tests.unit.producer_bench import bench as bench

pytestmark = pytest.mark.virtual_time


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
            with pytest.raises(TransientDriverError, match="topic's partitions: no answer"):
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
        } == {(PermanentDriverError, "sending messages: too large", "sink")}

    async def test_of_callers_who_shared_an_append_those_fail_whose_message_was_refused(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        bench.wire.fail(lambda append: append(), store_all_but(0, 3))
        told: dict[str, str] = {}

        async def send(producer: Producer, name: str, *more: str) -> None:
            try:
                sent = await producer.send_batch("t", [name, *more])
                told[name] = f"at {[one.offset for one in sent]}"
            except PermanentDriverError as error:
                told[name] = "; ".join([str(error), *getattr(error, "__notes__", [])])

        async with bench.producer() as producer, anyio.create_task_group() as tasks:
            tasks.start_soon(send, producer, "first")  # the others gather behind it
            await anyio.sleep(0.5)
            tasks.start_soon(send, producer, "a")
            await anyio.sleep(0.1)
            tasks.start_soon(send, producer, "b")
            await anyio.sleep(0.1)
            tasks.start_soon(send, producer, "c", "d", "e")

        assert len(bench.wire.appends) == 2
        assert told == {
            "first": "at [0]",
            "a": "sending messages: 0 is bad",
            "b": "at [2]",
            "c": "sending messages: 3 is bad; Of these 3 messages 2 are known to be stored.",
        }

    async def test_flush_raises_what_an_append_left_out_and_the_rest_goes_on(self, bench: Bench) -> None:
        bench.wire.fail(store_all_but(1))
        async with bench.producer() as producer:
            for n in range(3):
                producer.send_nowait("t", str(n))

            with pytest.raises(PermanentDriverError, match="1 is bad") as caught:
                await producer.flush()

            assert caught.value.__notes__ == [
                "Messages of send_nowait() that were not stored, or may not be: 1 to 't'."
            ]
            await producer.send("t", "later")

        ids = [sequence and sequence.producer_id for _, _, sequence in bench.wire.appends]
        assert ids[0] != ids[1], "the numbers after it depend on none of it"

    async def test_a_sink_that_leaves_out_more_than_it_says_is_not_believed(self, bench: Bench) -> None:
        async def fault(append: Callable[[], Any]) -> Any:
            error = PermanentDriverError("bad", slot="sink", operation="append")
            raise NotAllStored({0: error}, [None], slot="sink", operation="append")

        bench.wire.fail(fault)
        async with bench.producer() as producer:
            with pytest.raises(PermanentDriverError, match="appended 2 messages and was told where 1 of them are"):
                await producer.send_batch("t", ["a", "b"])

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
        class Broken(Exception):
            def __repr__(self) -> str:
                raise AttributeError("nothing to say")

        bench.wire.fail(forbid)

        async def failing_block() -> None:
            async with bench.producer() as producer:
                producer.send_nowait("t", "a")
                raise Broken

        with pytest.raises(Broken) as caught:
            await failing_block()

        assert "1 to 't'" in caught.value.__notes__[0]
        assert "too large" in caught.value.__notes__[0]
        (record,) = [record for record in caplog.records if record.__dict__.get("event") == "sends_failed"]
        assert record.levelno == logging.ERROR
        assert "ended with <repr() of Broken" in record.getMessage()

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

    async def test_appends_that_hang_leave_time_for_another(self, bench: Bench) -> None:
        bench.wire.fail(hang, hang)
        async with bench.producer() as producer:
            assert (await producer.send("t", "a")).offset == 0

        assert len(bench.wire.appends) == 3

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
