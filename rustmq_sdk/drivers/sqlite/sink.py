"""Appending."""

from __future__ import annotations

from collections.abc import Sequence

from rustmq_sdk.drivers.sqlite.appending import Append
from rustmq_sdk.drivers.sqlite.file import LogFile
from rustmq_sdk.drivers.sqlite.packing import pack
from rustmq_sdk.drivers.sqlite.topics import partition_count, partitions_for_send
from rustmq_sdk.errors import OutcomeUnknown, TransientDriverError
from rustmq_sdk.values import OutgoingMessage, ProducerSequence, SentMessage, SentMessages


class SqliteSink:
    """Fills :class:`rustmq_sdk.slots.Sink`; appends that come together share a transaction and its fsync."""

    def __init__(self, file: LogFile) -> None:
        self._file = file

    async def partitions(self, topic: str) -> int:
        known = await self._file.read("sink", "partitions", partition_count, topic)
        if known is not None:
            return known

        try:
            return await self._file.write("sink", "partitions", partitions_for_send, topic)
        except OutcomeUnknown as error:
            # Whether there is such a topic now the next call finds out; of no message there is any doubt.
            raise TransientDriverError(str(error), slot="sink", operation="partitions", retry_after=1.0) from error

    async def append(
        self,
        topic: str,
        partition: int,
        messages: Sequence[OutgoingMessage],
        *,
        sequence: ProducerSequence | None,
    ) -> Sequence[SentMessage]:
        if not messages:
            return []

        packed = pack(messages)
        base, now_ms = await self._file.append(Append(topic, partition, packed, sequence))
        stamps: Sequence[int] | int = now_ms
        if packed.timestamps is not None:
            stamps = [now_ms if stamp is None else stamp for stamp in packed.timestamps]

        return SentMessages(topic, partition, range(base, base + packed.length), stamps)
