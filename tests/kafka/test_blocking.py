"""A handler that blocks the event loop for longer than a session: with thread=true it keeps its partitions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

import anyio
import pytest

import rustmq_sdk
from tests.kafka.reading import SOON, consuming, send_numbers, until
from tests.services.kafka_server import KafkaServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    # Under trio the client is on a thread of its own in any case.
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
]

SESSION = 4.0
"""Seconds: more than a machine stands still by itself."""


def hasty(group: str) -> rustmq_sdk.ConsumerOptions:
    return rustmq_sdk.ConsumerOptions(group=group, lease=SESSION, commit_timeout=3.0, close_timeout=3.0)


class Neighbour:
    """Another member of the group, in a thread that nobody blocks; while it is entered.

    Attributes:
        seen: what it was given.
    """

    def __init__(self, url: str, topic: str) -> None:
        self.seen: set[int] = set()
        self._url = url
        self._topic = topic
        self._consumer: rustmq_sdk.Consumer | None = None
        self._thread = threading.Thread(target=anyio.run, args=[self._read])

    async def _read(self) -> None:
        async with consuming(self._url, self._topic, **hasty(self._topic)) as self._consumer:
            async for message in self._consumer:
                self.seen.add(int(message.text()))
                await message.ack()

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._consumer is not None
        self._consumer.stop()
        self._thread.join()


def block_until(holds: Callable[[], bool]) -> None:
    """However late the group expires who gives no sign of life, and however long others take to read."""
    deadline = time.monotonic() + SOON
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize("thread", [True, False])
async def test_a_blocked_loop_keeps_its_partitions_if_the_client_has_a_thread(
    kafka: KafkaServer, thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await kafka.new_topic("blocked", partitions=2)
    url = f"kafka://{kafka.bootstrap}"
    with Neighbour(url, topic) as neighbour:
        async with consuming(f"{url}?thread={str(thread).lower()}", topic, **hasty(topic)) as consumer:
            await until(lambda: len(consumer.assigned_partitions) == 1)
            (ours,) = consumer.assigned_partitions
            await send_numbers(url, topic, [7], partition=ours.partition)
            message = await consumer.receive(timeout=SOON)
            if thread:
                time.sleep(1.5 * SESSION)  # noqa: ASYNC251  # that is the crime
            else:
                block_until(lambda: neighbour.seen == {7})

            taken_over = neighbour.seen == {7}
            try:
                result = await message.ack(durable=True)
            except rustmq_sdk.StalePartition:
                result = rustmq_sdk.AckResult.STALE

            if not thread:
                await until(lambda: "the event loop was blocked for" in caplog.text)

    assert "has not answered a heartbeat" not in caplog.text, "the broker is up and reachable"
    if thread:
        assert not taken_over
        assert result is rustmq_sdk.AckResult.DURABLE
        assert neighbour.seen == set()
    else:
        assert taken_over, "the group has expired who gave no sign of life"
        assert result is rustmq_sdk.AckResult.STALE
