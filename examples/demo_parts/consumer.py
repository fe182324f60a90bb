"""The process that consumes: all that a program has to write to be a member of a group."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

import rustmq_sdk
from demo_parts.alarm import Alarm
from demo_parts.feed import Event
from demo_parts.journal import Journal
from demo_parts.lifeline import when_the_tour_ends

LEASE = 6.0
"""Seconds of silence after which others take over: the shortest that a Kafka broker allows as it is delivered."""


async def consume(url: str, topic: str, journal: Journal) -> None:
    """Works until it is told to stop, by a signal or by the end of the tour."""
    async with rustmq_sdk.Client(url) as client:
        consumer = client.consumer(
            topic,
            group=f"{topic}.alarm",
            dead_letter_topic=f"{topic}.dead",
            retry=rustmq_sdk.RetryPolicy(initial=0.1),
            lease=LEASE,
            close_timeout=LEASE - 1,
            commit_timeout=LEASE - 1,
            observers=[Notes(journal)],
        )
        with rustmq_sdk.stop_on_signals(consumer):
            when_the_tour_ends(consumer.stop)
            async with consumer:
                await consumer.run(Alarm(journal), concurrency=8, ordering="key")


class Notes:
    """An observer (:class:`rustmq_sdk.Observer`): notes what no handler sees."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def on_retried(self, partition: rustmq_sdk.TopicPartition, offset: int | None, attempt: int, delay: float) -> None:
        self._journal.note("retried")

    def on_dead_lettered(self, letters: Sequence[rustmq_sdk.DeadLetter]) -> None:
        for letter in letters:
            self._journal.note("dead", msgspec.json.decode(letter.payload or b"", type=Event).id)

    def on_rebalanced(
        self,
        assigned: Collection[rustmq_sdk.TopicPartition],
        lost: Collection[rustmq_sdk.TopicPartition],
        reason: str,
    ) -> None:
        # What is lost needs no line: whoever has it next says so.
        if assigned:
            self._journal.note("assigned", partitions=tuple(tp.partition or 0 for tp in assigned))
