"""A broker that speaks Kafka's protocol and does what a test says: it loses answers, refuses, moves partitions.

It counts batches as a real one does: a batch that it has among the last five of its producer is answered and not stored
again, one that leaves numbers out is refused.
"""

from __future__ import annotations

import asyncio
import io
import struct
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.protocol import admin, metadata, produce, transaction
from aiokafka.protocol.api import RequestHeader_v1
from aiokafka.record.memory_records import MemoryRecords

ALL_REPLICAS = -1
PRODUCE, METADATA, VERSIONS, INIT = 0, 3, 18, 22
_VERSIONS = {PRODUCE: 7, METADATA: 5, VERSIONS: 0, INIT: 0}
_REQUESTS: dict[int, Any] = {
    PRODUCE: produce.ProduceRequest_v7,
    METADATA: metadata.MetadataRequest_v5,
    VERSIONS: admin.ApiVersionRequest_v0,
    INIT: transaction.InitProducerIdRequest_v0,
}

Act = int | str
"""What happens to a batch: 0 is stored, another number is the error that it gets; ``lose`` stores it and hangs up,
``cut`` hangs up, ``hang`` stores it and says nothing, ``after 6`` stores it and answers that error, with its offset, as
a leader does that loses its office while the replicas copy."""


class Broker:
    """One broker with one topic.

    Attributes:
        acts: what happens to the batches to come; 0 when it is empty.
        log: the payloads of each partition.
        requests: how many batches each request had.
        names: identities given away.
        exists: whether there is a topic.
        largest: messages that a batch may have.
        refused: errors by the payloads that are never taken.
        leader: the node that leads all partitions.
        nodes: the ports of the cluster's brokers, where this is not the only one.
        gate: batches wait before it.
        came: one has come.
    """

    def __init__(self, partitions: int = 2) -> None:
        self.acts: list[Act] = []
        self.log: defaultdict[int, list[bytes | None]] = defaultdict(list)
        self.requests: list[int] = []
        self.names = 0
        self.exists = True
        self.largest = 1 << 30
        self.refused: dict[bytes, int] = {}
        self.leader = 1
        self.nodes: dict[int, int] = {}
        self.partitions = partitions
        self.gate = asyncio.Event()
        self.gate.set()
        self.came = asyncio.Event()
        self._known: defaultdict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
        self.port = 0
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its address."""

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._tasks.append(asyncio.create_task(self._serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield f"127.0.0.1:{self.port}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

            await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many were made."""
        return len(self._tasks)

    def shut(self) -> None:
        """Lets batches wait."""
        self.gate.clear()
        self.came.clear()

    def forget_producers(self) -> None:
        """As after retention or a new leader that lacks the state, and strict about it."""
        self._known.clear()
        self.strict = True

    strict = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                data = io.BytesIO(await reader.readexactly(size))
                key, version, correlation, _ = RequestHeader_v1.SCHEMA.decode(data)
                assert _VERSIONS[key] == version
                answer = await self._answer(key, _REQUESTS[key].decode(data))
                if answer is None:
                    continue

                body = struct.pack(">i", correlation) + answer.encode()
                writer.write(struct.pack(">i", len(body)) + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, key: int, request: Any) -> Any:
        if key == VERSIONS:
            return admin.ApiVersionResponse_v0(0, [(key, version, version) for key, version in _VERSIONS.items()])

        if key == INIT:
            self.names += 1
            return transaction.InitProducerIdResponse_v0(0, 0, self.names, 0)

        if key == METADATA:
            return self._metadata(request)

        self.came.set()
        await self.gate.wait()
        if request.required_acks != ALL_REPLICAS:
            self.acts.insert(0, 21)  # INVALID_REQUIRED_ACKS

        self.requests.append(sum(len(partitions) for _, partitions in request.topics))
        answers = [
            (topic, [(number, *self._act(number, data), -1, 0) for number, data in partitions])
            for topic, partitions in request.topics
        ]
        if any(code == "hang" for _, partitions in answers for _, code, *_ in partitions):
            return None

        return produce.ProduceResponse_v7(answers, 0)

    def _metadata(self, request: Any) -> Any:
        brokers = [(node, "127.0.0.1", port, None) for node, port in (self.nodes or {1: self.port}).items()]
        topics = []
        for name in request.topics or []:
            self.exists = self.exists or request.allow_auto_topic_creation
            leaders: list[Any] = [(0, number, self.leader, [1], [1], []) for number in range(self.partitions)]
            topics.append((0, name, False, leaders) if self.exists else (3, name, False, []))

        return metadata.MetadataResponse_v5(0, brokers, "cluster", 1, topics)

    def _act(self, partition: int, data: bytes) -> tuple[Any, int]:
        act = self.acts.pop(0) if self.acts else 0
        if act == "cut":
            raise ConnectionResetError

        if isinstance(act, int) and act:
            return act, -1

        code, base = self._store(partition, data)
        if act == "lose":
            raise ConnectionResetError

        if isinstance(act, str) and act.startswith("after "):
            return int(act.removeprefix("after ")), base

        return ("hang", -1) if act == "hang" else (code, base)

    def _store(self, partition: int, data: bytes) -> tuple[int, int]:
        batch = MemoryRecords(data).next_batch()
        producer, first = batch.producer_id, batch.base_sequence
        payloads = [record.value for record in batch]
        if len(payloads) > self.largest:
            return 10, -1

        if errors := [self.refused[payload] for payload in payloads if payload in self.refused]:
            return errors[0], -1

        known = self._known[partition, producer]
        for number, count, base in known:
            if (number, count) == (first, len(payloads)):
                return 0, base

        expected = known[-1][0] + known[-1][1] if known else 0
        if producer >= 0 and first != expected and (known or self.strict):
            return 45, -1

        base = len(self.log[partition])
        self.log[partition] += payloads
        if producer >= 0:
            known.append((first, len(payloads), base))
            del known[:-5]

        return 0, base
