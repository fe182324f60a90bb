"""What fills which slot. Nobody runs this file: mypy reads it, and says here what does not fit."""

from __future__ import annotations

from collections.abc import Iterable

from rustmq_sdk._asyncio_island.source import SourceAcross, _ListenerThere
from rustmq_sdk._asyncio_island.subscription import LogAcross, QueueAcross
from rustmq_sdk._runtime.partitions import Partitions
from rustmq_sdk.drivers.kafka.admin import KafkaAdmin
from rustmq_sdk.drivers.kafka.dead_letters import KafkaDeadLetters
from rustmq_sdk.drivers.kafka.driver import KafkaDriver
from rustmq_sdk.drivers.kafka.sink import KafkaSink
from rustmq_sdk.drivers.kafka.source import KafkaSource
from rustmq_sdk.drivers.kafka.subscription import KafkaSubscription
from rustmq_sdk.drivers.memory.driver import MemoryDriver
from rustmq_sdk.drivers.memory.log_source import MemoryLogSource, MemoryLogSubscription
from rustmq_sdk.drivers.memory.queue_source import MemoryQueueSource, MemoryQueueSubscription
from rustmq_sdk.drivers.memory.stores import MemoryAdmin, MemoryDeadLetters, MemorySink, MemoryStateStore
from rustmq_sdk.drivers.sqlite.admin import SqliteAdmin
from rustmq_sdk.drivers.sqlite.driver import SqliteDriver
from rustmq_sdk.drivers.sqlite.sink import SqliteSink
from rustmq_sdk.drivers.sqlite.source import SqliteSource
from rustmq_sdk.drivers.sqlite.state import SqliteStateStore
from rustmq_sdk.drivers.sqlite.subscription import SqliteSubscription
from rustmq_sdk.slots import (
    Admin,
    AssignmentListener,
    DeadLetterQueue,
    Driver,
    LogSubscription,
    QueueSubscription,
    Sink,
    Source,
    StateStore,
)
from rustmq_sdk.testing.faulty import FaultyDriver
from rustmq_sdk.testing.listener import RecordingListener


def drivers(memory: MemoryDriver, sqlite: SqliteDriver, kafka: KafkaDriver, faulty: FaultyDriver) -> Iterable[Driver]:
    return memory, sqlite, kafka, faulty


def sources(
    memory_log: MemoryLogSource,
    memory_queue: MemoryQueueSource,
    sqlite: SqliteSource,
    kafka: KafkaSource,
    across: SourceAcross,
) -> Iterable[Source]:
    return memory_log, memory_queue, sqlite, kafka, across


def logs(
    memory: MemoryLogSubscription, sqlite: SqliteSubscription, kafka: KafkaSubscription, across: LogAcross
) -> Iterable[LogSubscription]:
    return memory, sqlite, kafka, across


def queues(memory: MemoryQueueSubscription, across: QueueAcross) -> Iterable[QueueSubscription]:
    return memory, across


def listeners(runtime: Partitions, there: _ListenerThere, recording: RecordingListener) -> Iterable[AssignmentListener]:
    return runtime, there, recording


def sinks(memory: MemorySink, sqlite: SqliteSink, kafka: KafkaSink) -> Iterable[Sink]:
    return memory, sqlite, kafka


def state_stores(memory: MemoryStateStore, sqlite: SqliteStateStore) -> Iterable[StateStore]:
    return memory, sqlite


def dead_letters(memory: MemoryDeadLetters, kafka: KafkaDeadLetters) -> Iterable[DeadLetterQueue]:
    return memory, kafka


def admins(memory: MemoryAdmin, sqlite: SqliteAdmin, kafka: KafkaAdmin) -> Iterable[Admin]:
    return memory, sqlite, kafka
