"""Promise 14: order as asked by run(ordering=); receive() hands out in offset order and never holds back."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import anyio
import pytest

from rustmq_sdk import Message, Messages, Reject, Retry, RetryPolicy
from rustmq_sdk.testing import BACKENDS
from rustmq_sdk.testing import run as run_test
from rustmq_sdk.testing.clock import Backend
from tests.promises.stage import (
    DLQ,
    GROUP,
    TP,
    Stage,
    ack,
    numbered,
    offsets,
    passes,
    take,
    take_all,
    texts,
    until,
)

ALWAYS = RetryPolicy(max_attempts=1000, initial=1, max_delay=1, jitter="none")

Handle = Callable[[Message], Awaitable[None]]


class Diary:
    """A handler that works for a while on each message, and notes what ran beside and after what.

    Args:
        of: what must not run at the same time: a key, a partition; None is free.
        seconds: of work on each message.
        fate: raises what is to go wrong.
    """

    def __init__(
        self,
        of: Callable[[Message], object],
        *,
        seconds: float | Callable[[], float] = 1.0,
        fate: Callable[[Message], None] = lambda message: None,
    ) -> None:
        self.done: list[str] = []
        self.attempts: list[tuple[str, int]] = []
        self.most_at_once = 0
        self.overlaps: list[object] = []
        self.running: Counter[object] = Counter()
        self.in_order: dict[object, list[int]] = defaultdict(list)
        self._of = of
        self._seconds = seconds
        self._fate = fate

    async def __call__(self, message: Message) -> None:
        about = self._of(message)
        if about is not None and self.running[about]:
            self.overlaps.append(about)

        self.running[about] += 1
        self.most_at_once = max(self.most_at_once, self.running.total())
        self.attempts.append((message.text(), message.attempt))
        try:
            await passes(self._seconds() if callable(self._seconds) else self._seconds)
            self._fate(message)
            assert message.offset is not None
            self.in_order[about].append(message.offset)
            self.done.append(message.text())
        finally:
            self.running[about] -= 1

    def assert_ordered(self) -> None:
        """One after another, and each after those before it; what runs again may come again."""
        assert self.overlaps == []
        for about, seen in self.in_order.items():
            first_time = list(dict.fromkeys(seen))
            assert about is None or first_time == sorted(first_time), about


def key_of(message: Message) -> object:
    """A message without a key is free."""
    return message.key if message.key is None else (message.partition, message.key)


def partition_of(message: Message) -> object:
    return message.partition


async def run_to_the_end(stage: Stage, handler: Any, count: int, *, most: float = 10_000, **how: Any) -> None:
    """Runs until so many messages are settled for good."""
    options = how.pop("options", {})
    async with stage.consumer(**options) as consumer, anyio.create_task_group() as group:
        group.start_soon(lambda: consumer.run(handler, **how))
        await until(lambda: consumer.statistics().acked + consumer.statistics().dead_lettered >= count, at_most=most)
        consumer.stop()


@pytest.mark.virtual_time
class TestByKey:
    async def test_messages_of_a_key_run_one_after_another_and_keys_beside_each_other(self, stage: Stage) -> None:
        stage.send(60, keys=["a", "b", "c"])
        diary = Diary(key_of)
        started = anyio.current_time()
        await run_to_the_end(stage, diary, 60, concurrency=8)
        diary.assert_ordered()
        assert diary.most_at_once == 3
        assert diary.in_order[0, b"b"] == list(range(1, 60, 3))
        assert 19.9 < anyio.current_time() - started < 22

    async def test_it_is_the_default(self, stage: Stage) -> None:
        stage.send(20, keys=["a"])
        diary = Diary(key_of)
        await run_to_the_end(stage, diary, 20, concurrency=5)
        diary.assert_ordered()
        assert diary.most_at_once == 1

    async def test_messages_without_a_key_are_free(self, stage: Stage) -> None:
        stage.send(60, keys=["a", None, None])
        diary = Diary(key_of)
        await run_to_the_end(stage, diary, 60, concurrency=10)
        diary.assert_ordered()
        assert diary.most_at_once == 10

    async def test_an_empty_key_is_a_key(self, stage: Stage) -> None:
        async with stage.client() as client, client.producer() as producer:
            for number in range(10):
                await producer.send("t", f"m{number}", key=b"")

        diary = Diary(key_of)
        await run_to_the_end(stage, diary, 10, concurrency=5)
        assert diary.most_at_once == 1
        assert diary.done == numbered(10)

    async def test_a_key_of_another_partition_is_another_key(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(5, partition=0, keys=["a"])
        stage.send(5, partition=1, keys=["a"])
        diary = Diary(key_of)
        await run_to_the_end(stage, diary, 10, concurrency=5)
        diary.assert_ordered()
        assert diary.most_at_once == 2

    async def test_a_message_being_retried_holds_back_only_its_own_key(self, stage: Stage) -> None:
        stage.send(40, keys=["a", "b"])

        def fate(message: Message) -> None:
            if message.offset == 4 and message.attempt == 1:
                raise Retry(delay=500)

        diary = Diary(key_of, fate=fate)
        async with stage.consumer() as consumer, anyio.create_task_group() as group:
            group.start_soon(lambda: consumer.run(diary, concurrency=8))
            await passes(400)
            assert diary.in_order[0, b"b"] == list(range(1, 40, 2))
            assert diary.in_order[0, b"a"] == [0, 2]
            await passes(200)
            consumer.stop()

        assert diary.in_order[0, b"a"] == list(range(0, 40, 2))
        diary.assert_ordered()

    async def test_a_rejected_message_lets_its_key_go_on_only_after_its_letter_is_written(self, stage: Stage) -> None:
        stage.send(6, keys=["a", "b"])
        stage.plan.breaks("dead_letters.put")

        def fate(message: Message) -> None:
            if message.offset == 2:
                raise Reject("no good")

        diary = Diary(key_of, fate=fate)
        async with (
            stage.consumer(dead_letter_topic=DLQ, circuit_open=5) as consumer,
            anyio.create_task_group() as group,
        ):
            group.start_soon(lambda: consumer.run(diary, concurrency=4))
            await passes(100)
            assert diary.in_order == {(0, b"a"): [0], (0, b"b"): [1, 3, 5]}
            stage.plan.heals()
            await passes(60)
            consumer.stop()

        assert diary.in_order[0, b"a"] == [0, 4]
        assert [letter.offset for letter in stage.letters] == [2]

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("seed", range(6))
    def test_no_failure_and_no_rebalance_breaks_the_order(self, backend: Backend, seed: int) -> None:
        stage = Stage()
        stage.create(2)
        rng = Random(seed)
        for partition in range(2):
            stage.send(80, partition=partition, keys=["a", "b", "c", None])

        def fate(message: Message) -> None:
            if rng.random() < 0.2:
                raise ValueError("as it happens")

        diary = Diary(key_of, seconds=lambda: rng.random() * 2, fate=fate)

        async def live() -> None:
            async with stage.consumer(retry=ALWAYS, prefetch=30) as consumer, anyio.create_task_group() as group:
                group.start_soon(lambda: consumer.run(diary, concurrency=6))
                for _ in range(5):
                    await passes(rng.random() * 15)
                    stage.broker.rebalance(GROUP)

                await until(lambda: stage.committed(0) == stage.committed(1) == 80, at_most=5000)
                consumer.stop()

        run_test(live, backend=backend, seed=seed)
        diary.assert_ordered()
        assert sorted(set(diary.done)) == sorted(numbered(80))
        stage.close()

    async def test_a_handler_that_runs_through_a_rebalance_still_holds_its_key(self, stage: Stage) -> None:
        stage.send(6, keys=["a", "b"])
        diary = Diary(key_of, seconds=30)
        async with stage.consumer(close_timeout=20) as consumer, anyio.create_task_group() as group:
            group.start_soon(lambda: consumer.run(diary, concurrency=4))
            await passes(2)
            stage.broker.rebalance(GROUP)
            await until(lambda: len(diary.done) == 6)
            consumer.stop()

        diary.assert_ordered()
        assert diary.most_at_once == 2
        assert [attempt for _, attempt in diary.attempts] == [1] * 6

    async def test_after_a_cancelled_run_the_next_one_goes_on_in_order(self, stage: Stage) -> None:
        stage.send(20, keys=["a", "b"])
        diary = Diary(key_of)
        async with stage.consumer() as consumer:
            for _ in range(4):
                with anyio.move_on_after(2.5):
                    await consumer.run(diary, concurrency=6)

            async with anyio.create_task_group() as group:
                group.start_soon(lambda: consumer.run(diary, concurrency=6))
                await until(lambda: len(diary.done) == 20)
                consumer.stop()

        diary.assert_ordered()
        assert sorted(diary.done) == sorted(numbered(20))
        assert {attempt for _, attempt in diary.attempts} == {1}

    async def test_after_a_cancelled_run_receive_gets_the_rest_in_offset_order(self, stage: Stage) -> None:
        stage.send(20, keys=["a", "b"])
        diary = Diary(key_of, seconds=10)
        async with stage.consumer() as consumer:
            with anyio.move_on_after(15):
                await consumer.run(diary, concurrency=6)

            assert sorted(diary.done) == ["m0", "m1"]
            assert offsets(await take_all(consumer)) == list(range(2, 20))


class TestPlainHandlers:
    """In real time: a thread's work is invisible to a clock that jumps."""

    async def test_threads_keep_the_order_as_well(self, stage: Stage) -> None:
        stage.send(60, keys=["a", "b", "c"])
        seen: dict[bytes | None, list[int | None]] = defaultdict(list)
        busy: set[bytes | None] = set()
        overlaps: list[bytes | None] = []
        lock = threading.Lock()

        def handler(message: Message) -> None:
            with lock:
                if message.key in busy:
                    overlaps.append(message.key)

                busy.add(message.key)

            seen[message.key].append(message.offset)
            with lock:
                busy.discard(message.key)
                if sum(map(len, seen.values())) == 60:
                    consumer.stop()

        async with stage.consumer() as consumer:
            with anyio.fail_after(20):
                await consumer.run(handler, concurrency=8)

        assert overlaps == []
        assert [seen[key] for key in (b"a", b"b", b"c")] == [list(range(first, 60, 3)) for first in range(3)]


@pytest.mark.virtual_time
class TestByPartition:
    async def test_messages_of_a_partition_run_one_after_another_and_partitions_beside_each_other(
        self, stage: Stage
    ) -> None:
        stage.create(3)
        for partition in range(3):
            stage.send(10, partition=partition, keys=["a", "b", None])

        diary = Diary(partition_of)
        await run_to_the_end(stage, diary, 30, concurrency=8, ordering="partition")
        diary.assert_ordered()
        assert diary.most_at_once == 3
        assert diary.in_order == {partition: list(range(10)) for partition in range(3)}

    async def test_a_message_being_retried_holds_back_its_partition_and_no_other(self, stage: Stage) -> None:
        stage.create(2)
        for partition in range(2):
            stage.send(10, partition=partition)

        def fate(message: Message) -> None:
            if (message.partition, message.offset, message.attempt) == (0, 3, 1):
                raise Retry(delay=500)

        diary = Diary(partition_of, fate=fate)
        async with stage.consumer() as consumer, anyio.create_task_group() as group:
            group.start_soon(lambda: consumer.run(diary, concurrency=4, ordering="partition"))
            await passes(400)
            assert diary.in_order == {0: [0, 1, 2], 1: list(range(10))}
            await passes(200)
            consumer.stop()

        assert diary.in_order[0] == list(range(10))
        diary.assert_ordered()


@pytest.mark.virtual_time
class TestNoOrder:
    async def test_everything_runs_beside_everything(self, either: Stage) -> None:
        either.send(40, keys=["a"] if either.kind == "log" else [None])
        diary = Diary(lambda message: None)
        started = anyio.current_time()
        await run_to_the_end(either, diary, 40, concurrency=10, ordering="none")
        assert diary.most_at_once == 10
        assert anyio.current_time() - started < 6

    async def test_a_message_being_retried_holds_back_nothing(self, stage: Stage) -> None:
        stage.send(10, keys=["a"])

        def fate(message: Message) -> None:
            if message.offset == 0 and message.attempt == 1:
                raise Retry(delay=100)

        diary = Diary(lambda message: None, fate=fate)
        await run_to_the_end(stage, diary, 10, concurrency=2, ordering="none")
        assert sorted(diary.done[:9]) == numbered(9, 1)
        assert diary.done[9:] == ["m0"]

    async def test_a_queue_has_no_other(self, queue: Stage) -> None:
        queue.send(10, keys=["a"])
        diary = Diary(lambda message: None)
        await run_to_the_end(queue, diary, 10, concurrency=10)
        assert diary.most_at_once == 10


@pytest.mark.virtual_time
class TestBatches:
    @pytest.mark.parametrize(("ordering", "of"), [("key", key_of), ("partition", partition_of)])
    async def test_batches_keep_the_order(self, stage: Stage, ordering: Any, of: Callable[[Message], object]) -> None:
        stage.create(2)
        for partition in range(2):
            stage.send(90, partition=partition, keys=["a", "b", "c"])

        running: set[object] = set()
        seen: dict[object, list[int | None]] = defaultdict(list)
        at_once: list[int] = []
        rng = Random(1)

        async def handler(batch: Messages) -> None:
            names = {of(message) for message in batch}
            assert not names & running, "two batches at work on one key"
            running.update(names)
            at_once.append(len(running))
            await passes(rng.random())
            for message in batch:
                seen[of(message)].append(message.offset)

            running.difference_update(names)

        await run_to_the_end(
            stage, handler, 180, concurrency=4, ordering=ordering, batch_size=10, options={"prefetch": 40}
        )
        for offsets_seen in seen.values():
            assert offsets_seen == sorted(offsets_seen, key=lambda offset: offset or 0)

        assert sum(map(len, seen.values())) == 180
        assert max(at_once) > 1

    async def test_a_batch_that_fails_comes_again_in_order_before_what_is_after_it(self, stage: Stage) -> None:
        stage.send(12, keys=["a", "b"])
        rng = Random(3)
        handled: dict[bytes | None, list[int | None]] = defaultdict(list)
        failures = 0

        async def handler(batch: Messages) -> None:
            nonlocal failures
            await passes(rng.random())
            if failures < 6:
                failures += 1
                raise ValueError("as it happens")

            for message in batch:
                handled[message.key].append(message.offset)

        policy = RetryPolicy(max_attempts=50, initial=2, jitter="full")
        await run_to_the_end(stage, handler, 12, concurrency=3, batch_size=4, options={"retry": policy})
        assert failures == 6
        assert handled == {b"a": list(range(0, 12, 2)), b"b": list(range(1, 12, 2))}


@pytest.mark.virtual_time
class TestBounds:
    async def test_max_span_holds_intake_and_health_names_the_offset(self, stage: Stage) -> None:
        stage.send(500, keys=["a", "b"])
        release = anyio.Event()

        async def handler(message: Message) -> None:
            if message.offset == 20:
                await release.wait()

        async with stage.consumer(max_span=60, prefetch=10) as consumer, anyio.create_task_group() as group:
            group.start_soon(lambda: consumer.run(handler, concurrency=4))
            await passes(30)
            assert 80 <= consumer.statistics().received <= 90
            assert stage.committed() == 20
            (reason,) = [reason for reason in consumer.health().reasons if reason.code == "max_span"]
            assert (reason.partition, reason.offset) == (TP, 20)
            assert consumer.health().ok
            release.set()
            await until(lambda: stage.committed() == 500)
            assert consumer.health().reasons == []
            consumer.stop()

    async def test_a_partition_held_back_by_one_key_starves_no_other(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(400, partition=0, keys=["a"])
        stage.send(400, partition=1, keys=["a", "b"])
        release = anyio.Event()

        async def handler(message: Message) -> None:
            if message.partition == 0:
                await release.wait()

        async with (
            stage.consumer(max_in_flight=50, prefetch=10) as consumer,
            anyio.create_task_group() as group,
        ):
            group.start_soon(lambda: consumer.run(handler, concurrency=4))
            await until(lambda: stage.committed(1) == 400)
            assert consumer.statistics().in_flight <= 50
            release.set()
            await until(lambda: stage.committed(0) == 400)
            consumer.stop()


@pytest.mark.virtual_time
class TestReceive:
    async def test_it_never_holds_back(self, stage: Stage) -> None:
        stage.send(10, keys=["a"])
        async with stage.consumer() as consumer:
            messages = await take(consumer, 10)
            assert texts(messages) == numbered(10)
            await messages[0].nack(delay=5)
            stage.send(2, keys=["a"])
            assert texts(await take(consumer, 2)) == ["m10", "m11"]
            (again,) = await take(consumer, 1)
            assert (again.text(), again.attempt) == ("m0", 2)
            await ack(*messages[1:], again)

    async def test_each_partition_comes_in_offset_order_whatever_is_done_with_it(self, stage: Stage) -> None:
        stage.create(3)
        for partition in range(3):
            stage.send(300, partition=partition, keys=["a", None])

        rng = Random(5)
        seen: dict[int | None, list[int | None]] = defaultdict(list)
        async with stage.consumer(prefetch=50) as consumer:
            while sum(map(len, seen.values())) < 900:
                batch = await consumer.receive_batch(rng.randint(1, 20), 0, timeout=60)
                for message in batch:
                    if message.attempt == 1:
                        seen[message.partition].append(message.offset)

                    await (message.ack() if rng.random() < 0.8 or message.attempt > 1 else message.nack(delay=1))

                if rng.random() < 0.1:
                    stage.broker.rebalance(GROUP)
                    await passes(0.1)

        assert all(seen[partition] == list(range(300)) for partition in range(3))

    async def test_receive_after_run_starts_after_what_run_has_handled(self, stage: Stage) -> None:
        stage.send(30, keys=["a"])
        diary = Diary(key_of)
        async with stage.consumer() as consumer:
            with anyio.move_on_after(9.5):
                await consumer.run(diary)

            assert diary.done == numbered(9)
            assert offsets(await take_all(consumer)) == list(range(9, 30))
