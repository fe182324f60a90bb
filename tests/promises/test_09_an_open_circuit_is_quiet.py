"""Promise 9: an open circuit lets one probe through at a time and nothing else, and nothing is lost by it."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from rustmq_sdk import AckResult, RetryPolicy
from rustmq_sdk.testing import Fault
from tests.promises.stage import DLQ, Plan, Stage, ack, handle_all, in_background, numbered, passes, take, until

pytestmark = pytest.mark.virtual_time


class Timed(Plan):
    """A plan that notes when each call was made."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.times: list[tuple[str, float]] = []

    def draw(self, operation: str) -> Fault | None:
        self.times.append((operation, anyio.current_time()))
        return super().draw(operation)

    def between(self, first: float, end: float) -> Counter[str]:
        return Counter(operation for operation, at in self.times if first <= at < end)


class Circuits:
    def __init__(self) -> None:
        self.changes: list[tuple[str, str, str]] = []

    def on_circuit_changed(self, circuit: str, before: str, after: str) -> None:
        self.changes.append((circuit, before, after))


@pytest.fixture
def timed(either: Stage) -> Timed:
    either.plan = Timed()
    return either.plan


class TestFetching:
    async def test_after_five_failures_one_probe_a_minute_is_all(self, either: Stage, timed: Timed) -> None:
        either.send(10)
        timed.breaks("source.fetch")
        async with either.consumer() as consumer:
            await until(lambda: consumer.statistics().circuits["source.fetch"] == "open")
            opened = anyio.current_time()
            assert timed.calls["source.fetch"] == 5
            await passes(600)
            assert timed.between(opened + 1, opened + 600)["source.fetch"] <= 10
            (reason,) = [reason for reason in consumer.health().reasons if reason.code == "circuit_open"]
            assert "source.fetch" in reason.text
            assert "refused" in reason.text
            assert not consumer.health().ok
            timed.heals()
            assert sorted(await handle_all(consumer, quiet=100)) == sorted(numbered(10))
            assert consumer.health().ok

    async def test_only_one_probe_is_out_at_a_time(self, either: Stage, timed: Timed) -> None:
        either.send(10)
        timed.breaks("source.fetch")
        async with either.consumer() as consumer:
            await until(lambda: consumer.statistics().circuits["source.fetch"] == "open")
            timed.breaks("source.fetch", kind="hang", seconds=500)
            before = timed.calls["source.fetch"]
            await passes(400)
            assert timed.calls["source.fetch"] == before + 1
            assert consumer.statistics().circuits["source.fetch"] == "half-open"

    async def test_what_was_received_can_be_settled_meanwhile(self, either: Stage, timed: Timed) -> None:
        either.send(30)
        async with either.consumer(prefetch=20) as consumer:
            messages = await take(consumer, 10)
            timed.breaks("source.fetch")
            await until(lambda: consumer.statistics().circuits["source.fetch"] == "open")
            messages += await take(consumer, 10)
            await ack(*messages)
            assert await messages[0].ack(durable=True) is AckResult.DURABLE
            assert consumer.statistics().acked == 20
            timed.heals()
            assert len(await handle_all(consumer, quiet=100)) == 10

    async def test_an_empty_answer_closes_nothing(self, stage: Stage) -> None:
        stage.plan = Timed()
        stage.create()
        stage.plan.breaks("source.fetch")
        async with stage.consumer() as consumer:
            await until(lambda: consumer.statistics().circuits["source.fetch"] == "open")
            stage.plan.heals()
            await passes(600)
            assert consumer.statistics().circuits["source.fetch"] == "half-open"
            stage.send(1)
            assert await handle_all(consumer) == ["m0"]
            assert consumer.statistics().circuits["source.fetch"] == "closed"

    async def test_observers_hear_of_every_change(self, stage: Stage) -> None:
        circuits = Circuits()
        stage.send(1)
        stage.plan.breaks("source.fetch")
        async with stage.consumer(circuit_open=5, observers=[circuits]) as consumer:
            await until(lambda: circuits.changes)
            stage.plan.heals()
            await consumer.receive(20)

        assert {circuit for circuit, _, _ in circuits.changes} == {"source.fetch"}
        assert [after for _, _, after in circuits.changes] == ["open", "half-open", "closed"]


class TestSettling:
    async def test_commits_stop_and_acks_go_on_and_nothing_is_lost(self, either: Stage, timed: Timed) -> None:
        either.send(200)
        timed.breaks(either.settling)
        async with either.consumer() as consumer:
            await ack(*(await take(consumer, 100)))
            await until(lambda: consumer.statistics().circuits["source.settle"] == "open")
            opened = anyio.current_time()
            for message in await take(consumer, 100):
                assert await message.ack() is AckResult.RECORDED
                await passes(3)

            assert timed.between(opened + 1, opened + 300)[either.settling] <= 5
            assert timed.between(opened + 1, opened + 300)["source.fetch"] > 100
            timed.heals()
            await until(lambda: consumer.statistics().uncommitted == 0)

        async with either.consumer() as consumer:
            assert await handle_all(consumer, quiet=100) == []

    async def test_a_settling_that_hangs_counts_as_a_failure(self, either: Stage, timed: Timed) -> None:
        either.send(10)
        timed.breaks(either.settling, kind="hang")
        async with either.consumer(commit_timeout=3) as consumer:
            await ack(*(await take(consumer, 5)))
            await until(lambda: consumer.statistics().circuits["source.settle"] == "open", at_most=60)
            before = timed.calls[either.settling]
            await passes(50)
            assert timed.calls[either.settling] == before
            timed.heals()

    async def test_closing_tries_once_although_it_is_open(self, either: Stage, timed: Timed) -> None:
        either.send(10)
        timed.breaks(either.settling)
        async with either.consumer() as consumer:
            await ack(*(await take(consumer, 10)))
            await until(lambda: consumer.statistics().circuits["source.settle"] == "open")
            timed.heals()
            before = timed.calls[either.settling]

        assert timed.calls[either.settling] == before + 1
        async with either.consumer() as consumer:
            assert await handle_all(consumer, quiet=100) == []

    async def test_revoking_tries_once_although_it_is_open(self, stage: Stage) -> None:
        stage.create(2)
        stage.send(5, partition=0)
        stage.send(5, partition=1)
        stage.plan.breaks("source.commit")
        async with stage.consumer() as consumer:
            await ack(*(await take(consumer, 10)))
            await until(lambda: consumer.statistics().circuits["source.settle"] == "open")
            stage.plan.heals()
            async with stage.consumer(plan=Plan()) as other:
                assert await handle_all(other) == []
                assert (stage.committed(0), stage.committed(1)) == (5, 5)

    async def test_leases_are_renewed_although_it_is_open(self, queue: Stage) -> None:
        queue.send(10)
        queue.plan.breaks("source.settle")
        async with queue.consumer() as consumer:
            messages = await take(consumer, 10)
            await ack(*messages[:5])
            await passes(200)
            queue.plan.heals()
            await passes(100)
            assert [await message.ack(durable=True) for message in messages] == [AckResult.DURABLE] * 10

        async with queue.consumer() as consumer:
            assert await handle_all(consumer, quiet=100) == []


class TestOtherSlots:
    async def test_the_dead_letter_route_has_a_circuit_of_its_own(self, stage: Stage) -> None:
        stage.plan = Timed()
        stage.plan.breaks("dead_letters.put")
        stage.send(20)
        async with stage.consumer(dead_letter_topic=DLQ) as consumer:
            for message in await take(consumer, 20):
                await message.reject()

            await until(lambda: consumer.statistics().circuits["dead_letters.put"] == "open")
            before = stage.plan.calls["dead_letters.put"]
            await passes(50)
            assert stage.plan.calls["dead_letters.put"] == before
            assert consumer.statistics().circuits["source.fetch"] == "closed"
            stage.plan.heals()
            await until(lambda: len(stage.letters) == 20)

    async def test_reading_for_retries_has_a_circuit_of_its_own(self, stage: Stage) -> None:
        stage.plan.breaks("source.read")
        stage.send(["small", "x" * 1000])
        policy = RetryPolicy(initial=1, max_delay=1, max_attempts=100, jitter="none")
        async with stage.consumer(cache_bytes=100, retry=policy) as consumer, anyio.create_task_group() as group:
            small, large = await take(consumer, 2)
            await large.nack()
            await until(lambda: consumer.statistics().circuits.get("source.read") == "open")
            before = stage.plan.calls["source.read"]
            await small.nack()
            again = await in_background(group, consumer.receive, 3)
            await until(lambda: again)
            assert again[0].text() == "small"  # it is in the cache, and waits for nobody
            await again[0].ack()
            await passes(30)
            assert stage.plan.calls["source.read"] == before
            stage.plan.heals()
            assert (await consumer.receive(100)).text() == "x" * 1000

    async def test_cancelled_calls_count_for_nothing(self, either: Stage, timed: Timed) -> None:
        either.send(20)
        async with either.consumer() as consumer:
            for message in await take(consumer, 20):
                timed.breaks(either.settling, kind="hang", seconds=0.5)
                with anyio.move_on_after(0.1):
                    await message.ack(durable=True)

                timed.heals()
                await passes(1)

            assert consumer.statistics().circuits["source.settle"] == "closed"


class TestAnOutageOfHours:
    """Longer than any power of two that a float can hold."""

    FAILURES = 2000

    async def test_fetching_goes_on_where_it_was(self, either: Stage, timed: Timed) -> None:
        either.send(10)
        timed.breaks("source.fetch")
        async with either.consumer(circuit_open=1) as consumer:
            await until(lambda: timed.calls["source.fetch"] >= self.FAILURES, at_most=10_000, step=10)
            assert consumer.health().state == "running"
            timed.heals()
            assert sorted(await handle_all(consumer, quiet=100)) == sorted(numbered(10))

    async def test_dead_letters_arrive_after_it(self, either: Stage, timed: Timed) -> None:
        either.send(10)
        timed.breaks("dead_letters.put")
        async with either.consumer(circuit_open=1, dead_letter_topic=DLQ, commit_interval=100) as consumer:
            for message in await take(consumer, 10):
                await message.reject()

            timed.breaks("source.fetch", kind="hang")  # else there is an empty one a second
            await until(lambda: timed.calls["dead_letters.put"] >= self.FAILURES, at_most=100_000, step=10)
            assert consumer.health().state == "running"
            timed.heals()
            await until(lambda: len(either.letters) == 10)

        async with either.consumer() as consumer:
            assert await handle_all(consumer, quiet=100) == []

    async def test_what_was_settled_is_written_after_it(self, either: Stage, timed: Timed) -> None:
        either.send(10)
        timed.breaks(either.settling)
        async with either.consumer(circuit_open=1) as consumer:
            await ack(*(await take(consumer, 10)))
            await until(lambda: timed.calls[either.settling] >= self.FAILURES, at_most=10_000, step=10)
            timed.heals()
            await until(lambda: consumer.statistics().uncommitted == 0)

        async with either.consumer() as consumer:
            assert await handle_all(consumer, quiet=100) == []
