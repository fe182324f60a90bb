"""A consumer that finds its cluster, or is cancelled while it looks. asyncio only."""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import Any

import anyio
import pytest

pytest.importorskip("aiokafka")

from aiokafka.errors import KafkaConnectionError

from rustmq_sdk.drivers.kafka.leaving import leave
from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.kafka.source import KafkaSource
from rustmq_sdk.slots import SourceRequest
from tests.unit.kafka_broker import METADATA, VERSIONS, Broker

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class SlowBroker(Broker):
    """Lets requests of one kind wait before its gate."""

    def __init__(self, slow: int) -> None:
        super().__init__()
        self._slow = slow

    async def _answer(self, key: int, request: Any) -> Any:
        if key == self._slow:
            self.came.set()
            await self.gate.wait()

        return await super()._answer(key, request)


def consumer_of(*servers: str) -> Any:
    request = SourceRequest(topics=["t"], group=None, lease=30.0, revoke_budget=25.0)
    return KafkaSource(KafkaOptions(servers=servers), request, create=print)._consumer(None)


@pytest.mark.parametrize("slow", [VERSIONS, METADATA])
async def test_who_is_cancelled_while_the_cluster_is_looked_for_leaves_no_connection(slow: int) -> None:
    broker = SlowBroker(slow)
    broker.shut()
    async with broker.serving() as address:
        consumer = consumer_of(address)
        starting = asyncio.create_task(consumer.start())
        with anyio.fail_after(30):
            await broker.came.wait()

        starting.cancel()
        await asyncio.wait([starting])
        await leave(consumer, static=True)
        assert not [task for task in asyncio.all_tasks() if "AIOKafkaConnection" in repr(task)]
        broker.gate.set()
        with anyio.fail_after(30):
            await asyncio.wait(broker._tasks)

    del consumer, starting
    gc.collect()


async def test_the_connection_that_found_the_cluster_is_closed() -> None:
    broker = Broker()
    async with broker.serving() as address:
        consumer = consumer_of(address)
        await consumer.start()
        assert [node.port for node in consumer._client.cluster.brokers()] == [broker.port]
        with anyio.fail_after(30):
            await asyncio.wait(broker._tasks[:1])

        await leave(consumer, static=True)


async def test_a_server_that_is_down_is_passed_and_the_reason_is_kept_where_all_are() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
        broker = Broker()
        async with broker.serving() as address:
            for _ in range(4):  # in any order
                consumer = consumer_of(nobody, address)
                await consumer.start()
                await leave(consumer, static=True)

        consumer = consumer_of(nobody)
        with pytest.raises(KafkaConnectionError) as raised:
            await consumer.start()

        assert isinstance(raised.value.__cause__, OSError)
        await leave(consumer, static=True)
