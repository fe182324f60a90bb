"""The settings of a topic that is made."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from rustmq_sdk.errors import ConfigurationError

# Those of Apache Kafka 4.3, to name the nearest one. What there is, the broker decides: others have others.
_KNOWN = re.findall(
    r"\S+",
    """
    cleanup.policy compression.gzip.level compression.lz4.level compression.type compression.zstd.level
    delete.retention.ms file.delete.delay.ms flush.messages flush.ms follower.replication.throttled.replicas
    index.interval.bytes leader.replication.throttled.replicas local.retention.bytes local.retention.ms
    max.compaction.lag.ms max.message.bytes message.timestamp.after.max.ms message.timestamp.before.max.ms
    message.timestamp.type min.cleanable.dirty.ratio min.compaction.lag.ms min.insync.replicas preallocate
    remote.log.copy.disable remote.log.delete.on.disable remote.storage.enable retention.bytes retention.ms
    segment.bytes segment.index.bytes segment.jitter.ms segment.ms unclean.leader.election.enable
    """,
)
_BROKERS_DEFAULT = -1


class TopicSettings(NamedTuple):
    """How a topic is made.

    Attributes:
        replication_factor: copies of each partition; -1 is the brokers' ``default.replication.factor``.
        configs: Kafka's own settings, as text.
        given: the names as they were given, by Kafka's.
    """

    replication_factor: int
    configs: Mapping[str, str]
    given: Mapping[str, str]


def read_topic_settings(given: Mapping[str, Any], replication_factor: int | None = None) -> TopicSettings:
    """``replication_factor``, and Kafka's names with underscores for dots: ``retention_ms`` is ``retention.ms``.

    Args:
        given: the settings.
        replication_factor: where they do not say.

    Raises:
        ConfigurationError: a value is nothing that can be written as text, or the replication factor no number.
    """
    copies = given.get("replication_factor", replication_factor)
    if copies is None:
        copies = _BROKERS_DEFAULT
    elif isinstance(copies, bool) or not isinstance(copies, int) or copies < 1:
        raise ConfigurationError(
            "expected a whole number of at least 1",
            field="replication_factor",
            value=copies,
            fix="Give as many copies as there are brokers at most, or leave it to the brokers",
        )

    names = {name.replace("_", "."): name for name in given if name != "replication_factor"}
    configs = {kafkas: _as_text(name, given[name]) for kafkas, name in names.items()}
    return TopicSettings(copies, configs, names)


def refused(settings: TopicSettings, said: str) -> ConfigurationError:
    """The error for a setting that a broker does not take; ``said`` is what it says."""
    named = [name for name in settings.configs if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", said)]
    name = named[0] if named else next(iter(settings.configs), "settings")
    value = settings.configs.get(name)
    nearest = [] if name in _KNOWN else difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.5)
    fix = f"Did you mean {nearest[0].replace('.', '_')!r}?" if nearest else "Apache Kafka documents its topic configs"
    return ConfigurationError(said, field=settings.given.get(name, name), value=value, fix=fix)


def _as_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()

    if isinstance(value, int | float | str):
        return str(value)

    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return ",".join(value)

    raise ConfigurationError(
        f"expected text, a number, true or false, got {type(value).__name__}",
        field=name,
        value=value,
        fix="Write it as Kafka's documentation of topic configs does",
    )
