"""Promise 15: bad input is an error, clear and early; a record that cannot be decoded is never dropped."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustmq_sdk import (
    Client,
    ConfigurationError,
    ConsumerClosed,
    ConsumerStateError,
    Message,
    PartitionStopped,
    PermanentDriverError,
    Reject,
    Retry,
    RetryPolicy,
    TopicPartition,
)
from rustmq_sdk.testing import BACKENDS
from rustmq_sdk.testing import run as run_test
from rustmq_sdk.testing.clock import Backend
from rustmq_sdk.values import Checkpoint, OutgoingMessage
from tests.promises.stage import (
    DLQ,
    GROUP,
    TP,
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


async def fine(message: Message) -> None:
    """A handler."""


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("memory", "expected a URL"),
            ("://x", "expected a URL"),
            ("memry://", "Did you mean memory://?"),
            ("memory://a/b", "Write memory://NAME"),
            ("memory://x#y", "Percent-encode"),
            ("memory://x?kind", "name=value"),
            ("memory://x?kind=log&kind=log", "given twice"),
            ("memory://x?kind=heap", "expected log or queue"),
            ("memory://x?knid=log", "did you mean 'kind'?"),
            ("memory://x?max_in_flght=3", "did you mean 'max_in_flight'?"),
            ("memory://x?max_in_flight=many", "expected a whole number"),
            ("memory://x?max_messages=-1", "expected a number >= 1"),
            ("memory://x?without=seek,fly", "there is no such setting"),
            ("", "expected a URL"),
        ],
    )
    def test_a_url_that_cannot_work_is_refused_with_what_to_write(
        self, url: str, says: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("RUSTMQ_URL", raising=False)
        with pytest.raises(ConfigurationError) as caught:
            Client(url)

        assert says in str(caught.value)
        assert caught.value.field
        assert caught.value.fix


@pytest.mark.virtual_time
class TestSettings:
    @pytest.mark.parametrize(
        ("options", "field", "says"),
        [
            ({"max_in_flght": 3}, "max_in_flght", "Did you mean 'max_in_flight'?"),
            ({"dead_letter": "x"}, "dead_letter", "Did you mean 'dead_letters'?"),
            ({"max_in_flight": 0}, "max_in_flight", "Give a number >= 1"),
            ({"max_in_flight_bytes": -1}, "max_in_flight_bytes", "Give a number >= 1"),
            ({"prefetch": -5}, "prefetch", "Give a number >= 1"),
            ({"prefetch": 2.5}, "prefetch", "expected a whole number"),
            ({"prefetch": True}, "prefetch", "expected a whole number"),
            ({"max_uncommitted": 0}, "max_uncommitted", "Give a number >= 1"),
            ({"max_span": 0}, "max_span", "Give a number >= 1"),
            ({"cache_bytes": -1}, "cache_bytes", "Give a number >= 0"),
            ({"commit_interval": float("nan")}, "commit_interval", "expected a finite number"),
            ({"commit_interval": "1"}, "commit_interval", "expected a finite number"),
            ({"close_timeout": 0}, "close_timeout", "Give a number > 0"),
            ({"ack_timeout": -1}, "ack_timeout", "expected a positive number"),
            ({"start": "newest"}, "start", "'earliest'"),
            ({"start": -1}, "start", "offsets start at 0"),
            ({"start": datetime(2026, 1, 1)}, "start", "Add tzinfo"),  # noqa: DTZ001  # that is the mistake
            ({"group": ""}, "group", "Use None"),
            ({"on_lost": "ignore"}, "on_lost", "'dead_letter'"),
            ({"retry": 5}, "retry", "RetryPolicy"),
            ({"retry": {"max_attempt": 5}}, "retry.max_attempt", "Did you mean 'retry.max_attempts'?"),
            ({"dead_letters": 7}, "dead_letters", "expected an async callable"),
            ({"dead_letters": fine, "dead_letter_topic": "x"}, "dead_letters", "Give one of the two"),
            ({"close_timeout": 31}, "close_timeout", "Set close_timeout below 30"),
            ({"commit_timeout": 31}, "commit_timeout", "Set commit_timeout below 30"),
        ],
    )
    async def test_a_consumer_that_cannot_work_is_refused_before_anything_starts(
        self, stage: Stage, options: dict[str, Any], field: str, says: str
    ) -> None:
        stage.create()
        async with stage.client() as client:
            with pytest.raises(ConfigurationError) as caught:
                client.consumer("t", **options)

            assert caught.value.field == field
            assert says in str(caught.value)

        assert set(stage.plan.calls) == {"driver.open"}
        assert stage.broker.group(GROUP).members == []

    async def test_what_a_queue_cannot_do_is_refused(self, queue: Stage) -> None:
        queue.send(1)
        async with queue.client() as client:
            with pytest.raises(ConfigurationError, match=r"ack\(durable=True\)"):
                client.consumer("t", group=GROUP, auto_commit=False)

        async with queue.consumer() as consumer:
            for ordering in ("key", "partition"):
                with pytest.raises(ConfigurationError, match='Use ordering="none"'):
                    await consumer.run(fine, ordering=ordering)

            assert await handle_all(consumer) == ["m0"]


class Callable_:  # noqa: N801  # an object with __call__
    async def __call__(self, message: Message) -> None: ...


def nothing_at_all() -> None: ...


async def two_arguments(message: object, other: object) -> None: ...


def generator(message: Message) -> Iterator[Message]:
    yield message


async def asynchronous_generator(message: Message) -> AsyncIterator[Message]:
    yield message


def keywords_only(*, message: Message) -> None: ...


@pytest.mark.virtual_time
class TestRun:
    @pytest.mark.parametrize(
        ("handler", "says"),
        [
            ("handle", "expected a function"),
            (None, "expected a function"),
            (nothing_at_all, "takes one argument"),
            (two_arguments, "takes one argument"),
            (keywords_only, "takes one argument"),
            (functools.partial(two_arguments, fine, 2), "takes one argument"),
            (generator, "Take out its `yield`"),
            (asynchronous_generator, "Take out its `yield`"),
            (functools.partial(generator), "Take out its `yield`"),
        ],
    )
    async def test_a_handler_that_could_not_handle_is_refused(self, stage: Stage, handler: Any, says: str) -> None:
        stage.send(3)
        async with stage.consumer() as consumer:
            with pytest.raises(ConfigurationError) as caught:
                await consumer.run(handler)

            assert (caught.value.field, says in str(caught.value)) == ("handler", True)
            assert await handle_all(consumer) == numbered(3)

    @pytest.mark.parametrize(
        "handler", [fine, Callable_(), functools.partial(two_arguments, other=1), lambda message: None]
    )
    async def test_whatever_takes_a_message_will_do(self, stage: Stage, handler: Any) -> None:
        async with stage.consumer() as consumer:
            consumer.stop()
            await consumer.run(handler)

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            ({"concurrency": 0}, "concurrency"),
            ({"concurrency": "4"}, "concurrency"),
            ({"concurrency": 1.5}, "concurrency"),
            ({"concurrency": True}, "concurrency"),
            ({"ordering": "keys"}, "ordering"),
            ({"ordering": ["key"]}, "ordering"),
            ({"batch_size": 0}, "batch_size"),
            ({"batch_size": 2.5}, "batch_size"),
            ({"batch_size": 10_001}, "batch_size"),
            ({"batch_size": 5, "batch_wait": -1}, "batch_wait"),
            ({"batch_size": 5, "batch_wait": float("nan")}, "batch_wait"),
            ({"batch_size": 5, "batch_wait": "1"}, "batch_wait"),
        ],
    )
    async def test_an_argument_that_cannot_work_is_refused_by_name(
        self, stage: Stage, arguments: dict[str, Any], field: str
    ) -> None:
        stage.send(3)
        async with stage.consumer() as consumer:
            with pytest.raises(ConfigurationError) as caught:
                await consumer.run(fine, **arguments)

            assert caught.value.field == field
            assert await handle_all(consumer) == numbered(3)

    @pytest.mark.parametrize("end", ["stop", "close"])
    async def test_one_that_was_stopped_before_it_was_run_handles_nothing(self, either: Stage, end: str) -> None:
        either.send(1)
        async with either.consumer() as consumer:
            await consumer.close() if end == "close" else consumer.stop()
            await consumer.run(fine)
            with pytest.raises(ConsumerClosed, match="does not run again"):
                await consumer.run(fine)

        async with either.consumer() as consumer:
            assert await handle_all(consumer) == ["m0"]

    async def test_one_that_is_run_again_after_a_stop_says_so(self, either: Stage) -> None:
        async def handler(message: Message) -> None:
            consumer.stop()

        either.send(2)
        async with either.consumer() as consumer:
            await consumer.run(handler)
            with pytest.raises(ConsumerClosed, match=r"does not run again\. Make another one"):
                await consumer.run(handler)

    async def test_one_that_is_run_after_its_context_says_so(self, either: Stage) -> None:
        async with either.consumer() as consumer:
            pass

        with pytest.raises(ConsumerClosed, match="does not run again"):
            await consumer.run(fine)

    async def test_a_retry_whose_delay_is_a_text_is_a_failure_that_says_so(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage.send(1)
        attempts: list[int] = []

        async def handler(message: Message) -> None:
            attempts.append(message.attempt)
            if message.attempt == 1:
                raise Retry("later")  # type: ignore[arg-type]  # that is the mistake

            consumer.stop()

        async with stage.consumer(retry=RetryPolicy(initial=1)) as consumer:
            await consumer.run(handler)

        assert attempts == [1, 2]
        assert "Write Retry(reason=…)" in caplog.text
        assert stage.committed() == 1


class TestPlainHandlers:
    async def test_a_handler_that_answers_with_a_generator_has_not_handled(self, stage: Stage) -> None:
        stage.send(1)

        def handler(message: Message) -> object:
            consumer.stop()
            return generator(message)

        async with stage.consumer(dead_letter_topic=DLQ, retry=RetryPolicy(max_attempts=1)) as consumer:
            with anyio.fail_after(10):
                await consumer.run(handler)

        (letter,) = stage.letters
        assert (letter.payload, letter.exception_type) == (b"m0", "builtins.TypeError")


@pytest.mark.virtual_time
class TestCalls:
    @pytest.mark.parametrize(
        "call",
        [
            lambda consumer: consumer.receive_batch(0),
            lambda consumer: consumer.receive_batch(2.5),
            lambda consumer: consumer.receive_batch("5"),
            lambda consumer: consumer.receive_batch(5, max_wait=-1),
            lambda consumer: consumer.seek("t", 0, -1),
            lambda consumer: consumer.seek("t", 0, 1.5),
            lambda consumer: consumer.seek("t", 0, "1"),
            lambda consumer: consumer.seek_all(-1),
            lambda consumer: consumer.seek_to_timestamp("t", 0, 1.5),
            lambda consumer: consumer.seek_all_to_timestamp(-5),
        ],
    )
    async def test_a_wrong_argument_is_refused_and_changes_nothing(
        self, stage: Stage, call: Callable[[Any], Awaitable[object]]
    ) -> None:
        stage.send(3)
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 1)))
            with pytest.raises(ConfigurationError, match=r"expected (a whole number|seconds)"):
                await call(consumer)

            assert await handle_all(consumer) == ["m1", "m2"]

    @pytest.mark.parametrize("partitions", ["t", ["t"], ["ab"], TP, [("t",)], [("t", "0")], [(0, "t")], [None]])
    async def test_pausing_what_names_no_partition_is_refused(self, stage: Stage, partitions: Any) -> None:
        stage.send(3)
        async with stage.consumer() as consumer:
            for call in (consumer.pause_partitions, consumer.resume_partitions):
                with pytest.raises(ConfigurationError, match=r"\(topic, partition\) pairs"):
                    call(partitions)

            assert consumer.paused_partitions == frozenset()
            assert await handle_all(consumer) == numbered(3)

    async def test_a_delay_that_is_no_number_is_refused_and_the_message_stays_ours(self, either: Stage) -> None:
        either.send(1)
        async with either.consumer() as consumer:
            message = await consumer.receive(5)
            with pytest.raises(TypeError, match=r"Write nack\(reason=…\)"):
                await message.nack("not now")  # type: ignore[arg-type]  # that is the mistake

            assert consumer.statistics().nacked == 0
            await message.ack()
            assert await handle_all(consumer) == []

    @pytest.mark.parametrize("delay", [-1, -0.5, float("nan"), float("inf"), True])
    async def test_a_delay_that_cannot_be_waited_for_is_refused_and_the_message_stays_ours(
        self, either: Stage, delay: float
    ) -> None:
        either.send(1)
        async with either.consumer() as consumer:
            message = await consumer.receive(5)
            with pytest.raises(ConfigurationError, match=r"Write nack\(delay=0\) for at once"):
                await message.nack(delay=delay)

            assert consumer.statistics().nacked == 0
            await message.nack(delay=0)
            assert (await consumer.receive(2)).attempt == 2

    @pytest.mark.parametrize("delay", [-3, -0.5, float("nan"), float("inf")])
    async def test_a_retry_cannot_ask_for_such_a_delay_either(self, delay: float) -> None:
        with pytest.raises(ConfigurationError, match=r"Write Retry\(delay=0\) for at once"):
            Retry(delay=delay)

        assert Retry(delay=0).delay == 0


@pytest.mark.virtual_time
class TestUndecodable:
    async def test_it_is_dead_lettered_with_its_raw_bytes_and_everything_else_flows(self, stage: Stage) -> None:
        stage.send(3)
        stage.broker.append_broken("t", 0, b"\xff\x00broken")
        stage.broker.append_broken("t", 0, b"")
        stage.send(2)
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            assert offsets(await take_all(consumer)) == [0, 1, 2, 5, 6]

        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            assert await handle_all(consumer) == ["m0", "m1", "m2", "m5", "m6"]

        assert stage.committed() == 7
        assert [(letter.offset, letter.payload) for letter in stage.letters] == [(3, b"\xff\x00broken"), (4, b"")]
        assert "could not be decoded: not a record" in stage.letters[0].reason
        assert stage.letters[0].exception_type == "builtins.ValueError"

    @pytest.mark.parametrize("place", [0, 1, 4])
    async def test_without_a_route_its_partition_stops_and_others_flow(self, stage: Stage, place: int) -> None:
        stage.create(2)
        stage.send(place)
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(3)
        stage.send(["x", "y"], partition=1)
        async with stage.consumer() as consumer:
            messages = await take_all(consumer)
            await ack(*messages)
            stage.send(["z"], partition=1)
            assert texts(await take_all(consumer)) == ["z"]
            await consumer.commit()
            assert sorted(texts(messages)) == [*numbered(place), "x", "y"]
            assert stage.committed(0) in (None, place)
            assert stage.committed(1) == 2
            (reason,) = [reason for reason in consumer.health().reasons if reason.code == "partition_stopped"]
            assert (reason.partition, reason.offset) == (TP, place)
            assert "could not be decoded" in reason.text
            assert not consumer.health().ok
            consumer.resume_partitions([TP])
            assert await handle_all(consumer) == numbered(3, place + 1)

        assert stage.committed(0) == place + 4

    @pytest.mark.parametrize("prefetch", [1, 3, 1000])
    async def test_what_came_before_it_is_delivered_before_its_partition_stops(
        self, stage: Stage, prefetch: int
    ) -> None:
        stage.send(5)
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(2)
        async with stage.consumer(prefetch=prefetch) as consumer:
            for number in range(5):
                message = await consumer.receive(5)
                assert message.text() == f"m{number}"
                assert consumer.health().ok
                await message.ack(durable=number % 2 == 0)

            with pytest.raises(PartitionStopped):
                await consumer.receive(5)

            assert stage.committed() == 5
            consumer.resume_partitions([TP])
            assert await handle_all(consumer) == ["m6", "m7"]

    async def test_a_batch_ends_before_it_and_the_next_one_is_told_at_once(self, stage: Stage) -> None:
        stage.send(5)
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(2)
        async with stage.consumer() as consumer:
            assert texts(await consumer.receive_batch(100, max_wait=1)) == numbered(5)
            with anyio.fail_after(1), pytest.raises(PartitionStopped):
                await consumer.receive_batch(100, max_wait=1000)

            await consumer.seek("t", 0, 5)
            with anyio.fail_after(1), pytest.raises(PartitionStopped):
                await consumer.receive_batch(100, max_wait=1000)

    @pytest.mark.parametrize("options", [{"concurrency": 3}, {"concurrency": 2, "batch_size": 3}])
    @pytest.mark.parametrize("ordering", ["key", "partition", "none"])
    async def test_messages_before_it_that_wait_for_their_key_are_handled_first(
        self, stage: Stage, ordering: Any, options: Any
    ) -> None:
        stage.send(6, keys=["a", "a", "b"])
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(2)
        handled: list[str] = []

        async def handler(messages: Any) -> None:
            await passes(1)
            handled.extend(texts(messages if isinstance(messages, list) else [messages]))

        async with stage.consumer() as consumer:
            with pytest.raises(PartitionStopped):
                await consumer.run(handler, ordering=ordering, **options)

        assert sorted(handled) == numbered(6)
        assert stage.committed() == 6

    async def test_a_retry_that_is_still_to_come_waits_with_the_stopped_partition(self, stage: Stage) -> None:
        stage.send(2)
        stage.broker.append_broken("t", 0, b"raw")
        async with stage.consumer() as consumer:
            first, second = await take(consumer, 2)
            await first.nack(delay=20)
            await second.ack()
            with pytest.raises(PartitionStopped):
                await consumer.receive(60)

            await passes(30)
            consumer.resume_partitions([TP])
            assert [(message.text(), message.attempt) for message in await take_all(consumer)] == [("m0", 2)]

    async def test_a_seek_back_over_it_forgets_the_stop_until_its_turn_comes_again(self, stage: Stage) -> None:
        stage.send(3)
        stage.broker.append_broken("t", 0, b"raw")
        async with stage.consumer() as consumer:
            assert texts(await take(consumer, 1)) == ["m0"]
            await consumer.seek("t", 0, 1)
            assert texts(await take(consumer, 2)) == ["m1", "m2"]
            with pytest.raises(PartitionStopped):
                await consumer.receive(5)

    async def test_where_every_partition_is_stopped_receivers_are_told(self, stage: Stage) -> None:
        stage.broker.create_topic("t", 1)
        stage.broker.append_broken("t", 0, b"raw")
        async with stage.consumer() as consumer:
            for call in (consumer.receive, consumer.receive_batch, lambda: consumer.run(fine)):
                with pytest.raises(PartitionStopped, match="could not be decoded") as caught:
                    await call()

                assert (caught.value.topic, caught.value.partition, caught.value.offset) == ("t", 0, 0)
                assert "dead_letter_topic" in caught.value.fix

        assert stage.committed() is None

    async def test_the_position_does_not_pass_it_before_its_letter_is_written(self, stage: Stage) -> None:
        stage.broker.create_topic("t", 1)
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(2)
        stage.plan.breaks("dead_letters.put")
        async with stage.consumer(dead_letter_topic=DLQ, circuit_open=5) as consumer:
            await ack(*(await take(consumer, 2)))
            await passes(60)
            assert (stage.committed(), list(stage.letters)) == (0, [])
            stage.plan.heals()
            await until(lambda: stage.committed() == 3)
            assert [letter.payload for letter in stage.letters] == [b"raw"]

    async def test_closed_before_its_letter_is_written_it_comes_again(self, stage: Stage) -> None:
        stage.broker.create_topic("t", 1)
        stage.broker.append_broken("t", 0, b"raw")
        stage.send(2)
        stage.plan.breaks("dead_letters.put", kind="hang")
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            await ack(*(await take(consumer, 2)))

        assert stage.committed() == 0
        stage.plan.heals()
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            assert await handle_all(consumer) == []

        assert [letter.payload for letter in stage.letters] == [b"raw"]
        assert stage.committed() == 3

    async def test_a_rebalance_while_its_letter_is_written_loses_nothing(self, stage: Stage) -> None:
        stage.create(2)
        for partition in range(2):
            stage.broker.append_broken("t", partition, b"raw")
            stage.send(5, partition=partition)

        stage.plan.breaks("dead_letters.put", kind="hang", seconds=5)
        options: dict[str, Any] = {"dead_letter_topic": DLQ}
        async with stage.consumer(**options) as one, anyio.create_task_group() as group:
            first = await in_background(group, lambda: handle_all(one, quiet=60))
            async with stage.consumer(**options) as other:
                stage.broker.rebalance(GROUP)
                second = await handle_all(other, quiet=60)

            await until(lambda: first)

        assert sorted({*first[0], *second}) == [f"m{number}" for number in range(1, 6)]
        assert {(letter.tp.partition, letter.payload) for letter in stage.letters} == {(0, b"raw"), (1, b"raw")}
        assert (stage.committed(0), stage.committed(1)) == (6, 6)

    async def test_a_queue_hands_out_bytes_as_they_are(self, queue: Stage) -> None:
        queue.create()
        queue.broker.append_broken("t", 0, b"\xff\x00")
        async with queue.consumer() as consumer:
            message = await consumer.receive(5)
            assert message.payload == b"\xff\x00"
            with pytest.raises(UnicodeDecodeError):
                message.text()

            with pytest.raises(ValueError, match=r"malformed|invalid"):
                message.json()

    @pytest.mark.parametrize("backend", BACKENDS)
    @settings(max_examples=15, deadline=None)
    @given(
        payload=st.none() | st.binary(max_size=50),
        key=st.none() | st.binary(max_size=10),
        headers=st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=20)), max_size=5),
    )
    def test_any_bytes_come_as_they_were_sent_and_reach_the_dead_letters_so(
        self, backend: Backend, payload: bytes | None, key: bytes | None, headers: list[tuple[str, bytes | None]]
    ) -> None:
        stage = Stage()

        async def live() -> None:
            async with stage.client() as client, client.producer() as producer:
                await producer.send_batch("t", [OutgoingMessage(payload, key, headers)])
                async with client.consumer("t", group=GROUP, dead_letter_topic=DLQ) as consumer:
                    message = await consumer.receive(5)
                    assert (message.payload, message.key, list(message.headers)) == (payload, key, headers)
                    await message.nack(delay=0)
                    again = await consumer.receive(5)
                    assert (again.payload, again.key, list(again.headers)) == (payload, key, headers)
                    await again.reject()

        run_test(live, backend=backend)
        (letter,) = stage.letters
        assert (letter.payload, letter.key, list(letter.headers)) == (payload, key, headers)
        stage.close()


class TestCheckpoints:
    """What stands beside a committed position may be anything: a start from it skips nothing."""

    @pytest.mark.parametrize("backend", BACKENDS)
    @settings(max_examples=25, deadline=None)
    @given(position=st.integers(0, 12), extra=st.binary(max_size=40))
    def test_random_bytes_beside_a_position_are_a_safe_start(
        self, backend: Backend, position: int, extra: bytes
    ) -> None:
        assert _delivered_from(backend, Checkpoint(position, extra)) == list(range(position, 12))

    @pytest.mark.parametrize("backend", BACKENDS)
    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_a_damaged_checkpoint_is_a_safe_start(self, backend: Backend, data: st.DataObject) -> None:
        extra = bytearray(_real_checkpoint().extra)
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(extra) - 1))
            extra[place] ^= data.draw(st.integers(1, 255))

        damaged = bytes(extra)[: data.draw(st.integers(1, len(extra)))]
        if damaged != _real_checkpoint().extra:
            assert _delivered_from(backend, Checkpoint(2, damaged)) == list(range(2, 12))

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("position", [0, 1, 3, 11])
    def test_a_checkpoint_copied_to_another_position_is_a_safe_start(self, backend: Backend, position: int) -> None:
        copied = Checkpoint(position, _real_checkpoint().extra)
        assert _delivered_from(backend, copied) == list(range(position, 12))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_an_undamaged_one_is_believed(self, backend: Backend) -> None:
        assert _delivered_from(backend, _real_checkpoint()) == [2, 3, 5, 7, 9, 11]


@pytest.mark.virtual_time
class TestStartPositions:
    async def test_error_names_every_partition_nobody_has_committed(self, stage: Stage) -> None:
        stage.create(3)
        stage.broker.group(GROUP).committed[TopicPartition("t", 1)] = Checkpoint(0)
        async with stage.consumer(start="error") as consumer:
            with pytest.raises(
                ConsumerStateError, match=r"t\[0\], t\[2\] has no committed position in group 'g'"
            ) as one:
                await consumer.receive()

            with pytest.raises(ConsumerStateError) as two:
                await consumer.receive()

            assert one.value is two.value
            assert consumer.health().state == "failed"

    async def test_error_starts_where_everything_is_committed(self, stage: Stage) -> None:
        stage.send(5)
        stage.broker.group(GROUP).committed[TP] = Checkpoint(3)
        async with stage.consumer(start="error") as consumer:
            assert await handle_all(consumer) == ["m3", "m4"]

    async def test_an_offset_behind_the_end_waits_for_it(self, stage: Stage) -> None:
        stage.send(2)
        async with stage.consumer(start=4) as consumer:
            assert await take_all(consumer) == []
            stage.send(4)
            assert await handle_all(consumer) == ["m4", "m5"]


@pytest.mark.virtual_time
class TestDeadLetterRoutes:
    async def test_a_route_that_refuses_stops_the_partition_and_says_why(self, stage: Stage) -> None:
        stage.send(2)

        async def route(letters: object) -> None:
            raise PermanentDriverError("too large", slot="dead_letters", operation="put")

        async with stage.consumer(dead_letters=route) as consumer:
            first, second = await take(consumer, 2)
            await first.reject("no good")
            await ack(second)
            with pytest.raises(PartitionStopped, match=r"its dead letter was refused: .*too large"):
                await consumer.receive(5)

        assert stage.committed() == 0

    async def test_a_reject_that_is_raised_reaches_the_route_with_its_reason(self, stage: Stage) -> None:
        stage.send(1)

        async def handler(message: Message) -> None:
            consumer.stop()
            raise Reject("not for us")

        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            await consumer.run(handler)

        assert [letter.reason for letter in stage.letters] == ["not for us"]


@functools.cache
def _real_checkpoint() -> Checkpoint:
    stage = Stage()

    async def live() -> None:
        stage.send(12)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 12)
            await ack(*(messages[offset] for offset in (0, 1, 4, 6, 8, 10)))

    run_test(live)
    checkpoint = stage.checkpoint()
    stage.close()
    assert checkpoint is not None
    assert checkpoint.offset == 2
    assert checkpoint.extra
    return checkpoint


def _delivered_from(backend: Backend, checkpoint: Checkpoint) -> list[int | None]:
    """The offsets that a consumer gets which starts from there; 12 is the end."""
    stage = Stage()

    async def live() -> list[int | None]:
        stage.send(12)
        stage.broker.group(GROUP).committed[TP] = checkpoint
        async with stage.consumer() as consumer:
            return offsets(await take_all(consumer))

    try:
        return run_test(live, backend=backend)
    finally:
        stage.close()
