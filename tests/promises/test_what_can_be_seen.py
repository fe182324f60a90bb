"""Statistics are exact, health names what holds something back, observers hear of everything once."""

from __future__ import annotations

import gc
import logging
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from rustmq_sdk import ConfigurationError, Message, Observer, RetryPolicy, TopicPartition
from rustmq_sdk._core.lane import Lane
from tests.promises.stage import DLQ, TP, Stage, ack, handle_all, in_background, numbered, passes, take, take_all, until

pytestmark = pytest.mark.virtual_time

STEADY = RetryPolicy(initial=10, jitter="none", max_attempts=3)


def lanes_alive() -> int:
    gc.collect()
    return sum(isinstance(found, Lane) for found in gc.get_objects())


class TestStatistics:
    async def test_every_count_is_exact(self, either: Stage) -> None:
        either.send(20)
        async with either.consumer(retry=STEADY, dead_letter_topic=DLQ, prefetch=1000) as consumer:
            messages = await take(consumer, 12)
            await ack(*messages[:5])
            await messages[5].nack()
            await messages[6].nack()
            await messages[7].reject()
            await passes(3)
            statistics = consumer.statistics()
            assert (statistics.received, statistics.acked) == (20, 5)
            assert (statistics.nacked, statistics.rejected) == (2, 1)
            assert (statistics.dead_lettered, statistics.redelivered, statistics.lost) == (1, 0, 0)
            assert (statistics.buffered, statistics.uncommitted) == (8, 0)
            # On a queue the broker has what was nacked, until it is due.
            assert (statistics.in_flight, statistics.waiting_retry) == ((14, 2) if either.kind == "log" else (12, 0))
            again = await take(consumer, 10, timeout=30)
            await ack(*again, *messages[8:])
            await passes(3)
            statistics = consumer.statistics()
            assert (statistics.received, statistics.acked, statistics.redelivered) == (20, 19, 2)
            assert (statistics.in_flight, statistics.waiting_retry, statistics.uncommitted) == (0, 0, 0)
            assert statistics.oldest_unsettled is None

        assert (consumer.statistics().acked, consumer.statistics().dead_lettered) == (19, 1)

    async def test_a_consumer_says_how_it_is_set_and_what_its_source_can_do(self, either: Stage) -> None:
        async with either.consumer(group="billing", prefetch=7) as consumer:
            assert (consumer.config.group, consumer.config.prefetch) == ("billing", 7)
            assert consumer.capabilities.kind == either.kind

    async def test_acks_that_nobody_was_told_of_are_counted(self, stage: Stage) -> None:
        stage.send(1000)
        async with stage.consumer(commit_interval=1) as consumer:
            messages = await take(consumer, 1000)
            for number in range(0, 900, 90):
                await ack(*messages[number : number + 90])
                assert consumer.statistics().acked == number + 90
                await passes(0.7)

    async def test_partitions_tell_where_they_are(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 6)
            await ack(*messages[:2], messages[4])
            await consumer.commit()
            await messages[2].ack()
            (partition,) = consumer.statistics().partitions.values()
            assert (partition.position, partition.watermark, partition.committed) == (6, 3, 2)
            assert (partition.in_flight, partition.uncommitted) == (6, 1)
            assert (partition.paused, partition.stopped) == (False, False)

    async def test_the_oldest_unsettled_message_has_an_age(self, either: Stage) -> None:
        either.send(2)
        async with either.consumer() as consumer:
            await passes(1)
            assert consumer.statistics().oldest_unsettled is None or consumer.statistics().buffered
            await take(consumer, 2)
            await passes(7)
            assert consumer.statistics().oldest_unsettled == pytest.approx(7)

    async def test_they_can_be_asked_for_at_any_time(self, either: Stage) -> None:
        async with either.client() as client:
            consumer = client.consumer("t", group="g")
            assert consumer.statistics().received == 0
            async with consumer:
                assert consumer.statistics().in_flight == 0

            assert consumer.statistics().in_flight == 0

    @pytest.mark.parametrize("ordering", ["none", "key"])
    async def test_they_are_exact_at_every_moment_of_a_run(self, stage: Stage, ordering: Any) -> None:
        stage.send(300, keys=["a", "b", "c", None])
        handled = Counter[str]()

        async def handler(message: Message) -> None:
            await passes(0.01)
            if message.attempt == 1 and (message.offset or 0) % 5 == 0:
                handled["nacked"] += 1
                raise ValueError

            handled["acked"] += 1

        policy = RetryPolicy(initial=0.2, max_attempts=10)
        async with stage.consumer(retry=policy, prefetch=20) as consumer, anyio.create_task_group() as group:
            await in_background(group, lambda: consumer.run(handler, concurrency=7, ordering=ordering))
            while handled["acked"] < 300:
                statistics = consumer.statistics()
                assert statistics.nacked == handled["nacked"]
                # One more is counted by its handler than is settled, in the moment between the two.
                assert 0 <= handled["acked"] - statistics.acked <= 7
                assert statistics.in_flight == statistics.received - statistics.acked
                await passes(0.003)

            consumer.stop()

        assert consumer.statistics().redelivered == handled["nacked"] == 60


class TestHealth:
    async def test_all_is_well_where_nothing_is_wrong(self, either: Stage) -> None:
        either.send(1)
        async with either.consumer() as consumer:
            await take(consumer, 1)
            health = consumer.health()
            assert (health.ok, health.state, list(health.reasons)) == (True, "running", [])

    async def test_it_says_when_nothing_is_assigned(self, stage: Stage) -> None:
        stage.create()
        async with stage.consumer() as consumer:
            await until(lambda: consumer.assigned_partitions)
            async with stage.consumer() as other:
                await passes(1)
                assert [reason.code for reason in other.health().reasons] == ["no_partitions"]
                assert other.health().ok

    async def test_it_is_not_well_while_a_topic_does_not_exist_and_says_which(self, either: Stage) -> None:
        either.create(topic="t")
        async with either.client() as client:
            consumer = client.consumer("t", "typo", group="g")
            assert consumer.health().ok  # nobody has looked yet
            async with consumer:
                await until(lambda: consumer.assigned_partitions)
                health = consumer.health()
                (reason,) = health.reasons
                assert (health.ok, health.state, reason.code) == (False, "running", "unknown_topic")
                assert reason.partition == TopicPartition("typo", None)
                assert "topic 'typo' does not exist; waiting until somebody creates it" in reason.text
                either.create(topic="typo")
                await until(lambda: len(consumer.assigned_partitions) == 2)
                assert (consumer.health().ok, list(consumer.health().reasons)) == (True, [])
                await client.delete_topic("t")
                await passes(1)
                assert [reason.partition for reason in consumer.health().reasons] == [TopicPartition("t", None)]

    async def test_a_receiver_without_any_topic_is_told_so(self, either: Stage) -> None:
        async with either.consumer("typo") as consumer:
            with pytest.raises(TimeoutError, match="no message within 1 s: topic 'typo' does not exist"):
                await consumer.receive(1)

            assert not consumer.health().ok

    async def test_it_says_that_it_is_closing(self, stage: Stage) -> None:
        stage.send(1)
        async with stage.consumer() as consumer, anyio.create_task_group() as group:
            (message,) = await take(consumer, 1)
            await in_background(group, consumer.close)
            assert consumer.health().state == "stopping"
            assert "closing" in [reason.code for reason in consumer.health().reasons]
            await message.ack()


class TestStalls:
    async def test_a_message_nobody_settles_is_reported_once_with_its_offset(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stalls: list[tuple[Any, int, float]] = []

        class Watcher(Observer):
            def on_stalled(self, partition: Any, offset: int, age: float) -> None:
                stalls.append((partition, offset, age))

        stage.send(10)
        async with stage.consumer(stall_after=40, observers=[Watcher()]) as consumer:
            await passes(1)
            messages = await take(consumer, 10)
            await ack(*messages[:4], *messages[5:])
            await passes(35)
            assert not stalls
            await passes(300)
            ((partition, offset, age),) = stalls
            assert (partition, offset) == (TP, 4)
            assert 40 <= age <= 52
            (reason,) = consumer.health().reasons
            assert (reason.code, reason.offset, reason.partition) == ("stalled", 4, TP)
            assert not consumer.health().ok
            assert reason.since is not None
            assert reason.since > 300
            await messages[4].ack()
            await passes(30)
            assert consumer.health().ok

        lines = [record for record in caplog.records if getattr(record, "event", "") == "stalled"]
        assert [line.levelno for line in lines] == [logging.WARNING]
        assert re.fullmatch(
            r"t\[0\]@4 is unsettled for \d\d s and holds the watermark\. "
            r"Call its ack\(\), nack\(\) or reject\(\); under run\(\) its handler has not returned",
            lines[0].getMessage(),
        )

    async def test_who_never_acks_is_told_why_nothing_more_comes(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage.send(20)
        async with stage.consumer(max_in_flight=10) as consumer:
            await passes(1)
            received = await take_all(consumer, quiet=100)
            told = {reason.code: reason.text for reason in consumer.health().reasons}

        assert len(received) == 10
        assert told["max_in_flight"] == "10 messages are unsettled (max_in_flight=10): ack some of them"
        assert "Call its ack()" in told["stalled"]
        (line,) = [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "stalled"]
        assert "Call its ack()" in line
        assert line.endswith(". Nothing more is fetched: 10 are unsettled (max_in_flight=10)")

    async def test_each_message_that_holds_the_watermark_in_turn_is_given_its_time(self, stage: Stage) -> None:
        stage.send(3)
        async with stage.consumer(stall_after=40) as consumer:
            messages = await take(consumer, 3)
            for message in messages:
                await passes(35)
                assert consumer.health().ok
                await passes(30)
                assert [reason.offset for reason in consumer.health().reasons] == [message.offset]
                await message.ack()

    async def test_nothing_is_said_or_kept_of_partitions_that_are_over(self, stage: Stage) -> None:
        before = lanes_alive()
        stage.create(2)
        for partition in (0, 1):
            stage.send(5, partition=partition)

        async with stage.consumer(stall_after=1) as consumer:
            held: list[Message] = await take(consumer, 1)
            for _ in range(40):
                await passes(2)
                assert [reason.code for reason in consumer.health().reasons] == ["stalled"]
                await consumer.seek("t", held[0].partition or 0, 0)
                assert consumer.health().ok, "nobody has that message any more"
                held = await take(consumer, 1)

            assert lanes_alive() - before < 10

    async def test_messages_that_wait_are_no_stall(self, stage: Stage) -> None:
        stage.send(10)
        async with stage.consumer(stall_after=10, retry=RetryPolicy(initial=500, jitter="none")) as consumer:
            messages = await take(consumer, 3)
            await messages[0].nack()
            await ack(*messages[1:])
            await passes(200)  # one waits for its retry, seven for somebody to ask
            assert consumer.health().ok


class TestObservers:
    async def test_each_hears_of_everything_once(self, either: Stage) -> None:
        counts: Counter[str] = Counter()

        class Everything(Observer):
            def on_received(self, partition: Any, messages: int, size: int) -> None:
                counts["received"] += messages
                counts["bytes"] += size

            def on_settled(self, partition: Any, messages: int) -> None:
                counts["settled"] += messages

            def on_retried(self, partition: Any, offset: int | None, attempt: int, delay: float) -> None:
                counts["retried"] += 1
                counts["attempts"] += attempt

            def on_dead_lettered(self, letters: Any) -> None:
                counts["letters"] += len(letters)

        either.send(["abcd"] * 100)
        async with either.consumer(retry=STEADY, dead_letter_topic=DLQ, observers=[Everything()]) as consumer:
            messages = await take(consumer, 100)
            await messages[10].nack()
            await messages[20].reject()
            for number, message in enumerate(messages):
                await message.ack()
                if number % 30 == 0:
                    await passes(1.1)

            assert await handle_all(consumer, quiet=30)
            await passes(2)

        assert counts["settled"] == 100
        assert (counts["retried"], counts["attempts"], counts["letters"]) == (1, 1, 1)
        assert counts["received"] == (100 if either.kind == "log" else 101)
        assert counts["bytes"] == 4 * counts["received"]

    async def test_an_observer_that_fails_is_logged_and_ends_nothing(
        self, either: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Failing:
            def on_received(self, *details: object) -> None:
                raise RuntimeError("not my day")

            def on_settled(self, *details: object) -> None:
                raise RuntimeError("not my day")

            def on_committed(self, *details: object) -> None:
                raise RuntimeError("not my day")

        either.send(10)
        async with either.consumer(observers=[Failing()]) as consumer:
            assert len(await handle_all(consumer)) == 10

        failed = [record for record in caplog.records if getattr(record, "event", "") == "observer_failed"]
        assert len(failed) >= 2
        assert all(record.levelno == logging.ERROR and record.exc_info for record in failed)

    async def test_commits_that_fail_are_told(self, either: Stage) -> None:
        failures: list[tuple[Any, str]] = []

        class Listener:
            def on_commit_failed(self, partitions: Any, reason: str) -> None:
                failures.append((list(partitions), reason))

        either.plan.breaks("source.commit", "source.settle")
        either.send(3)
        async with either.consumer(observers=[Listener()]) as consumer:
            await ack(*(await take(consumer, 3)))
            await until(lambda: failures)
            either.plan.heals()

        assert failures[0][0] == [TP if either.kind == "log" else TP._replace(partition=None)]
        assert "refused" in failures[0][1]


class Recording:
    """An observer with attributes and methods of its own."""

    on_duty = True

    def __init__(self) -> None:
        self.received = 0

    def on_received(self, partition: TopicPartition, messages: int, size: int) -> None:
        self.received += messages

    def _on_recieved(self) -> None: ...

    def only_mine(self) -> None: ...


class Misspelt(Observer):
    def on_recieved(self, partition: TopicPartition, messages: int, size: int) -> None: ...


class NoEvent:
    def on_fire(self) -> None: ...


class Asynchronous:
    async def on_settled(self, partition: TopicPartition, messages: int) -> None: ...


class Generating:
    def on_settled(self, partition: TopicPartition, messages: int) -> Iterator[int]:
        yield messages


class Calling:
    def __init__(self) -> None:
        class Later:
            async def __call__(self, partition: TopicPartition, messages: int) -> None: ...

        self.on_settled = Later()


class TestObserversThatWouldHearNothing:
    @pytest.mark.parametrize(
        ("observer", "says"),
        [
            (Misspelt(), "Did you mean on_received?"),
            (NoEvent(), "Known are on_received, on_settled"),
            (Asynchronous(), "write `def` without `async`"),
            (Generating(), "write `def` without `async` and `yield`"),
            (Calling(), "on_settled does not run"),
            (Recording, "Give an object of it: Recording()"),
        ],
    )
    async def test_are_refused_before_anything_starts(self, stage: Stage, observer: object, says: str) -> None:
        async with stage.client() as client:
            with pytest.raises(ConfigurationError) as caught:
                client.consumer("t", observers=[Recording(), observer])

        assert caught.value.field == "observers"
        assert says in str(caught.value)
        assert set(stage.plan.calls) == {"driver.open"}

    async def test_a_single_one_is_no_list_of_them(self, stage: Stage) -> None:
        async with stage.client() as client:
            with pytest.raises(ConfigurationError, match=r"Write observers=\[…\]"):
                client.consumer("t", observers=Recording())  # type: ignore[arg-type]  # that is the mistake

    async def test_but_what_is_no_event_by_its_name_is_an_observers_own(self, stage: Stage) -> None:
        stage.send(3)
        observer = Recording()
        async with stage.consumer(observers=[observer, Observer()]) as consumer:
            assert await handle_all(consumer) == numbered(3)

        assert observer.received == 3


class TestLogLines:
    async def test_all_of_them_name_a_message_alike(self, either: Stage, caplog: pytest.LogCaptureFixture) -> None:
        async def handler(message: Message) -> None:
            await passes(20)
            consumer.stop()
            raise ValueError("too late")

        either.send(1)
        policy = RetryPolicy(max_attempts=1)
        async with either.consumer(retry=policy, dead_letter_topic=DLQ, ack_timeout=10) as consumer:
            await consumer.run(handler)

        place = "t[0]@0" if either.kind == "log" else "t@t:0"
        for event in ("handler_failed", "ack_timeout", "dead_lettered"):
            (line,) = (record.getMessage() for record in caplog.records if getattr(record, "event", "") == event)
            assert any(place + mark in line for mark in (",", ":", " "))
