"""One consumer runtime for every log and queue: per-message acks, nothing lost, on asyncio and trio.

::

    async with rustmq_sdk.Client("sqlite:///events.db") as client:
        async with client.consumer("events", group="billing") as consumer:
            async for message in consumer:
                await handle(message)
                await message.ack()
"""

from __future__ import annotations

from rustmq_sdk._runtime.consumer import Consumer as Consumer
from rustmq_sdk._runtime.producer import Producer as Producer
from rustmq_sdk._runtime.signals import stop_on_signals as stop_on_signals
from rustmq_sdk.client import Client as Client
from rustmq_sdk.config import ConsumerConfig as ConsumerConfig
from rustmq_sdk.config import ConsumerOptions as ConsumerOptions
from rustmq_sdk.config import ProducerConfig as ProducerConfig
from rustmq_sdk.config import ProducerOptions as ProducerOptions
from rustmq_sdk.config import RetryPolicy as RetryPolicy
from rustmq_sdk.errors import AuthenticationFailed as AuthenticationFailed
from rustmq_sdk.errors import BufferFull as BufferFull
from rustmq_sdk.errors import CircuitOpen as CircuitOpen
from rustmq_sdk.errors import ConfigurationError as ConfigurationError
from rustmq_sdk.errors import ConsumerClosed as ConsumerClosed
from rustmq_sdk.errors import ConsumerStateError as ConsumerStateError
from rustmq_sdk.errors import DriverError as DriverError
from rustmq_sdk.errors import MissingDriver as MissingDriver
from rustmq_sdk.errors import OutcomeUnknown as OutcomeUnknown
from rustmq_sdk.errors import PartitionStopped as PartitionStopped
from rustmq_sdk.errors import PermanentDriverError as PermanentDriverError
from rustmq_sdk.errors import Reject as Reject
from rustmq_sdk.errors import Retry as Retry
from rustmq_sdk.errors import RustMQError as RustMQError
from rustmq_sdk.errors import StalePartition as StalePartition
from rustmq_sdk.errors import TransientDriverError as TransientDriverError
from rustmq_sdk.errors import UnknownTopic as UnknownTopic
from rustmq_sdk.errors import Unsupported as Unsupported
from rustmq_sdk.message import Message as Message
from rustmq_sdk.message import Messages as Messages
from rustmq_sdk.observe import Health as Health
from rustmq_sdk.observe import Observer as Observer
from rustmq_sdk.observe import Statistics as Statistics
from rustmq_sdk.values import AckResult as AckResult
from rustmq_sdk.values import DeadLetter as DeadLetter
from rustmq_sdk.values import OutgoingMessage as OutgoingMessage
from rustmq_sdk.values import SentMessage as SentMessage
from rustmq_sdk.values import TopicPartition as TopicPartition

__all__ = [
    "AckResult",
    "AuthenticationFailed",
    "BufferFull",
    "CircuitOpen",
    "Client",
    "ConfigurationError",
    "Consumer",
    "ConsumerClosed",
    "ConsumerConfig",
    "ConsumerOptions",
    "ConsumerStateError",
    "DeadLetter",
    "DriverError",
    "Health",
    "Message",
    "Messages",
    "MissingDriver",
    "Observer",
    "OutcomeUnknown",
    "OutgoingMessage",
    "PartitionStopped",
    "PermanentDriverError",
    "Producer",
    "ProducerConfig",
    "ProducerOptions",
    "Reject",
    "Retry",
    "RetryPolicy",
    "RustMQError",
    "SentMessage",
    "StalePartition",
    "Statistics",
    "TopicPartition",
    "TransientDriverError",
    "UnknownTopic",
    "Unsupported",
    "stop_on_signals",
]

# Tracebacks, logs and documentation show where users find a name, not where it is written. Classes whose annotations
# are read at run time keep their module: it is where those are looked up.
for _exported in map(globals().__getitem__, __all__):
    if isinstance(_exported, type) and not _exported.__annotations__:
        _exported.__module__ = __name__

del _exported


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("rustmq-sdk")

    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
