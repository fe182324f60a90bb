"""Promise 4: a nacked message comes back after its backoff, as a new handle, with its own body."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest

from rustmq_sdk import AckResult, Message, Messages, OutgoingMessage, PartitionStopped, Retry, RetryPolicy
from rustmq_sdk.testing import Fault
from rustmq_sdk.values import Gone
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

STEADY = RetryPolicy(initial=1, multiplier=3, jitter="none")


def expire_leases(queue: Stage) -> None:
    """The broker has run out of patience with everybody."""
    queue.broker.end_leases("g", "t")


class TestItsBody:
    @pytest.mark.parametrize(
        "cache",
        [{}, {"cache_messages": 0}, {"cache_messages": 1}, {"cache_bytes": 0}, {"cache_bytes": 3}, {"cache_ttl": 0.5}],
    )
    async def test_every_retry_has_its_own_body_whatever_the_cache_keeps(
        self, either: Stage, cache: Mapping[str, Any]
    ) -> None:
        either.send(30)
        async with either.consumer(retry=STEADY, **cache) as consumer:
            for message in await take(consumer, 30):
                await message.nack()

            again = await take(consumer, 30)
            assert sorted(texts(again)) == sorted(numbered(30))
            assert {message.attempt for message in again} == {2}
            await ack(*again)
            assert await take_all(consumer) == []

    @pytest.mark.parametrize("cache_messages", [0, 100])
    async def test_key_headers_timestamp_and_place_are_the_same(self, stage: Stage, cache_messages: int) -> None:
        stage.create()
        stage.broker.append(TP, [OutgoingMessage(b"body", b"key", (("h", b"1"), ("n", None)), timestamp=77)])
        stage.broker.append(TP, [OutgoingMessage(None, b"tombstone", timestamp=78)])
        async with stage.consumer(retry=STEADY, cache_messages=cache_messages) as consumer:
            first = await take(consumer, 2)
            for message in first:
                await message.nack()

            second = await take(consumer, 2)

        for before, after in zip(first, sorted(second, key=lambda m: m.offset or 0), strict=True):
            assert after is not before
            for name in ("payload", "key", "headers", "timestamp", "topic", "partition", "offset", "id", "fence"):
                assert getattr(after, name) == getattr(before, name)

    async def test_a_read_that_fails_is_made_again(self, stage: Stage) -> None:
        stage.plan = Plan(
            Fault("source.read", "refused"),
            Fault("source.read", "reply_lost", 2),
            Fault("source.read", "disconnect", 3, seconds=2),
        )
        stage.send(5)
        async with stage.consumer(retry=STEADY, cache_messages=0, circuit_open=3) as consumer:
            messages = await take(consumer, 5)
            await ack(messages[0], *messages[2:])
            await messages[1].nack()
            message = await consumer.receive(60)
            assert (message.text(), message.attempt) == ("m1", 2)

        assert len(stage.plan.injected) == 3

    async def test_a_read_that_hangs_holds_back_no_other_retry_for_ever(self, stage: Stage) -> None:
        stage.plan = Plan(Fault("source.read", "hang"))
        stage.send(["small", "large" * 100])
        async with stage.consumer(retry=STEADY, cache_bytes=100) as consumer:
            for message in await take(consumer, 2):
                await message.nack()

            assert sorted(texts(await take(consumer, 2))) == ["large" * 100, "small"]

    async def test_a_body_that_the_log_has_lost_stops_the_partition_and_says_so(self, stage: Stage) -> None:
        lost: list[Gone] = []

        class Observer:
            def on_lost(self, gone: Gone) -> None:
                lost.append(gone)

        stage.send(5)
        async with stage.consumer(retry=STEADY, cache_messages=0, observers=[Observer()]) as consumer:
            messages = await take(consumer, 5)
            await messages[2].nack()
            await ack(*messages[:2], *messages[3:])
            stage.broker.truncate("t", 0, 3)
            with pytest.raises(PartitionStopped, match="offsets 2 to 2 are gone: removed by retention") as caught:
                await consumer.receive(60)

            assert caught.value.offset == 2
            assert [(gone.first, gone.end) for gone in lost] == [(2, 3)]
            await passes(5)
            assert stage.committed() == 2
            assert consumer.statistics().lost == 1
            consumer.resume_partitions([TP])  # accepts the loss, as the error says
            await passes(5)
            assert stage.committed() == 5
            assert consumer.statistics().acked == 4

    async def test_a_body_that_the_log_has_lost_is_a_letter_where_that_was_chosen(self, stage: Stage) -> None:
        stage.send(5)
        async with stage.consumer(
            retry=STEADY, cache_messages=0, dead_letter_topic=DLQ, on_lost="dead_letter"
        ) as consumer:
            messages = await take(consumer, 5)
            await messages[2].nack()
            await ack(*messages[:2], *messages[3:])
            stage.broker.truncate("t", 0, 3)
            await passes(5)
            (letter,) = stage.letters
            assert (letter.offset, letter.payload, letter.attempts) == (2, None, 1)
            assert stage.committed() == 5


class TestItsTime:
    async def test_the_backoff_grows_as_configured(self, stage: Stage) -> None:
        stage.send(1)
        times = []
        async with stage.consumer(retry=STEADY) as consumer:
            for _ in range(4):
                message = await consumer.receive(100)
                times.append(anyio.current_time())
                await message.nack()

        gaps = [after - before for before, after in pairwise(times)]
        assert gaps == pytest.approx([1, 3, 9], abs=0.1)

    async def test_an_asked_delay_is_obeyed(self, either: Stage) -> None:
        either.send(1)
        async with either.consumer(retry=STEADY, lease=600) as consumer:
            message = await consumer.receive(10)
            start = anyio.current_time()
            await message.nack(delay=123)
            message = await consumer.receive(200)
            assert anyio.current_time() - start == pytest.approx(123, abs=1.1)
            assert message.attempt == 2

    async def test_other_messages_flow_meanwhile(self, either: Stage) -> None:
        either.send(20)
        async with either.consumer(retry=RetryPolicy(initial=50, jitter="none")) as consumer:
            for message in await take(consumer, 20):
                if message.text() in ("m3", "m4"):
                    await message.nack()
                else:
                    await message.ack()

            either.send(10)
            assert await handle_all(consumer) == numbered(10, 20)
            assert sorted(await handle_all(consumer, quiet=100)) == ["m3", "m4"]

    async def test_a_queue_without_delays_of_its_own_waits_here(self) -> None:
        stage = Stage("queue", without="delayed_nack")
        stage.send(2)
        async with stage.consumer(retry=STEADY) as consumer:
            first, second = await take(consumer, 2)
            await first.nack(delay=45)  # longer than the lease
            await second.ack()
            start = anyio.current_time()
            message = await consumer.receive(100)
            assert anyio.current_time() - start == pytest.approx(45, abs=0.1)
            assert (message.text(), message.attempt) == ("m0", 2)
            assert await message.ack(durable=True) is AckResult.DURABLE
            assert await take_all(consumer, quiet=100) == []

        stage.close()


class TestItsHandles:
    async def test_a_late_ack_of_the_first_attempt_does_not_settle_the_second(self, stage: Stage) -> None:
        stage.send(1)
        async with stage.consumer(retry=STEADY) as consumer:
            first = await consumer.receive(10)
            await first.nack()
            assert await first.ack() is AckResult.DUPLICATE
            second = await consumer.receive(10)
            assert await first.ack() is AckResult.DUPLICATE
            assert await first.nack() is AckResult.DUPLICATE
            assert await first.reject() is AckResult.DUPLICATE
            await passes(5)
            assert stage.committed() in (None, 0)
            assert consumer.statistics().in_flight == 1
            assert await second.ack() is AckResult.RECORDED
            await passes(5)
            assert stage.committed() == 1

    async def test_a_durable_ack_of_an_older_attempt_claims_nothing(self, either: Stage) -> None:
        either.send(1)
        async with either.consumer(retry=STEADY) as consumer:
            first = await consumer.receive(10)
            await first.nack(delay=30)
            assert await first.ack(durable=True) is AckResult.DUPLICATE
            await passes(10)
            assert await first.ack(durable=True) is AckResult.DUPLICATE
            second = await consumer.receive(60)
            assert await first.ack(durable=True) is AckResult.DUPLICATE
            assert await second.ack(durable=True) is AckResult.DURABLE

    async def test_settling_twice_counts_once(self, either: Stage) -> None:
        either.send(3)
        async with either.consumer() as consumer:
            messages = await take(consumer, 3)
            assert [await message.ack() for message in messages] == [AckResult.RECORDED] * 3
            assert [await message.ack() for message in messages] == [AckResult.DUPLICATE] * 3
            assert [await message.nack() for message in messages] == [AckResult.DUPLICATE] * 3
            statistics = consumer.statistics()
            assert (statistics.acked, statistics.nacked, statistics.in_flight) == (3, 0, 0)

    async def test_a_batch_can_be_nacked_and_comes_again_whole(self, either: Stage) -> None:
        either.send(10)
        async with either.consumer(retry=STEADY) as consumer:
            batch = await consumer.receive_batch(10)
            await batch[4].ack()
            assert await batch.nack() is AckResult.RECORDED
            assert await batch.nack() is AckResult.DUPLICATE
            assert await batch.reject() is AckResult.DUPLICATE
            again = await take_all(consumer, quiet=10)
            assert sorted(texts(again)) == sorted(text for text in numbered(10) if text != "m4")

    async def test_the_message_as_a_context_settles_by_how_it_ends(self, either: Stage) -> None:
        either.send(["acked", "nacked", "retried"])
        async with either.consumer(retry=STEADY) as consumer:
            for message in await take(consumer, 3):
                error = {"acked": None, "nacked": ValueError("x"), "retried": Retry(delay=30)}[message.text()]
                try:
                    async with message:
                        if error is not None:
                            raise error
                except ValueError as raised:
                    assert raised is error  # noqa: PT017

            statistics = consumer.statistics()
            assert (statistics.acked, statistics.nacked) == (1, 2)
            assert texts(await take(consumer, 1)) == ["nacked"]
            assert texts(await take(consumer, 1)) == ["retried"]

    async def test_a_message_nobody_settles_is_taken_back_after_the_ack_timeout(self, either: Stage) -> None:
        either.send(3)
        async with either.consumer(ack_timeout=20) as consumer:
            lost = await consumer.receive(10)
            await ack(*(await take(consumer, 2)))
            start = anyio.current_time()
            again = await consumer.receive(100)
            assert anyio.current_time() - start <= 26
            assert (again.text(), again.attempt) == ("m0", 2)
            assert await lost.ack() is not AckResult.RECORDED
            assert await again.ack() is AckResult.RECORDED
            assert await take_all(consumer, quiet=60) == []

    async def test_the_ack_timeout_leaves_alone_what_waits_in_the_buffer(self, stage: Stage) -> None:
        stage.send(50)
        async with stage.consumer(ack_timeout=20) as consumer:
            seen = []
            for _ in range(50):
                message = await consumer.receive(10)
                await passes(5)
                seen.append((message.offset, message.attempt))
                await message.ack()

        assert seen == [(offset, 1) for offset in range(50)]

    @pytest.mark.parametrize("batch_size", [None, 3])
    async def test_the_ack_timeout_begins_when_a_message_is_handed_out_and_not_while_it_waits_for_its_key(
        self, stage: Stage, batch_size: int | None
    ) -> None:
        stage.send(20, keys=["k"])
        running, most, handled = 0, 0, []

        async def handler(received: Message | Messages) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await passes(9)
            running -= 1
            handled.extend(texts([received] if isinstance(received, Message) else received))

        options: Any = {"ack_timeout": 10, "retry": RetryPolicy(max_attempts=1), "dead_letter_topic": DLQ}
        async with stage.consumer(**options) as consumer, anyio.create_task_group() as group:
            await in_background(group, partial(consumer.run, handler, concurrency=4, batch_size=batch_size))
            await until(lambda: consumer.statistics().acked == 20)
            consumer.stop()

        assert (handled, most, stage.letters) == (numbered(20), 1, [])

    async def test_nor_while_a_retry_waits_until_somebody_asks(self, either: Stage) -> None:
        await passes(1)
        either.send(1)
        async with either.consumer(ack_timeout=10, cache_messages=10) as consumer:
            await (await consumer.receive(10)).nack(delay=0)
            await passes(9.9)
            retry = await consumer.receive(10)
            await passes(9.9)
            assert retry.attempt == 2
            assert await retry.ack() is AckResult.RECORDED

    async def test_a_batch_that_nobody_settles_is_taken_back_after_the_ack_timeout(self, either: Stage) -> None:
        either.send(3)
        async with either.consumer(ack_timeout=20) as consumer:
            lost = await consumer.receive_batch(3)
            await lost[1].ack()
            again = await take(consumer, 2)
            assert {message.attempt for message in again} == {2}
            await ack(*again)
            assert await take_all(consumer, quiet=60) == []

    async def test_the_ack_timeout_counts_attempts_until_the_dead_letters(self, stage: Stage) -> None:
        stage.send(1)
        policy = RetryPolicy(max_attempts=3)
        async with stage.consumer(ack_timeout=10, retry=policy, dead_letter_topic=DLQ) as consumer:
            attempts = [message.attempt for message in await take_all(consumer, quiet=40)]
            assert attempts == [1, 2, 3]
            assert [letter.attempts for letter in stage.letters] == [3]

    @pytest.mark.parametrize("without", ["", "counts_attempts", "delayed_nack", "counts_attempts,delayed_nack"])
    async def test_the_ack_timeout_counts_attempts_on_a_queue_as_well(self, without: str) -> None:
        queue = Stage("queue", without=without)
        queue.send(["spent", "fine"])
        policy = RetryPolicy(max_attempts=3)
        async with queue.consumer(ack_timeout=10, retry=policy, dead_letter_topic=DLQ) as consumer:
            seen = []
            with anyio.move_on_after(200):
                async for message in consumer:
                    seen.append((message.text(), message.attempt))
                    if message.text() == "fine":
                        await message.ack()

            assert sorted(seen) == [("fine", 1), ("spent", 1), ("spent", 2), ("spent", 3)]
            (letter,) = queue.letters
            assert (letter.payload, letter.attempts) == (b"spent", 3)
            assert "ack_timeout=10 s or its lease ran out, attempt 3" in letter.reason
            assert consumer.statistics().in_flight == 0

        async with queue.consumer() as consumer:
            assert await take_all(consumer, quiet=60) == []

        queue.close()

    async def test_without_a_route_a_queue_stops_for_a_message_whose_attempts_ran_out(self, queue: Stage) -> None:
        queue.send(1)
        async with queue.consumer(ack_timeout=10, retry=RetryPolicy(max_attempts=2)) as consumer:
            assert [message.attempt for message in await take(consumer, 2)] == [1, 2]
            with pytest.raises(PartitionStopped, match="ran out, attempt 2"):
                await consumer.receive(60)

            consumer.resume_partitions([("t", None)])  # to try again, as the error says
            message = await consumer.receive(60)
            assert (message.text(), message.attempt) == ("m0", 3)
            assert await message.ack(durable=True) is AckResult.DURABLE

    async def test_leases_that_run_out_in_somebodys_hands_are_attempts(self, queue: Stage) -> None:
        queue.send(1)
        async with queue.consumer(retry=RetryPolicy(max_attempts=3), dead_letter_topic=DLQ) as consumer:
            for attempt in (1, 2, 3):
                message = await consumer.receive(100)
                assert message.attempt == attempt
                expire_leases(queue)
                await passes(20)
                assert await message.ack() is AckResult.STALE

            await until(lambda: queue.letters, at_most=60)
            assert [letter.attempts for letter in queue.letters] == [3]

    async def test_a_lease_that_runs_out_before_anybody_had_the_message_is_no_attempt_of_ours(
        self, queue: Stage
    ) -> None:
        queue.send(["held", "buffered"])
        async with queue.consumer(retry=RetryPolicy(max_attempts=1), dead_letter_topic=DLQ) as consumer:
            held = await consumer.receive(5)
            expire_leases(queue)
            await passes(20)
            assert await held.ack() is AckResult.STALE
            again = await consumer.receive(60)
            assert again.text() == "buffered"
            await again.ack()
            await passes(5)
            assert [letter.payload for letter in queue.letters] == [b"held"]

    async def test_a_message_of_a_queue_that_asks_for_its_retries_has_no_last_attempt(self, queue: Stage) -> None:
        queue.send(1)
        async with queue.consumer(ack_timeout=60, retry=RetryPolicy(max_attempts=2), dead_letter_topic=DLQ) as consumer:
            for attempt in range(1, 7):
                message = await consumer.receive(60)
                assert message.attempt == attempt
                async with message:
                    raise Retry(delay=1)

            assert not queue.letters

    async def test_a_queue_that_does_not_count_attempts_gives_up_all_the_same(self) -> None:
        queue = Stage("queue", without="counts_attempts")
        queue.send(2)
        policy = RetryPolicy(max_attempts=3, initial=0.1)
        async with queue.consumer(retry=policy, dead_letter_topic=DLQ) as consumer:
            seen = []
            for _ in range(6):
                message = await consumer.receive(60)
                seen.append((message.text(), message.attempt))
                await message.nack()

            assert sorted(seen) == [(text, attempt) for text in numbered(2) for attempt in (1, 2, 3)]
            await until(lambda: len(queue.letters) == 2, at_most=60)

        queue.close()

    async def test_retries_of_a_lost_partition_are_its_new_owners(self, stage: Stage) -> None:
        stage.send(3)
        async with stage.consumer(retry=RetryPolicy(initial=30, jitter="none")) as consumer:
            for message in await take(consumer, 3):
                await message.nack()

            stage.broker.expire("g")
            again = await take(consumer, 3)
            assert offsets(again) == [0, 1, 2]
            await ack(*again)
            assert await take_all(consumer, quiet=100) == []

    async def test_many_retries_at_once_wait_without_being_lost(self, stage: Stage) -> None:
        stage.send(3000)
        done: list[str] = []

        async def handler(message: Message) -> None:
            if message.attempt < 3:
                raise Retry(delay=message.attempt * 2)

            done.append(message.text())

        async with (
            stage.consumer(cache_messages=100, max_in_flight=500, prefetch=100) as consumer,
            anyio.create_task_group() as group,
        ):
            await in_background(group, consumer.run, handler)
            await until(lambda: len(done) == 3000)
            consumer.stop()

        assert sorted(done) == sorted(numbered(3000))
        assert stage.committed() == 3000
