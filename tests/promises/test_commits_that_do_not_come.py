"""Nothing of what is handled reaches the broker: ``health()`` says so in time, whatever way the broker has of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import pytest

from rustmq_sdk import Consumer, TopicPartition
from rustmq_sdk.drivers.memory.log_source import MemoryLogSubscription
from rustmq_sdk.drivers.memory.queue_source import MemoryQueueSubscription
from rustmq_sdk.slots import SettleOutcome
from rustmq_sdk.values import CommitOutcome
from tests.promises.stage import Stage, ack, passes, take, until

pytestmark = pytest.mark.virtual_time

PutOff: TypeAlias = "Callable[[bool], None]"


@pytest.fixture
def put_off(monkeypatch: pytest.MonkeyPatch) -> PutOff:
    """Has the broker answer "not now", as one does in the middle of a rebalance, or whose disk is full."""
    write, settle = MemoryLogSubscription._write, MemoryQueueSubscription._settle
    on = False

    def switch(to: bool) -> None:
        nonlocal on
        on = to

    def no_write(self: Any, *arguments: Any) -> CommitOutcome:
        return CommitOutcome.RETRY if on else write(self, *arguments)

    def no_settling(self: Any, *arguments: Any) -> SettleOutcome:
        return SettleOutcome.RETRY if on else settle(self, *arguments)

    monkeypatch.setattr(MemoryLogSubscription, "_write", no_write)
    monkeypatch.setattr(MemoryQueueSubscription, "_settle", no_settling)
    return switch


class Failures:
    """Those that observers were told of."""

    def __init__(self) -> None:
        self.seen: list[tuple[list[TopicPartition], str]] = []

    def on_commit_failed(self, partitions: Collection[TopicPartition], reason: str) -> None:
        self.seen.append((list(partitions), reason))


def reasons(consumer: Consumer) -> list[str]:
    return [reason.code for reason in consumer.health().reasons]


async def test_commits_that_are_put_off_for_a_few_intervals_are_said_once(
    either: Stage, put_off: PutOff, caplog: pytest.LogCaptureFixture
) -> None:
    either.send(3)
    put_off(True)
    failures = Failures()
    async with either.consumer(observers=[failures]) as consumer:
        await ack(*await take(consumer, 3))
        await passes(2.9)
        assert consumer.health().ok
        await passes(2.0)
        (reason,) = consumer.health().reasons
        assert not consumer.health().ok
        assert reason.code == "commit_failing"
        assert reason.since is not None
        assert 4.0 < reason.since < 5.0
        await passes(60.0)
        lines = [record.getMessage() for record in caplog.records if record.__dict__.get("event") == "commit_failed"]
        assert len(lines) == len(failures.seen) == 1
        assert "put it off for" in lines[0]
        assert failures.seen[0][0] == [TopicPartition("t", 0 if either.kind == "log" else None)]
        put_off(False)
        await passes(2.0)
        assert consumer.health().ok
        assert not reasons(consumer)

        # And the next time it is said again.
        put_off(True)
        either.send(1)
        await ack(*await take(consumer, 1))
        await passes(6.0)
        assert reasons(consumer) == ["commit_failing"]
        assert len(failures.seen) == 2
        put_off(False)


async def test_commits_that_hang_are_said_before_their_time_is_over(either: Stage) -> None:
    either.send(3)
    either.plan.breaks(either.settling, kind="hang")
    async with either.consumer(commit_timeout=10.0) as consumer:
        await ack(*await take(consumer, 3))
        await passes(2.0)
        assert consumer.health().ok
        await passes(3.0)
        assert reasons(consumer) == ["commit_failing"]
        assert "no commit was confirmed for" in consumer.health().reasons[0].text
        either.plan.heals()
        await passes(30.0)
        assert consumer.health().ok


async def test_commits_that_are_refused_are_said_at_once_and_before_the_circuit_opens(either: Stage) -> None:
    either.send(3)
    either.plan.breaks(either.settling)
    async with either.consumer(circuit_failures=1000) as consumer:
        await ack(*await take(consumer, 3))
        await until(lambda: either.plan.calls[either.settling] == 1)
        assert reasons(consumer) == ["commit_failing"]
        assert not consumer.health().ok
        either.plan.heals()
        await passes(5.0)
        assert consumer.health().ok


async def test_a_slow_commit_is_no_trouble_with_a_short_interval(either: Stage) -> None:
    either.send(3)
    either.plan.breaks(either.settling, kind="hang", seconds=0.9)
    async with either.consumer(commit_interval=0.01) as consumer:
        await ack(*await take(consumer, 3))
        for _ in range(20):
            await passes(0.1)
            assert consumer.health().ok


async def test_a_long_interval_does_not_hide_it_for_longer_than_commit_timeout(stage: Stage, put_off: PutOff) -> None:
    stage.send(3)
    put_off(True)
    async with stage.consumer(commit_interval=3600.0, commit_timeout=5.0) as consumer:
        await ack(*await take(consumer, 3))
        await passes(7.0)
        assert reasons(consumer) == ["commit_failing"]
        put_off(False)


async def test_what_was_put_off_of_a_partition_that_is_lost_is_no_trouble_any_more(
    stage: Stage, put_off: PutOff
) -> None:
    stage.send(3)
    put_off(True)
    async with stage.consumer() as consumer:
        await ack(*await take(consumer, 3))
        await passes(6.0)
        assert reasons(consumer) == ["commit_failing"]
        stage.broker.delete_topic("t")
        await passes(6.0)
        assert "commit_failing" not in reasons(consumer)


async def test_a_consumer_that_has_nothing_to_commit_is_well(either: Stage, put_off: PutOff) -> None:
    put_off(True)
    either.create()
    async with either.consumer() as consumer:
        await passes(60.0)
        assert consumer.health().ok


@pytest.fixture(autouse=True)
def warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "rustmq_sdk")
