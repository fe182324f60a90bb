"""A consumer of Kafka topics. Everything here lives on an asyncio loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError

from rustmq_sdk.drivers.kafka.aside import ask_for_offsets_aside
from rustmq_sdk.drivers.kafka.bootstrapping import close_first_connection
from rustmq_sdk.drivers.kafka.failures import no_topic, translate
from rustmq_sdk.drivers.kafka.leaving import leave
from rustmq_sdk.drivers.kafka.metadata import ROOM
from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.kafka.quieting import said_by_us
from rustmq_sdk.drivers.kafka.settings import client_settings
from rustmq_sdk.drivers.kafka.subscription import KafkaSubscription
from rustmq_sdk.drivers.kafka.timing import Timing
from rustmq_sdk.drivers.kafka.topics import read_topics
from rustmq_sdk.slots import AssignmentListener, Capabilities, Source, SourceRequest

SETTLING = (0.05, 0.15, 0.3)
"""Seconds between looks for a topic that does not seem to exist."""

CreateTopics = Callable[[list[str]], Any]


class KafkaSource:
    """Fills :class:`rustmq_sdk.slots.Source`.

    Args:
        options: of the URL.
        request: topics, group, lease and revoke budget. Topics may be names, one pattern (``^orders-.*``), or
            partitions (``orders[0]``): the last are read without a rebalance.
        create: makes missing topics, where the options say so.
    """

    def __init__(self, options: KafkaOptions, request: SourceRequest, create: CreateTopics) -> None:
        self._options = options
        self._request = request
        self._create = create
        self._wanted = read_topics(request.topics)
        self._timing = Timing.of(options, request)

    @property
    def capabilities(self) -> Capabilities:
        return capabilities(self._options)

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[KafkaSubscription]:
        consumer = self._consumer(self._request.group)
        try:
            await self._start(consumer)
        except BaseException:
            await leave(consumer, static=True)
            raise

        subscription = KafkaSubscription(
            consumer,
            listener,
            self._wanted,
            self._timing,
            group=self._request.group,
            reader=lambda: self._consumer(None),
        )
        tasks = subscription.begin()
        try:
            yield subscription
        finally:
            for task in tasks:
                task.cancel()

            try:
                await asyncio.wait(tasks)
            finally:
                await subscription.close(static=self._options.group_instance_id is not None)

    async def _start(self, consumer: AIOKafkaConsumer) -> None:
        try:
            async with asyncio.timeout(self._timing.request):
                with said_by_us():
                    await consumer.start()

                await self._find_topics(consumer)
        except TimeoutError as error:
            raise translate(error, slot="source", operation="subscribe") from error
        except KafkaError as error:
            raise translate(error, slot="source", operation="subscribe") from error

    async def _find_topics(self, consumer: AIOKafkaConsumer) -> None:
        if self._wanted.pattern is not None:
            # Of all topics: aiokafka has asked for none so far.
            await consumer._client.force_metadata_update()

        missing = [name for name in self._wanted.topics if not await _exists(consumer, name)]
        if missing and self._options.create:
            await self._create(missing)
            missing = [name for name in missing if not await _exists(consumer, name)]

        if missing:
            raise no_topic(*missing, slot="source", operation="subscribe")

    def _consumer(self, group: str | None) -> AIOKafkaConsumer:
        options, timing = self._options, self._timing
        settings = client_settings(options)
        consumer = AIOKafkaConsumer(
            **settings,
            group_id=group,
            group_instance_id=options.group_instance_id if group is not None else None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=options.isolation,
            client_rack=options.client_rack,
            # One: aiokafka sends a JoinGroup for each.
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            request_timeout_ms=int(timing.request * 1000),
            session_timeout_ms=int(timing.session * 1000),
            heartbeat_interval_ms=int(timing.heartbeat * 1000),
            rebalance_timeout_ms=int(timing.rebalance * 1000),
            max_poll_interval_ms=int(timing.max_poll_interval * 1000),
            max_partition_fetch_bytes=options.max_partition_fetch_bytes,
            metadata_max_age_ms=int(options.metadata_max_age * 1000),
            fetch_max_wait_ms=int(options.fetch_max_wait * 1000),
        )
        close_first_connection(consumer._client, settings)
        ask_for_offsets_aside(consumer._client)
        return consumer


def capabilities(options: KafkaOptions) -> Capabilities:
    """What Kafka can do."""
    return Capabilities(
        kind="log",
        checkpoint_room=ROOM,
        # aiokafka holds up to so much of each partition.
        overshoot_bytes=options.max_partition_fetch_bytes,
        seek=True,
        offsets_at=True,
        read=True,
        fences=True,
        idempotent_append=True,
        # Small messages go twice as fast in 2,000 as in 500; more gain little, and all wait for the same answer.
        append_messages=2_000,
    )


async def _exists(consumer: AIOKafkaConsumer, topic: str) -> bool:
    """Whether the brokers know the topic; one that was just created may take them a moment."""
    for pause in (*SETTLING, None):
        # Not aiokafka's own wait for a topic, which gives up only when a request would.
        await consumer._client.add_topic(topic)
        await consumer._client.force_metadata_update()
        if consumer.partitions_for_topic(topic):
            return True

        if pause is not None:
            await asyncio.sleep(pause)

    return False


def _conforms(source: KafkaSource) -> Source:
    return source
