"""The process in which the ledger is measured."""

from __future__ import annotations

import gc
import random
from collections.abc import Collection, Iterator
from time import perf_counter

import anyio

from rustmq_sdk._core.buffer import Buffer
from rustmq_sdk._core.lane import Lane, Waiting
from rustmq_sdk._core.log_book import LogBook
from rustmq_sdk._core.piece import Piece
from rustmq_sdk.drivers.memory.log import build
from rustmq_sdk.message import DONE, AnyPiece, Message, Span
from rustmq_sdk.values import AckResult, Assignment, TopicPartition

PIECE = 500
RECORDED = AckResult.RECORDED
SNAPSHOTS = 5


class Settles:
    """Fills ``Settler`` as far as acks go: does to the ledger what the runtime does, and tells nobody."""

    async def ack(self, piece: AnyPiece, index: int, durable: bool) -> AckResult:
        assert isinstance(piece, Piece)
        piece[index] = DONE
        piece.ledger.note(piece, index)
        return RECORDED

    async def ack_spans(self, spans: Collection[Span], durable: bool) -> AckResult:
        raise NotImplementedError("this measurement acks one by one")

    async def nack(
        self, message: Message, delay: float | None, reason: str | None, error: Exception | None
    ) -> AckResult:
        raise NotImplementedError("this measurement nacks nothing")

    async def reject(self, message: Message, reason: str | None, error: Exception | None) -> AckResult:
        raise NotImplementedError("this measurement rejects nothing")

    def release(self, message: Message) -> None:
        raise NotImplementedError("this measurement releases nothing")


class Deliveries:
    """The way from a fetched piece to the hand that gets its messages."""

    def __init__(self, window: int, messages: int) -> None:
        self.ledger = LogBook(Assignment(TopicPartition("bench", 0), 1), 0)
        self._lane = Lane(self.ledger)
        self._buffer = Buffer()
        self._buffer.add(self._lane)
        self._settler = Settles()
        size = min(PIECE, window)
        # The payloads are there already: fetching is not what is measured.
        self._pieces = [
            [(b"x" * 100, None, (), offset, 0) for offset in range(start, min(start + size, messages))]
            for start in range(0, messages, size)
        ]

    def __iter__(self) -> Iterator[list[Message]]:
        buffer, ledger, pop = self._buffer, self.ledger, self._buffer.ready.pop
        for records in self._pieces:
            offsets = range(records[0][3], records[-1][3] + 1)
            piece, _ = ledger.admit(offsets, offsets.stop, size=100 * len(records), largest=100, owner=self._settler)
            assert piece is not None
            buffer.push(Waiting(piece, records, build))
            buffer.load(0.0)
            yield [pop() for _ in offsets]


def measure(window: int, order: str, messages: int) -> dict[str, float]:
    return anyio.run(_measure, window, order, messages)


async def _measure(window: int, order: str, messages: int) -> dict[str, float]:
    """Fills the window, then acks as many as come in; what is left is acked at the end."""
    rng = random.Random(1)
    deliveries = Deliveries(window, messages)
    gc.collect()
    gc.freeze()
    held: list[Message] = []
    delivering = acking = 0.0
    pieces = iter(deliveries)
    while True:
        began = perf_counter()
        fresh = next(pieces, None)
        delivering += perf_counter() - began
        # With a window of one piece nothing may stay open when the next one comes.
        held += fresh or ()
        keep = window - min(PIECE, window) if fresh else 0
        if order == "at random":
            _bring_random_ones_to_the_front(held, len(held) - keep, rng)

        settled, held = held[: len(held) - keep], held[len(held) - keep :]
        began = perf_counter()
        for message in settled:
            await message.ack()

        acking += perf_counter() - began
        if fresh is None:
            break

    assert deliveries.ledger.watermark == messages
    return {
        "delivery": delivering / messages * 1e9,
        "ack": acking / messages * 1e9,
        "snapshot": await _snapshot(window, order),
    }


def _bring_random_ones_to_the_front(held: list[Message], count: int, rng: random.Random) -> None:
    """At the cost of a swap each, so that the choice disturbs the caches as little as may be."""
    for index in range(count):
        other = rng.randrange(index, len(held))
        held[index], held[other] = held[other], held[index]


async def _snapshot(window: int, order: str) -> float:
    """Microseconds to write down a full window of which half is settled: a run after the first one, or any half."""
    deliveries = Deliveries(window, window)
    held = [message for piece in deliveries for message in piece]
    half = held[1 : window // 2 + 1] if order == "in order" else random.Random(1).sample(held, window // 2)
    for message in half:
        await message.ack()

    times = []
    for _ in range(SNAPSHOTS):
        began = perf_counter()
        deliveries.ledger.snapshot(None)
        times.append(perf_counter() - began)

    return sorted(times)[SNAPSHOTS // 2] * 1e6
