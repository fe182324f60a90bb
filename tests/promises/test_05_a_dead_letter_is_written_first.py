"""Promise 5: a dead letter is durable before the position moves; without a route the partition stops and says so."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import anyio
import pytest

from rustmq_sdk import (
    AckResult,
    CircuitOpen,
    Consumer,
    DeadLetter,
    Message,
    OutcomeUnknown,
    OutgoingMessage,
    PartitionStopped,
    PermanentDriverError,
    Reject,
    RetryPolicy,
    TransientDriverError,
)
from rustmq_sdk._runtime.dead_letters import TopicDeadLetters
from rustmq_sdk.errors import NotAllStored
from rustmq_sdk.slots import SourceRequest
from rustmq_sdk.testing import Fault
from tests.promises.stage import (
    DLQ,
    TP,
    Plan,
    Stage,
    ack,
    handle_all,
    in_background,
    numbered,
    offsets,
    passes,
    take,
    take_all,
    texts,
    until,
)

pytestmark = pytest.mark.virtual_time

ONCE = RetryPolicy(max_attempts=1)


class TestTheLetter:
    async def test_it_says_where_it_came_from_why_how_often_and_when(self, stage: Stage) -> None:
        stage.send(["first", "bad"], keys=["k"])

        async def handler(message: Message) -> None:
            if message.text() == "bad":
                raise ValueError("does not parse")

        policy = RetryPolicy(max_attempts=3, initial=1)
        async with stage.consumer(retry=policy, dead_letter_topic=DLQ) as consumer, anyio.create_task_group() as group:
            await in_background(group, consumer.run, handler)
            await until(lambda: stage.letters)
            consumer.stop()

        (letter,) = stage.letters
        assert (letter.payload, letter.key) == (b"bad", b"k")
        assert (letter.tp, letter.offset, letter.group) == (TP, 1, "g")
        assert letter.reason == "ValueError: does not parse"
        assert (letter.exception_type, letter.exception_message) == ("builtins.ValueError", "does not parse")
        assert "in handler" in letter.stack
        assert letter.attempts == 3
        assert 0 < letter.first_failure <= letter.last_failure

    @pytest.mark.parametrize("broken", ["__str__", "__repr__"])
    async def test_an_exception_whose_text_cannot_be_had_does_not_prevent_it(
        self, either: Stage, broken: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fails(error: Exception) -> str:
            raise AttributeError("an answer that is None has no status")

        failure = type("ApiError", (Exception,), {broken: fails})
        either.send(["fine", "bad", "after"])

        async def handler(message: Message) -> None:
            if message.text() == "bad":
                raise failure()

        policy = RetryPolicy(max_attempts=2, initial=1)
        async with either.consumer(retry=policy, dead_letter_topic=DLQ) as consumer, anyio.create_task_group() as group:
            await in_background(group, consumer.run, handler)
            await until(lambda: consumer.statistics().acked == 2 and either.letters)
            consumer.stop()

        (letter,) = either.letters
        assert (letter.payload, letter.attempts) == (b"bad", 2)
        assert "ApiError" in letter.reason
        assert "in handler" in letter.stack
        assert [record.event for record in caplog.records].count("handler_failed") == 2  # type: ignore[attr-defined]
        assert "Logging error" not in capsys.readouterr().err

    async def test_a_queue_terminates_what_it_has_dead_lettered(self, queue: Stage) -> None:
        queue.send(["fine", "bad"])
        async with queue.consumer(dead_letter_topic=DLQ) as consumer:
            for message in await take(consumer, 2):
                await (message.ack() if message.text() == "fine" else message.reject("no good"))

            await passes(5)
            assert [(letter.payload, letter.reason) for letter in queue.letters] == [(b"bad", "no good")]
            assert consumer.statistics().in_flight == 0

        async with queue.consumer() as consumer:
            assert await take_all(consumer, quiet=100) == []

    async def test_the_position_waits_for_it(self, stage: Stage) -> None:
        stage.plan.breaks("dead_letters.put")
        stage.send(5)
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            messages = await take(consumer, 5)
            await messages[2].reject("no good")
            await ack(*messages[:2], *messages[3:])
            await passes(300)
            assert (stage.committed(), len(stage.letters)) == (2, 0)
            assert "dead_letters_failing" in [reason.code for reason in consumer.health().reasons]
            assert not consumer.health().ok
            stage.plan.heals()
            await passes(120)
            assert (stage.committed(), offsets_of(stage.letters)) == (5, [2])
            assert consumer.health().ok

    async def test_a_crash_between_the_letter_and_the_commit_repeats_the_message(self, stage: Stage) -> None:
        stage.send(3)
        with anyio.CancelScope() as process:
            async with stage.consumer(dead_letter_topic=DLQ) as consumer:
                messages = await take(consumer, 3)
                stage.plan.breaks("source.commit", kind="hang")
                await messages[0].reject("no good")
                await until(lambda: stage.letters)
                process.cancel()

        assert stage.committed() is None
        stage.plan.heals()
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            again = await take(consumer, 3)
            assert texts(again) == numbered(3)
            await again[0].reject("no good")
            await ack(*again[1:])

        assert offsets_of(stage.letters) == [0]  # the same id: this route keeps one
        assert stage.committed() == 3

    @pytest.mark.parametrize("kind", ["refused", "reply_lost", "disconnect", "hang"])
    async def test_a_route_that_fails_is_tried_until_it_works(self, either: Stage, kind: Any) -> None:
        either.plan = Plan(*(Fault("dead_letters.put", kind, call, seconds=3) for call in (1, 2)))
        either.send(250)
        async with either.consumer(dead_letter_topic=DLQ, circuit_open=3) as consumer:
            for message in await take(consumer, 250):
                await message.reject()

            await until(lambda: consumer.statistics().dead_lettered == 250)
            assert consumer.statistics().in_flight == 0

        assert sorted(str(letter.payload) for letter in either.letters) == sorted(
            str(text.encode()) for text in numbered(250)
        )

    async def test_a_route_that_fails_is_asked_more_and_more_rarely(self, stage: Stage) -> None:
        asked: list[float] = []

        async def put(letters: Sequence[DeadLetter]) -> None:
            asked.append(anyio.current_time())
            raise OSError("down")

        stage.send(1)
        async with stage.consumer(dead_letters=put, circuit_failures=1000) as consumer:
            await (await consumer.receive(10)).reject()
            await passes(200)
            pauses = [round(later - earlier, 1) for earlier, later in pairwise(asked)]
            assert pauses[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]

    async def test_a_route_that_never_answers_is_noticed(self, stage: Stage) -> None:
        stage.plan.breaks("dead_letters.put", kind="hang")
        stage.send(3)
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            await (await consumer.receive(5)).reject()
            await passes(40)
            assert "dead_letters_failing" in [reason.code for reason in consumer.health().reasons]
            stage.plan.heals()
            await passes(60)
            assert offsets_of(stage.letters) == [0]

    async def test_a_route_that_is_down_at_the_exit_costs_no_commit(self, stage: Stage) -> None:
        stage.plan.breaks("dead_letters.put", kind="hang")
        stage.send(5)
        async with stage.consumer(dead_letter_topic=DLQ, commit_interval=3600) as consumer:
            messages = await take(consumer, 5)
            await ack(*messages[:3], messages[4])
            await messages[3].reject()

        stage.plan.heals()
        assert stage.committed() == 3
        async with stage.consumer() as consumer:
            assert texts(await take_all(consumer)) == ["m3"]

    async def test_letters_wait_for_room_in_memory_no_longer_than_there_is_some(self, stage: Stage) -> None:
        stage.plan.breaks("dead_letters.put")
        stage.send(500)

        async def handler(message: Message) -> None:
            raise Reject("all of them")

        async with (
            stage.consumer(dead_letter_topic=DLQ, max_in_flight=50, prefetch=20, circuit_open=3) as consumer,
            anyio.create_task_group() as group,
        ):
            await in_background(group, consumer.run, handler)
            await passes(100)
            assert consumer.statistics().received <= 50
            stage.plan.heals()
            await until(lambda: len(stage.letters) == 500)
            consumer.stop()

        assert stage.committed() == 500

    async def test_shutdown_writes_the_letters_that_wait(self, stage: Stage) -> None:
        stage.plan = Plan(Fault("dead_letters.put", "hang", seconds=1))
        stage.send(5)
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            for message in await take(consumer, 5):
                await message.reject()

        assert offsets_of(stage.letters) == [0, 1, 2, 3, 4]
        assert stage.committed() == 5


class TestOtherRoutes:
    async def test_a_callable_is_a_route(self, either: Stage) -> None:
        letters: list[DeadLetter] = []

        async def write(given: Sequence[DeadLetter]) -> None:
            letters.extend(given)

        either.send(2)
        async with either.consumer(dead_letters=write) as consumer:
            for message in await take(consumer, 2):
                await message.reject("no good")

            await until(lambda: len(letters) == 2)

        assert [letter.payload for letter in letters] == [b"m0", b"m1"]

    async def test_a_route_that_refuses_for_good_stops_the_partition_and_keeps_the_letter(self, stage: Stage) -> None:
        letters: list[DeadLetter] = []
        broken = True

        async def write(given: Sequence[DeadLetter]) -> None:
            if broken and any(letter.offset == 1 for letter in given):
                raise PermanentDriverError("too large", slot="dead_letters", operation="put")

            letters.extend(given)

        stage.send(4)
        async with stage.consumer(dead_letters=write) as consumer:
            for message in await take(consumer, 4):
                await message.reject("no good")

            with pytest.raises(PartitionStopped, match=r"t\[0\]@1 stops its partition: its dead letter was refused"):
                await consumer.receive(5)

            await passes(10)
            assert offsets_of(letters) == [0, 2, 3]
            assert stage.committed() == 1
            broken = False
            consumer.resume_partitions([TP])
            await passes(10)
            assert offsets_of(letters) == [0, 2, 3, 1]
            assert stage.committed() == 4
            stage.send(1)
            assert texts(await take(consumer, 1)) == ["m4"]

    @pytest.mark.parametrize(
        "error",
        [
            TransientDriverError("not now", slot="dead_letters", operation="put"),
            OutcomeUnknown("it may be stored or not"),
            CircuitOpen("of a client that the function writes with", 5.0),
            TimeoutError(),
            ConnectionError("refused"),
        ],
        ids=lambda error: type(error).__name__,
    )
    async def test_a_route_that_fails_for_a_while_gets_its_letter_later(self, stage: Stage, error: Exception) -> None:
        calls: list[int] = []

        async def write(given: Sequence[DeadLetter]) -> None:
            calls.append(len(given))
            if len(calls) < 3:
                raise error

        stage.send(1)
        async with stage.consumer(dead_letters=write) as consumer:
            await (await consumer.receive(5)).reject()
            await until(lambda: consumer.statistics().dead_lettered == 1)

        assert calls == [1, 1, 1]

    async def test_one_letter_that_will_never_be_stored_stops_its_partition_and_holds_up_no_other(
        self, stage: Stage
    ) -> None:
        calls: list[list[bytes | None]] = []

        async def put(letters: Sequence[DeadLetter]) -> None:
            calls.append([letter.payload for letter in letters])
            error = PermanentDriverError("too large", slot="dead_letters", operation="put")
            refused = {place: error for place, letter in enumerate(letters) if letter.payload == b"bad"}
            if refused:
                raise NotAllStored(refused, slot="dead_letters", operation="put")

        stage.create(2)
        stage.send(["a", "bad", "b"], partition=0)
        stage.send(["c"], partition=1)
        async with stage.consumer(dead_letters=put) as consumer:
            for message in await take(consumer, 4):
                await message.reject()

            await passes(60)
            assert calls == [[b"a", b"bad", b"b", b"c"]], "none is written again"
            assert consumer.statistics().dead_lettered == 3
            assert [stage.committed(partition) for partition in range(2)] == [1, 1]
            assert [reason.code for reason in consumer.health().reasons] == ["partition_stopped"]

    @pytest.mark.parametrize("kind", ["fails", "hangs"])
    async def test_what_fails_in_one_partition_of_a_topic_is_not_written_again_in_the_others(
        self, stage: Stage, kind: str
    ) -> None:
        class Sink:
            def __init__(self) -> None:
                self.letters: Counter[int] = Counter()
                self.down = True

            async def partitions(self, topic: str) -> int:
                return 3

            async def append(self, topic: str, partition: int, messages: Sequence[OutgoingMessage], **_: Any) -> None:
                if partition == 1 and self.down:
                    if kind == "hangs":
                        await anyio.sleep_forever()

                    raise TransientDriverError("down", slot="sink", operation="append")

                self.letters[partition] += len(messages)

        stage.create(3)
        for partition in range(3):
            stage.send(2, partition=partition)

        sink = Sink()
        async with stage.consumer(dead_letters=TopicDeadLetters(sink, "dlq")) as consumer:  # type: ignore[arg-type]
            for message in await take(consumer, 6):
                await message.reject()

            await passes(200)
            assert sink.letters == {0: 2, 2: 2}
            assert [stage.committed(partition) for partition in range(3)] == [2, 0, 2]
            assert "dead_letters_failing" in [reason.code for reason in consumer.health().reasons]
            sink.down = False
            await passes(200)
            assert sink.letters == {0: 2, 1: 2, 2: 2}
            assert consumer.health().ok

        assert stage.committed(1) == 2

    async def test_one_that_a_partition_of_a_topic_never_takes_is_named_by_its_place_among_all(
        self, stage: Stage
    ) -> None:
        stored: list[bytes | None] = []

        class Sink:
            async def partitions(self, topic: str) -> int:
                return 2

            async def append(self, topic: str, partition: int, messages: Sequence[OutgoingMessage], **_: Any) -> None:
                error = PermanentDriverError("too large", slot="sink", operation="append")
                refused = {place: error for place, message in enumerate(messages) if message.payload == b"bad"}
                stored.extend(message.payload for message in messages if message.payload != b"bad")
                if refused:
                    raise NotAllStored(refused, slot="sink", operation="append")

        letters: list[DeadLetter] = []

        async def keep(given: Sequence[DeadLetter]) -> None:
            letters.extend(given)

        stage.create(2)
        stage.send(["a", "b"], partition=0)
        stage.send(["c", "bad", "d"], partition=1)
        async with stage.consumer(dead_letters=keep) as consumer:
            for message in await take(consumer, 5):
                await message.reject()

            await passes(20)

        with pytest.raises(NotAllStored) as partly:
            await TopicDeadLetters(Sink(), "dlq").put(letters)  # type: ignore[arg-type]

        assert [letters[place].payload for place in partly.value.refused] == [b"bad"]
        assert sorted(body or b"" for body in stored) == [b"a", b"b", b"c", b"d"]

    async def test_any_queue_of_dead_letters_may_have_places(self, stage: Stage) -> None:
        class Queue:
            def __init__(self) -> None:
                self.puts: list[list[bytes | None]] = []

            async def places(self, letters: Sequence[DeadLetter]) -> Sequence[int]:
                return [letter.tp.partition or 0 for letter in letters]

            async def put(self, letters: Sequence[DeadLetter]) -> None:
                if letters[0].payload == b"down":
                    raise TransientDriverError("down", slot="dead_letters", operation="put")

                self.puts.append([letter.payload for letter in letters])

        stage.create(2)
        stage.send(["down"], partition=0)
        stage.send(["a", "b"], partition=1)
        queue = Queue()
        async with stage.consumer(dead_letters=queue) as consumer:
            for message in await take(consumer, 3):
                await message.reject()

            await passes(60)
            assert [stage.committed(partition) for partition in range(2)] == [0, 2]

        assert [body for put in queue.puts for body in put] == [b"a", b"b"]

    async def test_a_topic_that_cannot_be_asked_for_its_partitions_is_asked_again(self, stage: Stage) -> None:
        class Sink:
            letters = 0
            down = True

            async def partitions(self, topic: str) -> int:
                if self.down:
                    raise TransientDriverError("down", slot="sink", operation="partitions")

                return 3

            async def append(self, topic: str, partition: int, messages: Sequence[OutgoingMessage], **_: Any) -> None:
                self.letters += len(messages)

        stage.send(2)
        sink = Sink()
        async with stage.consumer(dead_letters=TopicDeadLetters(sink, "dlq")) as consumer:  # type: ignore[arg-type]
            for message in await take(consumer, 2):
                await message.reject()

            await passes(100)
            sink.down = False
            await passes(100)
            assert (sink.letters, stage.committed()) == (2, 2)

    async def test_a_refused_batch_writes_no_letter_of_a_partition_that_was_lost_meanwhile(self, stage: Stage) -> None:
        written: list[int | None] = []

        async def put(letters: Sequence[DeadLetter]) -> None:
            if len(letters) > 1:
                raise ValueError("a batch is too large")

            await passes(1)
            written.append(letters[0].offset)

        stage.send(20)
        async with stage.consumer(dead_letters=put) as consumer:
            for message in await take(consumer, 20):
                await message.reject()

            await until(lambda: len(written) == 3)
            await passes(0.5)
            await consumer.seek("t", 0, 20)
            await passes(60)
            assert written == [0, 1, 2, 3], "the last was on its way"
            assert consumer.statistics().dead_lettered == 4

    async def test_nor_does_a_circuit_that_closes(self, stage: Stage) -> None:
        written: list[bytes | None] = []
        down = True

        async def put(letters: Sequence[DeadLetter]) -> None:
            if down:
                raise TransientDriverError("down", slot="dead_letters", operation="put")

            written.extend(letter.payload for letter in letters)

        stage.create(2)
        for partition, bodies in enumerate((["lost"], ["kept"])):
            stage.send(bodies, partition=partition)

        options: Any = {"dead_letters": put, "circuit_failures": 1, "circuit_open": 150}
        async with stage.consumer(**options) as consumer:
            for message in await take(consumer, 2):
                await message.reject()

            await passes(20)
            down = False
            await consumer.seek("t", 0, 1)
            await passes(300)
            assert written == [b"kept"]
            assert consumer.statistics().dead_lettered == 1

    async def test_hand_made_slots_take_a_queue_of_dead_letters(self, stage: Stage) -> None:
        stage.send(1)
        async with stage.client() as client:
            driver = client._driver
            request = SourceRequest(topics=["t"], group="g", lease=30, revoke_budget=25)
            async with Consumer(driver.source(request), group="g", dead_letters=driver.dead_letters(DLQ)) as consumer:
                await (await consumer.receive(5)).reject()
                await until(lambda: stage.letters)


class TestWithoutARoute:
    async def test_an_exhausted_message_stops_its_partition_and_is_not_dropped(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stopped: list[PartitionStopped] = []

        class Observer:
            def on_partition_stopped(self, error: PartitionStopped) -> None:
                stopped.append(error)

        stage.send(5)
        async with stage.consumer(retry=ONCE, observers=[Observer()], prefetch=2) as consumer:
            messages = await take(consumer, 2)
            await messages[0].ack()
            await messages[1].nack(reason="no good")
            with pytest.raises(PartitionStopped, match=r"t\[0\]@1 stops its partition: no good.*dead_letter_topic"):
                await consumer.receive(60)

            with pytest.raises(PartitionStopped):
                await consumer.receive_batch()

            assert [error.offset for error in stopped] == [1]
            assert [r.levelno for r in caplog.records if getattr(r, "event", "") == "partition_stopped"] == [
                logging.ERROR
            ]
            assert [(r.code, r.partition, r.offset) for r in consumer.health().reasons] == [
                ("partition_stopped", TP, 1)
            ]
            assert consumer.statistics().partitions[TP].stopped
            await passes(100)
            assert stage.committed() == 1

        async with stage.consumer() as consumer:
            assert texts(await take_all(consumer)) == numbered(4, 1)

    async def test_resuming_tries_the_message_again_and_may_stop_again(self, stage: Stage) -> None:
        stage.send(3)
        async with stage.consumer(retry=RetryPolicy(max_attempts=2, initial=1)) as consumer:
            messages = await take(consumer, 3)
            await ack(*messages[1:])
            await messages[0].nack()
            await (await consumer.receive(10)).nack()
            for attempt in (3, 4):
                with pytest.raises(PartitionStopped):
                    await consumer.receive(10)

                consumer.resume_partitions([TP])
                again = await consumer.receive(10)
                assert (again.text(), again.attempt) == ("m0", attempt)
                if attempt == 3:
                    await again.nack()
                else:
                    assert await again.ack() is AckResult.RECORDED

            await passes(2)
            assert stage.committed() == 3
            assert consumer.health().ok

    async def test_other_partitions_flow_on(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(3, partition=0)
        stage.send(3, partition=1)
        async with stage.consumer(retry=ONCE) as consumer:
            for message in await take(consumer, 6):
                await (message.nack() if message.partition == 0 else message.ack())

            stage.send(20, partition=0)
            stage.send(20, partition=1)
            assert len(await handle_all(consumer)) == 20
            assert (stage.committed(0), stage.committed(1)) == (0, 23)

    async def test_run_ends_with_the_stop_when_nothing_else_can_come(self, stage: Stage) -> None:
        stage.send(50)
        handled: list[str] = []

        async def handler(message: Message) -> None:
            if message.offset == 10:
                raise ValueError("no good")

            await passes(1)
            handled.append(message.text())

        async with stage.consumer(retry=ONCE) as consumer:
            with pytest.raises(PartitionStopped) as caught:
                await consumer.run(handler, concurrency=4)

            assert caught.value.offset == 10
            assert "m10" not in handled

        assert stage.committed() == 10

    async def test_a_record_that_cannot_be_decoded_is_given_up_only_on_the_users_word_and_the_error_says_so(
        self, stage: Stage
    ) -> None:
        stage.create()
        stage.broker.append_broken("t", 0, b"raw")
        async with stage.consumer() as consumer:
            with pytest.raises(PartitionStopped, match=r"resume_partitions\(…\) gives the record up"):
                await consumer.receive(5)

            await passes(100)
            assert stage.committed() is None
            consumer.resume_partitions([TP])
            await passes(5)
            assert stage.committed() == 1

    async def test_a_rejected_message_stops_its_partition_as_well(self, stage: Stage) -> None:
        stage.send(1)
        async with stage.consumer() as consumer:
            await (await consumer.receive(5)).reject("never")
            with pytest.raises(PartitionStopped, match="never"):
                await consumer.receive(5)

    async def test_a_queue_stops_as_well(self, queue: Stage) -> None:
        queue.send(["bad"])
        async with queue.consumer(retry=ONCE) as consumer:
            await (await consumer.receive(5)).nack()
            with pytest.raises(PartitionStopped, match="t is stopped"):
                await consumer.receive(100)

        async with queue.consumer() as consumer:
            assert texts(await take_all(consumer, quiet=100)) == ["bad"]


class TestWhatTheLogLost:
    async def test_a_gap_stops_the_partition_until_somebody_accepts_it(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 3)))

        stage.broker.truncate("t", 0, 6)
        async with stage.consumer() as consumer:
            with pytest.raises(PartitionStopped, match="offsets 3 to 5 are gone"):
                await consumer.receive(10)

            await passes(10)
            assert stage.committed() == 3
            consumer.resume_partitions([TP])
            assert offsets(await take(consumer, 4)) == [6, 7, 8, 9]
            assert consumer.statistics().lost == 3
            await passes(5)
            assert stage.committed() == 6

    async def test_a_gap_is_a_letter_where_that_was_chosen(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 3)))

        stage.broker.truncate("t", 0, 6)
        async with stage.consumer(on_lost="dead_letter", dead_letter_topic=DLQ) as consumer:
            assert await handle_all(consumer) == numbered(4, 6)

        (letter,) = stage.letters
        assert (letter.offset, letter.payload) == (3, None)
        assert "offsets 3 to 5 are gone" in letter.reason
        assert stage.committed() == 10


class TestOnTheirWayWhenPartitionsMove:
    @pytest.mark.parametrize("seconds", [2.0, 1000.0])
    async def test_a_letter_that_is_being_written_arrives_first(self, stage: Stage, seconds: float) -> None:
        stage.create(2)
        stage.send(1, partition=0)
        stage.send(1, partition=1)
        written: list[str] = []

        async def write(letters: Sequence[DeadLetter]) -> None:
            await anyio.sleep(seconds)
            written.extend(letter.id for letter in letters)

        options: dict[str, Any] = {"dead_letters": write, "close_timeout": 20}
        async with stage.consumer(**options) as first:
            for message in await take(first, 2):
                await message.reject()

            start = anyio.current_time()
            async with stage.consumer(**options) as second:
                await until(lambda: second.assigned_partitions)
                moved = anyio.current_time() - start
                handled = offsets(await take_all(second))

        if seconds < 20:
            assert (len(written), handled) == (2, [])
        else:
            # The route hangs: the move does not wait for longer than for handlers.
            assert moved <= 20
            assert len(handled) == 1

    async def test_a_route_that_is_down_holds_up_no_move(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(1, partition=0)
        stage.send(1, partition=1)

        async def refuse(letters: Sequence[DeadLetter]) -> None:
            raise TransientDriverError("it is down", slot="dead_letters", operation="put")

        async with stage.consumer(dead_letters=refuse) as first:
            for message in await take(first, 2):
                await message.reject()

            await passes(1)
            start = anyio.current_time()
            async with stage.consumer(dead_letters=refuse) as second:
                await until(lambda: second.assigned_partitions)
                assert anyio.current_time() - start < 2
                assert len(await take_all(second)) == 1


def offsets_of(letters: Sequence[DeadLetter]) -> list[int | None]:
    return [letter.offset for letter in letters]
