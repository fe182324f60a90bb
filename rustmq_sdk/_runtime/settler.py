"""Settling: whom messages tell. Synchronous bookkeeping in the caller's task; only a durable ack waits.

A full inbox that made ``ack()`` wait would deadlock: 32 workers waiting to ack above a nacked offset leave nobody to
run the retry. So nothing here waits for anything, and back-pressure is on intake.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection

import anyio

from rustmq_sdk._core.leases import Leased, Return
from rustmq_sdk._core.ledger import Ledger, Settled
from rustmq_sdk._core.order import unpark
from rustmq_sdk._core.piece import Piece
from rustmq_sdk._runtime.acknowledger import Acknowledger
from rustmq_sdk._runtime.arguments import check_seconds
from rustmq_sdk._runtime.failures import Failures
from rustmq_sdk._runtime.session import Session
from rustmq_sdk.errors import StalePartition
from rustmq_sdk.message import DONE, OPEN, STALE, AnyPiece, Message, Span, least_certain
from rustmq_sdk.values import AckResult

RECORDED, DUPLICATE = AckResult.RECORDED, AckResult.DUPLICATE
"""Globals: see ``message.py``."""


class LedgerSettler:
    """The ``Settler`` of every message of one consumer.

    Args:
        acknowledger: is told what is settled, and asked for durability.
        failures: what becomes of messages that were not acked.
        on_room: something was settled: the fetcher may go on.
        on_key_freed: a message that was held back by its key can be delivered.
    """

    def __init__(
        self,
        session: Session,
        *,
        acknowledger: Acknowledger,
        failures: Failures,
        on_room: Callable[[], None],
        on_key_freed: Callable[[], None],
    ) -> None:
        self._session = session
        self._acknowledger = acknowledger
        self._failures = failures
        self._on_room = on_room
        self._on_key_freed = on_key_freed
        self._progress: anyio.Event | None = None

    # What messages call

    async def ack(self, piece: AnyPiece, index: int, durable: bool) -> AckResult:
        """The slow path of ``Message.ack``: everything but a FREE slot."""
        assert isinstance(piece, Piece)
        if durable:
            self._check_durable()

        self._session.require_thread("ack()")
        byte = piece[index]
        if byte == STALE:
            return self._stale(piece, durable)

        if byte in OPEN:
            piece[index] = DONE
            self._settled(piece, index)
        elif byte != DONE or not durable or _went_back(piece, index):
            return DUPLICATE

        if not durable:
            return RECORDED

        return await self._acknowledger.until_written(piece.ledger, [piece.offsets[index]])

    async def ack_spans(self, spans: Collection[Span], durable: bool) -> AckResult:
        """Settles whole runs of slots at once."""
        if durable:
            self._check_durable()

        self._session.require_thread("ack()")
        # A list: on Python 3.11 hashing a member of an enum costs more than comparing it with a few others.
        results: list[AckResult] = []
        for piece, first, end in spans:
            assert isinstance(piece, Piece)
            if self._settle_run(piece, first, end):
                results.append(RECORDED)

            if piece.find(STALE, first, end) >= 0:
                results.append(self._stale(piece, durable))

        if durable:
            results = [result for result in results if result is not RECORDED]
            results += await self._until_spans_written(spans)

        return least_certain(results)

    def _check_durable(self) -> None:
        self._acknowledger.require_group("ack(durable=True)")
        self._session.require_loop("ack(durable=True)")

    async def _until_spans_written(self, spans: Collection[Span]) -> set[AckResult]:
        settled: dict[Ledger, list[int]] = defaultdict(list)
        for piece, first, end in spans:
            assert isinstance(piece, Piece)
            # Each of them: the highest may have been written long before the others were settled.
            settled[piece.ledger] += [
                piece.offsets[index]
                for index in range(first, end)
                if piece[index] == DONE and not _went_back(piece, index)
            ]

        return {
            await self._acknowledger.until_written(ledger, offsets) for ledger, offsets in settled.items() if offsets
        }

    def _settle_run(self, piece: Piece, first: int, end: int) -> int:
        hooks = piece.hooks
        hooked = [index for index in hooks if first <= index < end and piece[index] in OPEN] if hooks else ()
        settled = piece.settle_range(first, end)
        if settled:
            self._settled(piece, end - 1)
            for index in hooked:
                self._free_key(piece, index)

        return settled

    async def nack(
        self, message: Message, delay: float | None, reason: str | None, error: Exception | None
    ) -> AckResult:
        """Gives the message back; what follows is the retry policy's business."""
        if delay is not None and not isinstance(delay, int | float):
            raise TypeError(f"expected the delay in seconds, got {delay!r}. Write nack(reason=…) for the reason alone")

        if delay is not None:
            check_seconds("delay", delay, fix="Write nack(delay=0) for at once")

        self._session.require_thread("nack()")
        refused = _refused(message)
        if refused is None:
            self._session.counts.nacked += 1
            self._failures.failed(message, delay, reason, error)
            self._taken()

        return refused or AckResult.RECORDED

    async def reject(self, message: Message, reason: str | None, error: Exception | None) -> AckResult:
        """Sends the message to the dead letters."""
        self._session.require_thread("reject()")
        refused = _refused(message)
        if refused is None:
            self._session.counts.rejected += 1
            self._failures.rejected(message, reason, error)
            self._taken()

        return refused or AckResult.RECORDED

    def release(self, message: Message) -> None:
        """The message comes again and no attempt is counted."""
        if _refused(message) is None:
            self._failures.released(message)
            self._taken()

    # What they cause

    def settle_slot(self, piece: Piece, index: int) -> None:
        """A slot that was taken (its dead letter is durable) is settled now."""
        if piece[index] != STALE:
            if isinstance(piece, Leased):
                piece.ledger.give_back(piece, index, Return(dead=True))

            piece[index] = DONE
            self._session.counts.settled_unacked += 1
            self._settled(piece, index)

    async def wait_for_progress(self) -> None:
        """Returns when something was settled or given back: for whoever waits for handlers to finish.

        Call ``Ledger.watch_everything`` before, or fast acks go by unnoticed.
        """
        if self._progress is None:
            self._progress = anyio.Event()

        await self._progress.wait()

    def _settled(self, piece: Piece, index: int) -> None:
        ledger = piece.ledger
        root, root_index = (piece, index) if piece.parent is None else (piece.parent, piece.parent_index)
        settled = ledger.note(piece, index)
        if root.hooks:
            self._free_key(root, root_index)

        self.account(ledger, settled)

    def account(self, ledger: Ledger, settled: Settled) -> None:
        """Carries out what counting has brought to light."""
        if settled.messages:
            self._session.announce(ledger)
            self._on_room()
            # Only then: the ack-handler counts as well, and would go on telling itself about nothing.
            self._acknowledger.tell(ledger, settled.messages)

        self.note_progress()

    def _taken(self) -> None:
        self.note_progress()
        # What was nacked travels in the checkpoint: there is something to commit even if nothing was acked.
        self._acknowledger.tell_later()

    def note_progress(self) -> None:
        """Has those look again who wait for handlers to finish."""
        if self._progress is not None:
            self._progress.set()
            self._progress = None

    def _free_key(self, piece: Piece, index: int) -> None:
        if piece[index] == DONE and unpark(self._session.buffer, piece, index):
            self._on_key_freed()

    def _stale(self, piece: Piece, durable: bool) -> AckResult:
        if durable:
            closed = piece.assignment in self._session.held_at_close
            why = "the consumer was closed" if closed else "the partition was lost, or moved by a seek,"
            raise StalePartition(
                f"{piece.assignment.tp}: {why} before the message was settled; it is, or will be, delivered again"
            )

        return AckResult.STALE


def _went_back(piece: Piece, index: int) -> bool:
    """Queues: the broker has confirmed the slot, but as one that comes again."""
    back = piece.returns.get(index) if isinstance(piece, Leased) else None
    return back is not None and not back.dead


def _refused(message: Message) -> AckResult | None:
    """Why this handle cannot settle its message; None if it can."""
    byte = message._piece[message._index]
    if byte in OPEN:
        return None

    return AckResult.STALE if byte == STALE else AckResult.DUPLICATE
