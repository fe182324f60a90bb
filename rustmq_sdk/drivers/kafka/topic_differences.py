"""What a topic that exists is like, beside what was asked for. On an asyncio loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from aiokafka import errors as kafka
from aiokafka.protocol.admin import DescribeConfigsRequest

from rustmq_sdk._log import log
from rustmq_sdk.drivers.kafka.cluster import Cluster, Topic
from rustmq_sdk.drivers.kafka.failures import NotSent, Unanswered, broker_error
from rustmq_sdk.drivers.kafka.patience import Patience
from rustmq_sdk.drivers.kafka.topic_settings import TopicSettings, refused
from rustmq_sdk.errors import ConfigurationError

_TOPIC = 2  # ConfigResource.Type of Apache Kafka


async def warn_of_differences(
    cluster: Cluster, name: str, partitions: int, settings: TopicSettings, patience: Patience
) -> None:
    """Warns of settings that are others than those asked for. Changes none: it may be somebody else's topic.

    Whoever may not see the settings (an ACL, ``DescribeConfigs``) is told of replicas and partitions only.

    Raises:
        ConfigurationError: it has another number of partitions, or there is no such setting.
    """
    topic = await cluster.known(name)
    if partitions != len(topic.leaders):
        raise ConfigurationError(
            f"the topic {name!r} exists, with {len(topic.leaders)}",
            field="partitions",
            value=partitions,
            fix=f"Give {len(topic.leaders)}, or choose another name",
        )

    there = await _configs(cluster, name, settings, patience) if settings.configs else None
    others = list(_others(topic, there, settings))
    if others:
        log(
            logging.WARNING,
            "topic_settings_differ",
            "topic %s exists, and keeps its settings: %s. Change them with Kafka's own tools, or ask for what there is",
            name,
            ", ".join(f"{setting}={is_!r} (asked for: {asked!r})" for setting, is_, asked in others),
        )


async def _configs(
    cluster: Cluster, name: str, settings: TopicSettings, patience: Patience
) -> Mapping[str, str | None] | None:
    """Those that were asked for, as they are there; None if we may not know."""
    request: Any = DescribeConfigsRequest([(_TOPIC, name, list(settings.configs))])
    while True:
        try:
            answer = await cluster.ask_any(request)
        except (NotSent, Unanswered) as error:
            await patience.pause(error)
            continue

        ((code, said, _, _, entries),) = answer.resources
        if not code:
            return {config: value for config, value, *_ in entries}

        refusal = broker_error(code, said)
        if isinstance(refusal, kafka.TopicAuthorizationFailedError):
            return None

        if not getattr(refusal, "retriable", False):
            raise patience.translated(refusal, name) from refusal

        await patience.pause(refusal)


def _others(
    topic: Topic, there: Mapping[str, str | None] | None, settings: TopicSettings
) -> Iterator[tuple[str, object, object]]:
    """Each setting that is another one: its name, what it is, and what it should be."""
    if settings.replication_factor > 0 and topic.replicas != settings.replication_factor:
        yield "replication_factor", topic.replicas, settings.replication_factor

    if there is None:
        return

    for config, asked in settings.configs.items():
        if config not in there:
            raise refused(settings, f"Unknown topic config name: {config}")

        found = there[config]
        if _parts(found) != _parts(asked):
            yield settings.given[config], found, asked


def _parts(value: str | None) -> object:
    """Of a list, in any order."""
    return None if value is None else {part.strip() for part in value.split(",")}
