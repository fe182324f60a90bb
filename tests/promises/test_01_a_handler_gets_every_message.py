"""Promise 1 for handlers: ``run()`` hands them each message, ends when it is stopped, and has no rival."""

from __future__ import annotations

import anyio
import pytest

from rustmq_sdk import ConsumerStateError, Message, Messages, Reject, Retry, RetryPolicy
from rustmq_sdk.testing import BACKENDS
from rustmq_sdk.testing import run as run_test
from rustmq_sdk.testing.clock import Backend
from tests.promises.stage import DLQ, Stage, handle_all, in_background, numbered, passes, texts


@pytest.mark.virtual_time
class TestRunning:
    async def test_a_handler_gets_every_message_once(self, either: Stage) -> None:
        either.send(500)
        seen: list[str] = []
        async with either.consumer() as consumer:

            async def handler(message: Message) -> None:
                seen.append(message.text())
                if len(seen) == 500:
                    consumer.stop()

            await consumer.run(handler, concurrency=8)

        assert seen == numbered(500)

    @pytest.mark.parametrize("kind", ["log", "queue"])
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("seed", range(12))
    def test_run_ends_whenever_it_is_stopped(self, kind: str, backend: Backend, seed: int) -> None:
        stage = Stage(kind)
        total = 500 + seed
        stage.send(total)
        seen: list[str] = []

        async def live() -> None:
            async with stage.consumer() as consumer:

                async def handler(message: Message) -> None:
                    seen.append(message.text())
                    if len(seen) == total:
                        consumer.stop()

                await consumer.run(handler, concurrency=8)

        run_test(live, backend=backend, seed=seed, limit=100)
        stage.close()

    async def test_a_batch_handler_gets_every_message_once(self, either: Stage) -> None:
        either.send(500)
        seen: list[str] = []
        sizes: set[int] = set()
        async with either.consumer() as consumer:

            async def handler(batch: Messages) -> None:
                sizes.add(len(batch))
                seen.extend(texts(batch))
                if len(seen) == 500:
                    consumer.stop()

            await consumer.run(handler, concurrency=3, batch_size=50, batch_wait=0.5)

        assert sorted(seen) == sorted(numbered(500))
        assert max(sizes) <= 50

    async def test_retry_and_reject_overrule_the_policy(self, either: Stage) -> None:
        either.send(["fine", "retried", "rejected"])
        attempts: dict[str, list[int]] = {}
        async with either.consumer(dead_letter_topic=DLQ, retry=RetryPolicy(max_attempts=1)) as consumer:

            async def handler(message: Message) -> None:
                attempts.setdefault(message.text(), []).append(message.attempt)
                if message.text() == "retried" and message.attempt < 4:
                    raise Retry(delay=3)

                if message.text() == "rejected":
                    raise Reject("no good")

            async with anyio.create_task_group() as group:
                group.start_soon(consumer.run, handler)
                await passes(60)
                consumer.stop()

        assert attempts == {"fine": [1], "retried": [1, 2, 3, 4], "rejected": [1]}
        (letter,) = either.letters
        assert (letter.payload, letter.reason) == (b"rejected", "no good")

    async def test_what_a_batch_handler_took_out_of_its_batch_is_settled_as_well(self, either: Stage) -> None:
        either.send(4)
        seen: list[tuple[str, int]] = []
        async with either.consumer(retry=RetryPolicy(initial=1, jitter="none")) as consumer:

            async def handler(batch: Messages) -> None:
                while batch:
                    message = batch.pop()
                    seen.append((message.text(), message.attempt))

                if len(seen) == 4:
                    raise ValueError("only now")

            async with anyio.create_task_group() as group:
                group.start_soon(lambda: consumer.run(handler, batch_size=4))
                await passes(30)
                assert consumer.statistics().in_flight == 0
                consumer.stop()

        assert sorted(seen) == sorted([(body, attempt) for body in numbered(4) for attempt in (1, 2)])

    async def test_failures_are_logged_with_a_traceback_once_a_minute(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage.send(3)

        async def handler(message: Message) -> None:
            raise ValueError(message.text())

        policy = RetryPolicy(max_attempts=2, initial=1, jitter="none")
        async with stage.consumer(dead_letter_topic=DLQ, retry=policy) as consumer, anyio.create_task_group() as group:
            group.start_soon(consumer.run, handler)
            await passes(30)
            stage.send(1)
            await passes(40)
            stage.send(1)
            await passes(10)
            consumer.stop()

        failed = [record for record in caplog.records if getattr(record, "event", "") == "handler_failed"]
        assert [record.levelname for record in failed] == ["WARNING"] * 10
        assert sum(record.exc_info is not None for record in failed) == 2
        gave_up = [record for record in caplog.records if getattr(record, "event", "") == "dead_lettered"]
        assert [record.levelname for record in gave_up] == ["ERROR"] * 5

    async def test_a_second_run_beside_the_first_is_refused(self, either: Stage) -> None:
        either.create()

        async def handler(message: Message) -> None:
            raise AssertionError("nothing was sent")

        async with either.consumer() as consumer, anyio.create_task_group() as group:
            group.start_soon(consumer.run, handler)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(ConsumerStateError, match="beside a run"):
                await consumer.run(handler)

            with pytest.raises(ConsumerStateError, match="beside a run"):
                await consumer.receive()

            with pytest.raises(ConsumerStateError, match="beside a run"):
                await consumer.receive_batch()

            consumer.stop()

    async def test_a_handler_that_receives_from_its_own_consumer_is_refused(self, either: Stage) -> None:
        either.send(1)
        errors: list[BaseException] = []
        async with either.consumer() as consumer:

            async def handler(message: Message) -> None:
                try:
                    await consumer.receive(5)
                except Exception as error:
                    errors.append(error)

                consumer.stop()

            await consumer.run(handler)

        assert [type(error) for error in errors] == [ConsumerStateError]

    async def test_a_run_beside_a_waiting_receive_is_refused(self, either: Stage) -> None:
        either.create()

        async def handler(message: Message) -> None:
            raise AssertionError("nothing was sent")

        async with either.consumer() as consumer, anyio.create_task_group() as group:
            outcome = await in_background(group, consumer.receive)
            with pytest.raises(ConsumerStateError, match="waiting receive"):
                await consumer.run(handler)

            assert not outcome
            either.send(1)
            await passes(1)
            assert texts(outcome) == ["m0"]

    async def test_after_run_the_rest_can_be_received(self, either: Stage) -> None:
        either.send(20)
        seen: list[str] = []
        async with either.consumer() as consumer:

            async def handler(message: Message) -> None:
                seen.append(message.text())
                if len(seen) == 7:
                    raise KeyError("stop here")

            with anyio.move_on_after(1):
                await consumer.run(handler, ordering="none")

            seen.remove("m6")
            seen += await handle_all(consumer)

        assert sorted(seen) == sorted(numbered(20))


class TestPlainHandlers:
    """In real time: a thread's work is invisible to a clock that jumps."""

    async def test_a_plain_handler_gets_every_message_and_its_result_settles_it(self, either: Stage) -> None:
        either.send(50)
        seen: list[tuple[str, int]] = []
        async with either.consumer(retry=RetryPolicy(initial=0.001)) as consumer:

            def handler(message: Message) -> None:
                seen.append((message.text(), message.attempt))
                if message.text() == "m7" and message.attempt == 1:
                    raise ValueError("once")

                if len(seen) == 51:
                    consumer.stop()

            with anyio.fail_after(20):
                await consumer.run(handler, concurrency=4)

        assert sorted(seen) == sorted([*((body, 1) for body in numbered(50)), ("m7", 2)])
        if either.kind == "log":
            assert either.committed() == 50
