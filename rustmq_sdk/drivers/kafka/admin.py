"""Making and deleting topics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka import errors as kafka
from aiokafka.protocol.admin import CreateTopicsRequest, DeleteTopicsRequest

from rustmq_sdk._asyncio_island import Island
from rustmq_sdk.drivers.kafka.cluster import Cluster, Topic
from rustmq_sdk.drivers.kafka.failures import NotSent, Unanswered, broker_error
from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.kafka.patience import Patience
from rustmq_sdk.drivers.kafka.topic_differences import warn_of_differences
from rustmq_sdk.drivers.kafka.topic_settings import TopicSettings, read_topic_settings, refused
from rustmq_sdk.errors import ConfigurationError, UnknownTopic
from rustmq_sdk.slots import Admin

CHANGE = 30.0
"""Seconds for a change, until all brokers know of it."""
_ANSWER = 15.0
_UNKNOWN = 3  # UNKNOWN_TOPIC_OR_PARTITION


class TopicAdmin:
    """Changes topics, and waits until every broker that is alive knows. On an asyncio loop.

    Args:
        cluster: open.
        options: how topics are made that ``create=true`` makes.
    """

    def __init__(self, cluster: Cluster, options: KafkaOptions) -> None:
        self._cluster = cluster
        self._options = options
        self._closed = False

    def close(self) -> None:
        """What is under way gives up soon."""
        self._closed = True

    async def make(self, name: str) -> None:
        """Makes a topic that somebody needs, as the options say; somebody else may have made it, in any form."""
        settings = read_topic_settings({}, self._options.replication_factor)
        await self._create(name, self._options.partitions or 1, settings, as_it_is=True)

    async def create(self, name: str, partitions: int, settings: TopicSettings) -> None:
        """As :meth:`rustmq_sdk.slots.Admin.create_topic`."""
        if partitions < 1:
            raise ConfigurationError(
                "a topic has at least one partition", field="partitions", value=partitions, fix="Give 1 or more"
            )

        await self._create(name, partitions, settings, as_it_is=False)

    async def delete(self, name: str) -> None:
        """As :meth:`rustmq_sdk.slots.Admin.delete_topic`."""
        patience = self._patience("delete_topic")
        request = DeleteTopicsRequest([name], int(_ANSWER * 1000))
        async with patience.at_most(CHANGE):
            while True:
                try:
                    answer = await self._cluster.ask_controller(request, _ANSWER)
                except (NotSent, Unanswered) as error:
                    patience.unanswered |= isinstance(error, Unanswered)
                    await patience.pause(error)
                    continue

                ((_, code),) = answer.topic_error_codes
                if not code or (code == _UNKNOWN and patience.unanswered):
                    break

                await self._judge(name, code, None, patience)

            patience.unanswered = False
            await self._until(name, lambda topic: topic.error == _UNKNOWN, patience)

    async def topics(self) -> Mapping[str, int]:
        """As :meth:`rustmq_sdk.slots.Admin.topics`, without Kafka's own."""
        patience = self._patience("topics")
        async with patience.at_most(CHANGE):
            while True:
                try:
                    found = await self._cluster.all_topics()
                except (NotSent, Unanswered) as error:
                    await patience.pause(error)
                else:
                    seen = {name: topic for name, topic in found.items() if not (topic.internal or topic.error)}
                    return {name: len(topic.leaders) for name, topic in seen.items()}

    async def _create(self, name: str, partitions: int, settings: TopicSettings, *, as_it_is: bool) -> None:
        patience = self._patience("create_topic")
        wanted: tuple[Any, ...] = (name, partitions, settings.replication_factor, [], list(settings.configs.items()))
        request: Any = CreateTopicsRequest([wanted], int(_ANSWER * 1000), validate_only=False)
        async with patience.at_most(CHANGE):
            while True:
                try:
                    answer = await self._cluster.ask_controller(request, _ANSWER)
                except (NotSent, Unanswered) as error:
                    await patience.pause(error)  # repeated, it finds the topic there
                    continue

                ((_, code, said),) = answer.topic_errors
                existed = isinstance(broker_error(code), _EXISTS)
                if not code or existed:
                    break

                _refuse(name, partitions, settings, broker_error(code, said), said or "")
                await self._judge(name, code, said, patience)

            def is_there(topic: Topic) -> bool:
                return bool(topic.leaders) and not topic.error and min(topic.leaders.values()) >= 0

            await self._until(name, is_there, patience)
            if existed and not as_it_is:
                await warn_of_differences(self._cluster, name, partitions, settings, patience)

    async def _judge(self, name: str, code: int, said: str | None, patience: Patience) -> None:
        """Waits before another attempt, if one makes sense."""
        error = broker_error(code, said)
        if isinstance(error, _UNKNOWN_TOPIC):
            raise UnknownTopic(
                f"there is no topic {name!r}. topics() has the names", slot=patience.slot, operation=patience.operation
            ) from error

        if not getattr(error, "retriable", False):
            raise patience.translated(error, name) from error

        self._cluster.forget_controller()
        await patience.pause(error)

    async def _until(self, name: str, holds: Any, patience: Patience) -> None:
        """Returns when ``holds`` is true of what each broker says of the topic."""
        waiting = list(self._cluster.nodes)
        while waiting:
            node = waiting[-1]
            try:
                topic = await self._cluster.describe(name, node)
            except (NotSent, Unanswered):
                # Gone, so nobody asks it; when it comes back it has read what it missed before it answers.
                waiting.pop()
                continue

            if holds(topic):
                waiting.pop()
            else:
                await patience.pause(kafka.LeaderNotAvailableError(f"{name}: broker {node} does not know yet"))

    def _patience(self, operation: str) -> Patience:
        return Patience("admin", operation, lambda: self._closed)


_EXISTS: tuple[type[Exception], ...] = (kafka.TopicAlreadyExistsError,)
_UNKNOWN_TOPIC: tuple[type[Exception], ...] = (kafka.UnknownTopicOrPartitionError,)
_REFUSALS: dict[str, tuple[type[Exception], ...]] = {
    "topic": (kafka.InvalidTopicError,),
    "partitions": (kafka.InvalidPartitionsError,),
    "replication_factor": (kafka.InvalidReplicationFactorError,),
    "settings": (kafka.InvalidConfigurationError,),
}


def _refuse(name: str, partitions: int, settings: TopicSettings, error: Exception, said: str) -> None:
    """Raises ``ConfigurationError`` if the error says that what was asked for cannot be."""
    values = {"topic": name, "partitions": partitions, "replication_factor": settings.replication_factor}
    for field, kinds in _REFUSALS.items():
        if not isinstance(error, kinds):
            continue

        if field == "settings":
            raise refused(settings, said) from error

        raise ConfigurationError(said or str(error), field=field, value=values[field], fix=_FIXES[field]) from error


_FIXES = {
    "topic": "Use at most 249 letters, digits, dots, _ and -",
    "partitions": "Give a number that the cluster allows",
    "replication_factor": "Give as many copies as there are brokers at most, or leave it to the brokers",
}


class KafkaAdmin:
    """Fills :class:`rustmq_sdk.slots.Admin`.

    Settings of a topic: ``replication_factor``, and Kafka's topic configs with underscores for dots (``retention_ms``).
    """

    def __init__(self, island: Island, topics: TopicAdmin, replication_factor: int | None) -> None:
        self._island = island
        self._topics = topics
        self._replication_factor = replication_factor

    async def create_topic(self, name: str, partitions: int, settings: Mapping[str, Any]) -> None:
        read = read_topic_settings(settings, self._replication_factor)
        await self._island.run(self._topics.create, name, partitions, read)

    async def delete_topic(self, name: str) -> None:
        await self._island.run(self._topics.delete, name)

    async def topics(self) -> Mapping[str, int]:
        return await self._island.run(self._topics.topics)


def _conforms(admin: KafkaAdmin) -> Admin:
    return admin
