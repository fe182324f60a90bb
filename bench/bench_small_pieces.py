"""Many small batches: what a piece costs, whatever is in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import anyio
import pytest

import rustmq_sdk
from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.slots import Fetched, SourceRequest
from rustmq_sdk.values import OutgoingMessage

MESSAGES = 100_000
SIZES = (20, 100, 500)
groups = count()


class Pieces:
    """A memory subscription whose fetches bring pieces of a given size, as producers that send little at a time do."""

    def __init__(self, subscription: Any, size: int) -> None:
        self._subscription = subscription
        self._size = size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subscription, name)

    async def fetch(self, wanted: Any, **limits: Any) -> list[Fetched]:
        return [part for piece in await self._subscription.fetch(wanted, **limits) for part in self._cut(piece)]

    def _cut(self, piece: Fetched) -> Iterator[Fetched]:
        size, whole = self._size, len(piece.offsets)
        for start in range(0, whole, size):
            offsets = piece.offsets[start : start + size]
            yield Fetched(
                piece.assignment,
                offsets,
                piece.records[start : start + size],
                piece.build,
                offsets[-1] + 1,
                piece.size * len(offsets) // whole,
                piece.largest,
            )


class PiecesSource:
    """Hands out :class:`Pieces`."""

    def __init__(self, source: Any, size: int) -> None:
        self._source = source
        self._size = size
        self.capabilities = source.capabilities

    def subscribe(self, listener: Any) -> Any:
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def entered() -> Any:
            async with self._source.subscribe(listener) as subscription:
                yield Pieces(subscription, self._size)

        return entered()


@pytest.fixture(scope="module")
def filled() -> str:
    url = "memory://small-pieces"

    async def fill() -> None:
        async with rustmq_sdk.Client(url) as client, client.producer() as producer:
            await client.create_topic("bench", 4)
            for start in range(0, MESSAGES, 500):
                batch = [OutgoingMessage(b"x" * 100, partition=start // 500 % 4)] * 500
                await producer.send_batch("bench", batch)

    anyio.run(fill)
    return url


@pytest.mark.parametrize("size", SIZES)
def test_receive_and_ack_in_pieces(measure: Any, filled: str, size: int) -> None:
    async def program() -> None:
        group = f"g{next(groups)}"
        async with open_memory(filled) as driver:
            request = SourceRequest(topics=["bench"], group=group, lease=30, revoke_budget=20)
            source = PiecesSource(driver.source(request), size)
            async with rustmq_sdk.Consumer(source, group=group) as consumer:
                for _ in range(MESSAGES):
                    message = await consumer.receive()
                    await message.ack()

    goal = "<= 1000 ns" if size == 20 else ""
    measure(program, MESSAGES, table=f"pieces of {size}", goal=goal)
