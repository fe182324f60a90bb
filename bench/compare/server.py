"""The Kafka that all of them use, and topics in it that are filled before."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager

import anyio

import rustmq_sdk
from bench.children import run
from tests.services.catalogue import CATALOGUE
from tests.services.checkout import Checkout
from tests.services.holding import Holding
from tests.services.service import ServiceFailed

PARTITIONS = 4
BATCH = 500


def more(size: int) -> int:
    """Messages of so many bytes to have beyond those that are counted, so that nobody comes to the end of a partition.

    Who does waits half a second for more, and aiokafka asks that broker for nothing else meanwhile.
    """
    return 16 * 2**20 // size


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """Its addresses, host:port,host:port; one that was started for this is stopped afterwards."""
    if url:
        yield url.removeprefix("kafka://")
        return

    with closing(Holding("kafka")) as holding:
        try:
            holding.wait()
        except ServiceFailed as failure:
            raise SystemExit(f"This needs a Kafka: {failure}") from failure

        site = Checkout().site(CATALOGUE["kafka"])
        assert site is not None
        try:
            yield site.address("kafka", "plain")
        finally:
            holding.let_go()


@contextmanager
def topic(address: str, messages: int, size: int) -> Iterator[str]:
    """A topic with so many messages of so many bytes; deleted afterwards, or disks would fill."""
    name = f"bench-{size}-{secrets.token_hex(4)}"
    try:
        run("bench.compare.server:fill", address=address, name=name, messages=messages, size=size)
        yield name
    finally:
        anyio.run(_delete, address, name)


def fill(address: str, name: str, messages: int, size: int) -> None:
    anyio.run(_fill, address, name, messages, size)


async def _fill(address: str, name: str, messages: int, size: int) -> None:
    payload = bytes(size)
    async with rustmq_sdk.Client(f"kafka://{address}") as client, client.producer() as producer:
        await client.create_topic(name, PARTITIONS)
        for number, start in enumerate(range(0, messages, BATCH)):
            message = rustmq_sdk.OutgoingMessage(payload, partition=number % PARTITIONS)
            await producer.send_batch(name, [message] * min(BATCH, messages - start))


async def _delete(address: str, name: str) -> None:
    async with rustmq_sdk.Client(f"kafka://{address}") as client:
        await client.delete_topic(name)
