"""Calls to a sink, repeated as long as that makes sense."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, TypeVarTuple

import anyio

from rustmq_sdk._core.append_attempts import AppendAttempts
from rustmq_sdk._core.outbox import Batch
from rustmq_sdk.errors import NotAllStored, OutcomeUnknown, PermanentDriverError, TransientDriverError
from rustmq_sdk.slots import Sink
from rustmq_sdk.values import ProducerSequence, SentMessage

T = TypeVar("T")
Args = TypeVarTuple("Args")


async def persevere(attempts: AppendAttempts, operation: Callable[[float, *Args], Awaitable[T]], *args: *Args) -> T:
    """Calls ``operation(seconds, *args)`` until it succeeds or ``attempts`` says that it will not.

    Every attempt is made with the same arguments, the sequence number among them: that is how a sink recognises it.
    """
    while True:
        seconds = attempts.time_for_one(anyio.current_time())
        try:
            return await operation(seconds, *args)
        except Exception as error:
            pause = attempts.pause_after(error, anyio.current_time())

        await anyio.sleep(pause)


async def append(seconds: float, sink: Sink, batch: Batch, sequence: ProducerSequence | None) -> Sequence[SentMessage]:
    """One attempt to append a batch, given up after ``seconds``."""
    queue = batch.queue
    try:
        with anyio.fail_after(seconds):
            sent = await sink.append(queue.topic, queue.partition, batch.messages, sequence=sequence)
    except TimeoutError as error:
        raise OutcomeUnknown(f"no answer to an append within {seconds:g} s") from error
    except NotAllStored as partly:
        told = sum((one is None) == (place in partly.refused) for place, one in enumerate(partly.sent))
        if told == len(batch.messages):
            raise

        raise _not_believed(batch, told) from partly

    if len(sent) == len(batch.messages):
        return sent

    raise _not_believed(batch, len(sent))


def _not_believed(batch: Batch, told: int) -> PermanentDriverError:
    return PermanentDriverError(
        f"appended {len(batch.messages)} messages and was told where {told} of them are",
        slot="sink",
        operation="append",
    )


async def ask_partitions(seconds: float, sink: Sink, topic: str) -> int:
    """One attempt to find out how many partitions a topic has, given up after ``seconds``."""
    try:
        with anyio.fail_after(seconds):
            return await sink.partitions(topic)
    except TimeoutError as error:
        raise TransientDriverError(f"no answer within {seconds:g} s", slot="sink", operation="partitions") from error
