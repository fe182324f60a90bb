"""Promise 1: each message of an assigned partition reaches the user at least once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import sniffio

from rustmq_sdk import Message, PermanentDriverError, RetryPolicy
from rustmq_sdk.testing import BACKENDS, Fault, FaultPlan
from rustmq_sdk.testing import run as run_test
from rustmq_sdk.testing.clock import Backend
from rustmq_sdk.testing.faults import OPERATIONS
from tests.promises.stage import (
    Plan,
    Stage,
    ack,
    handle_all,
    in_background,
    numbered,
    passes,
    take,
    take_all,
    texts,
    until,
)


class Refusing(FaultPlan):
    """A broker that lets nobody read."""

    def draw(self, operation: str) -> Fault | None:
        if operation == "source.fetch":
            raise PermanentDriverError("you may not read this", slot="source", operation="fetch")

        return None


@pytest.mark.virtual_time
class TestReceiving:
    async def test_every_message_comes_once_and_in_offset_order(self, either: Stage) -> None:
        either.send(2500)
        async with either.consumer() as consumer:
            assert await handle_all(consumer) == numbered(2500)

    async def test_every_partition_is_served_in_its_own_order(self, stage: Stage) -> None:
        stage.create(3)
        for partition in range(3):
            stage.send(700, partition=partition)

        async with stage.consumer() as consumer:
            messages = await take_all(consumer)

        for partition in range(3):
            assert texts(m for m in messages if m.partition == partition) == numbered(700)

    async def test_a_loop_gets_what_is_sent_while_it_waits(self, either: Stage) -> None:
        either.send(3)
        seen: list[str] = []
        async with either.consumer() as consumer, anyio.create_task_group() as group:

            async def send_later() -> None:
                await passes(30)
                either.send(4)

            group.start_soon(send_later)
            async for message in consumer:
                seen.append(message.text())
                await message.ack()
                if len(seen) == 7:
                    break

        assert seen == numbered(7)

    async def test_what_a_producer_sent_is_received_as_it_was_sent(self, either: Stage) -> None:
        async with either.client() as client, client.producer() as producer:
            await producer.send("t", "body", key="k", headers=[("h", b"1"), ("h", None)], timestamp=17)
            async with client.consumer("t", group="g") as consumer:
                message = await consumer.receive(10)

        assert (message.payload, message.key) == (b"body", b"k")
        assert list(message.headers) == [("h", b"1"), ("h", None)]
        assert (message.timestamp, message.topic, message.attempt) == (17, "t", 1)

    async def test_a_batch_is_never_empty_and_never_too_large(self, either: Stage) -> None:
        either.send(1050)
        sizes: list[int] = []
        async with either.consumer() as consumer:
            while sum(sizes) < 1050:
                batch = await consumer.receive_batch(100, timeout=10)
                sizes.append(len(batch))
                await batch.ack()

            with pytest.raises(TimeoutError):
                await consumer.receive_batch(timeout=1)

        assert all(0 < size <= 100 for size in sizes)

    async def test_a_batch_whose_time_is_over_is_what_there_is(self, either: Stage) -> None:
        either.send(3)
        async with either.consumer() as consumer:
            batch = await consumer.receive_batch(10, max_wait=5.0, timeout=1.0)
            assert len(batch) == 3
            await batch.ack()
            with pytest.raises(TimeoutError):
                await consumer.receive_batch(10, max_wait=5.0, timeout=1.0)

    async def test_a_batch_waits_for_its_first_message_and_then_no_longer_than_asked(self, stage: Stage) -> None:
        async with stage.consumer() as consumer, anyio.create_task_group() as group:
            outcome = await in_background(group, consumer.receive_batch, 10, 2.0)
            await passes(50)
            assert not outcome
            stage.send(3)
            await passes(1.9)
            assert not outcome
            await passes(0.2)

        assert texts(outcome[0]) == numbered(3)

    async def test_a_topic_that_is_created_later_is_read_from_its_beginning(self, either: Stage) -> None:
        async with either.consumer() as consumer:
            with pytest.raises(TimeoutError):
                await consumer.receive(20)

            either.send(5)
            assert await handle_all(consumer) == numbered(5)

    async def test_several_topics_are_read_by_one_consumer(self, either: Stage) -> None:
        either.send(["a0", "a1"], topic="a")
        either.send(["b0", "b1"], topic="b")
        async with either.consumer("a", "b") as consumer:
            assert sorted(await handle_all(consumer)) == ["a0", "a1", "b0", "b1"]

    async def test_many_receivers_share_the_messages(self, either: Stage) -> None:
        seen: list[str] = []

        async def receiver(receive: Callable[[], Any]) -> None:
            for _ in range(10):
                message = await receive()
                seen.append(message.text())
                await passes(0.01)
                await message.ack()

        async with either.consumer() as consumer, anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(receiver, consumer.receive)

            await passes(7)
            either.send(200)

        assert sorted(seen) == sorted(numbered(200))

    async def test_a_receiver_cancelled_when_it_was_just_woken_passes_the_wake_on(self, either: Stage) -> None:
        if sniffio.current_async_library() != "asyncio":
            pytest.skip("trio cancels nobody that was woken")

        victims: list[asyncio.Task[Message]] = []

        class Canceller:
            def on_received(self, *details: object) -> None:
                # Runs before the wake; the cancellation after it, and before the woken task does.
                asyncio.get_running_loop().call_soon(victims[0].cancel)

        either.create()
        async with (
            either.consumer(observers=[Canceller()]) as consumer,
            anyio.create_task_group() as group,
        ):
            victims.append(asyncio.ensure_future(consumer.receive()))
            await passes(1)
            patient = await in_background(group, consumer.receive, 20)
            either.send(1)
            await passes(1)
            assert victims[0].cancelled()
            assert texts(patient) == ["m0"]

    async def test_one_line_says_after_five_seconds_what_is_waited_for(
        self, either: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        either.create()
        with caplog.at_level(logging.INFO, "rustmq_sdk"):
            async with either.consumer() as consumer:
                for _ in range(4):
                    with pytest.raises(TimeoutError):
                        await consumer.receive(1.2)

                assert not _quiet_lines(caplog)
                for _ in range(4):
                    with pytest.raises(TimeoutError):
                        await consumer.receive(1.2)

        (line,) = _quiet_lines(caplog)
        assert "t: no message" in line or "t[0]: no message" in line

    async def test_the_line_names_a_topic_that_does_not_exist(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "rustmq_sdk"):
            async with stage.consumer() as consumer:
                with pytest.raises(TimeoutError):
                    await consumer.receive(6)

        (line,) = _quiet_lines(caplog)
        assert "topic 't' does not exist" in line


@pytest.mark.virtual_time
class TestFaults:
    @pytest.mark.parametrize("kind", ["refused", "reply_lost", "disconnect", "hang"])
    async def test_a_fetch_that_fails_loses_nothing(self, either: Stage, kind: Any) -> None:
        either.plan = Plan(*(Fault("source.fetch", kind, call, seconds=3) for call in (1, 3, 4, 6)))
        either.send(3000)
        async with either.consumer(prefetch=300, circuit_open=3) as consumer:
            seen = await handle_all(consumer, quiet=60)

        assert set(seen) == set(numbered(3000))
        assert len(either.plan.injected) == 4
        if either.kind == "log":
            assert seen == numbered(3000)

    async def test_control_calls_that_fail_at_the_start_are_made_again(self, stage: Stage) -> None:
        stage.plan = Plan(
            Fault("source.committed", "refused"),
            Fault("source.committed", "hang", 2),
            Fault("source.start_offsets", "disconnect", seconds=5),
            Fault("source.start_offsets", "hang", 2),
        )
        stage.send(5)
        async with stage.consumer(circuit_open=3) as consumer:
            assert await handle_all(consumer, quiet=60) == numbered(5)

        assert len(stage.plan.injected) == 4

    async def test_an_error_that_cannot_heal_reaches_the_user_as_itself(self, stage: Stage) -> None:
        async with stage.consumer(plan=Refusing()) as consumer:
            for call in (consumer.receive, consumer.receive_batch, consumer.commit):
                with pytest.raises(PermanentDriverError, match="you may not read this"):
                    await call()

            assert consumer.health().state == "failed"
            assert not consumer.health().ok

    async def test_an_error_nobody_has_seen_is_raised_at_the_exit(self, stage: Stage) -> None:
        with pytest.raises(PermanentDriverError, match="you may not read this"):
            await _live(stage, 1, plan=Refusing())

    async def test_after_a_crash_everything_unsettled_comes_again(self, either: Stage) -> None:
        either.send(20)
        plan = Plan()
        with anyio.CancelScope() as process:
            async with either.consumer(plan=plan) as consumer:
                await ack(*(await take(consumer, 8)))
                await passes(2)
                plan.breaks("source.commit", "source.settle", "source.fetch", kind="hang")
                await take(consumer, 5)
                process.cancel()

        async with either.consumer() as consumer:  # on a queue, after the leases have run out
            assert sorted(await handle_all(consumer, quiet=60)) == sorted(numbered(12, 8))

    async def test_a_member_that_joins_takes_over_without_a_gap(self, stage: Stage) -> None:
        stage.create(4)
        for partition in range(4):
            stage.send([f"{partition}.{number}" for number in range(50)], partition=partition)

        seen: list[str] = []

        async def member(delay: float) -> None:
            await passes(delay)
            async with stage.consumer(prefetch=10) as consumer:
                while True:
                    try:
                        message = await consumer.receive(20)
                    except TimeoutError:
                        return

                    await passes(0.05)
                    seen.append(message.text())
                    await message.ack()

        async with anyio.create_task_group() as group:
            group.start_soon(member, 0)
            group.start_soon(member, 2)
            group.start_soon(member, 4)

        assert sorted(seen) == sorted(f"{p}.{n}" for p in range(4) for n in range(50))

    async def test_an_expired_member_joins_again_and_goes_on(self, stage: Stage) -> None:
        stage.send(100)
        async with stage.consumer(prefetch=10) as consumer:
            seen = []
            for number in range(100):
                message = await consumer.receive(20)
                seen.append(message.text())
                await message.ack()
                if number % 20 == 10:
                    stage.broker.expire("g")
                    await passes(0.1)

            seen += await handle_all(consumer)

        assert set(seen) == set(numbered(100))

    @pytest.mark.parametrize("kind", ["log", "queue"])
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("seed", range(6))
    def test_nothing_is_lost_by_any_fault_in_any_order(self, kind: str, backend: Backend, seed: int) -> None:
        stage = Stage(kind)
        stage.create(3 if kind == "log" else 1)
        sent = []
        for partition in range(3 if kind == "log" else 1):
            bodies = [f"{partition}.{number}" for number in range(60)]
            sent += bodies
            stage.send(bodies, partition=partition, keys=["a", "b", None])

        settled: set[str] = set()

        async def handler(message: Message) -> None:
            await passes(0.01)
            if (int(message.text().split(".")[1]) + message.attempt) % 7 == 0:
                raise ValueError("as it happens")

            settled.add(message.text())

        async def live() -> None:
            operations = [operation for operation in OPERATIONS if operation != "driver.open"]
            plan = FaultPlan.random(seed, rate=0.2, most=15, operations=operations)
            policy = RetryPolicy(max_attempts=50, max_delay=1)
            with anyio.fail_after(3600):
                async with (
                    stage.consumer(plan=plan, retry=policy, circuit_open=3) as consumer,
                    anyio.create_task_group() as group,
                ):
                    group.start_soon(lambda: consumer.run(handler, concurrency=5))
                    await until(lambda: settled == set(sent), at_most=3000)
                    consumer.stop()

        run_test(live, backend=backend, seed=seed)
        assert settled == set(sent)
        stage.close()


async def _live(stage: Stage, seconds: float, **options: Any) -> None:
    """A consumer that does nothing for so many seconds."""
    async with stage.consumer(**options):
        await passes(seconds)


def _quiet_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "quiet"]
