"""Promise 15: bad input is an error, clear and early."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from rustmq_sdk import Client, ConfigurationError, Consumer, ConsumerClosed, Message, Retry, RetryPolicy
from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.slots import SourceRequest
from tests.promises.stage import DLQ, GROUP, TP, Stage, ack, handle_all, numbered, take


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
            ("memory://x?kind=heap", "expected 'log' or 'queue'"),
            ("memory://x?knid=log", "did you mean 'kind'?"),
            ("memory://x?max_in_flght=3", "did you mean 'max_in_flight'?"),
            ("memory://x?max_in_flight=many", "expected a whole number"),
            ("memory://x?max_messages=-1", "expected a number >= 1"),
            ("memory://x?without=seek,fly", "no capability 'fly'"),
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
            lambda consumer: consumer.receive_batch(5, timeout=-1),
            lambda consumer: consumer.receive_batch(5, timeout="5"),
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

    @pytest.mark.parametrize("timeout", ["5", -5, float("nan"), True])
    async def test_a_timeout_that_is_no_time_is_refused_when_there_is_something_to_wait_for(
        self, either: Stage, timeout: Any
    ) -> None:
        either.create()
        async with either.consumer() as consumer:
            with pytest.raises(ConfigurationError, match=r"expected seconds >= 0\. 0 does not wait") as caught:
                await consumer.receive(timeout)

            assert caught.value.field == "timeout"
            either.send(1)
            assert await handle_all(consumer) == ["m0"]

    async def test_a_moment_without_a_time_zone_is_refused_wherever_one_is_taken(self, stage: Stage) -> None:
        naive = datetime(2026, 1, 1)  # noqa: DTZ001  # that is the mistake
        async with stage.client() as client, stage.consumer() as consumer, client.producer() as producer:
            for call in (
                lambda: consumer.seek_to_timestamp("t", 0, naive),
                lambda: consumer.seek_all_to_timestamp(naive),
                lambda: producer.send("t", b"x", timestamp=naive),
            ):
                stage.send(1)
                with pytest.raises(ConfigurationError, match="Add tzinfo") as caught:
                    await call()

                assert caught.value.field == "timestamp"

            with pytest.raises(ConfigurationError, match="Add tzinfo"):
                producer.send_nowait("t", b"x", timestamp=naive)

    async def test_a_moment_that_is_rather_in_seconds_is_doubted_aloud_and_once(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage.send(1)
        async with stage.consumer() as consumer:
            for moment in (0, 1_763_795_000_000, datetime(1970, 1, 21, tzinfo=UTC)):
                await consumer.seek_to_timestamp("t", 0, moment)

            assert "seek_to_timestamp" not in caplog.text
            await consumer.seek_to_timestamp("t", 0, 1_763_795_000)
            await consumer.seek_all_to_timestamp(1_763_795_000)

        (doubt,) = [record for record in caplog.records if getattr(record, "event", "") == "moment_doubted"]
        assert doubt.getMessage() == (
            "seek_to_timestamp(): 1763795000 is 21 January 1970, since milliseconds are expected. "
            "Did you mean 1763795000000? Or give a datetime"
        )

    async def test_what_takes_no_dead_letters_is_no_route(self, stage: Stage) -> None:
        async with MemoryDriver(stage.broker) as driver:
            source = driver.source(SourceRequest(topics=["t"], group="g", lease=30, revoke_budget=5))
            wrong: Any = 5
            for given in ({"route": wrong}, {"dead_letters": wrong}):
                with pytest.raises(ConfigurationError, match=r"^dead_letters=5: expected an async callable or a Dead"):
                    Consumer(source, group="g", **given)

            with pytest.raises(ConfigurationError, match="no sink to write a topic with"):
                Consumer(source, group="g", dead_letter_topic="dead")

    @pytest.mark.parametrize("partitions", ["t", ["t"], ["ab"], TP, [("t",)], [("t", "0")], [(0, "t")], [None]])
    async def test_pausing_what_names_no_partition_is_refused(self, stage: Stage, partitions: Any) -> None:
        stage.send(3)
        async with stage.consumer() as consumer:
            for call in (consumer.pause_partitions, consumer.resume_partitions):
                with pytest.raises(ConfigurationError, match=r"\(topic, partition\) pairs"):
                    call(partitions)

            assert consumer.paused_partitions == frozenset()
            assert await handle_all(consumer) == numbered(3)

    async def test_pausing_a_topic_that_is_not_read_is_refused_with_the_nearest(self, either: Stage) -> None:
        either.send(3)
        number = 0 if either.kind == "log" else None
        async with either.consumer("t", "orders") as consumer:
            for call in (consumer.pause_partitions, consumer.resume_partitions):
                with pytest.raises(ConfigurationError, match=r"does not read that topic\. Did you mean 'orders'\?"):
                    call([("t", number), ("order", number)])

                with pytest.raises(ConfigurationError, match="It reads t, orders"):
                    call([("zzz", number)])

            assert consumer.paused_partitions == frozenset()
            assert await handle_all(consumer) == numbered(3)

    async def test_where_patterns_are_read_any_topic_can_be_paused(self, stage: Stage) -> None:
        for names in (("^orders-.*",), ("orders[0]",)):
            async with stage.consumer(*names) as consumer:
                consumer.pause_partitions([("orders-eu", 0)])
                assert consumer.paused_partitions == {("orders-eu", 0)}

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
