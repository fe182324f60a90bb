"""Holding messages back for order: after an unsettled message of the same key, or of the same partition.

A key is busy while the slot that was handed out last for it is unsettled. That is looked at when the next message of
the key comes up, so an ack needs no hook as long as nobody waits. A message that finds its key busy is parked; then the
slot becomes WATCH and gets a hook, and settling it lets the next parked message go.

In a batch, messages of one key may follow each other: they are handled by one call, in order. Their slots form a chain,
newest first, and the key is busy until all of them are settled. When several of them are nacked they come back one
after another, in order, whichever is due first: a retry waits for the unsettled slots before its own. It does not wait
for those after it, which may still be in the hands of the call that it was nacked from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rustmq_sdk._core.buffer import Buffer
from rustmq_sdk._core.lane import Lane
from rustmq_sdk._core.piece import Holder, Piece, newest_unsettled, piece_of
from rustmq_sdk.message import DONE, FREE, WATCH, Message, Span


class KeyOrder:
    """Takes messages out of the buffer in the order of their keys.

    Args:
        whole_partition: one key for each partition, whatever the messages' own.

    Attributes:
        pop: the next message whose key is free; those before it are parked. IndexError when none is at hand.
    """

    def __init__(self, buffer: Buffer, *, whole_partition: bool) -> None:
        self._buffer = buffer
        self._whole_partition = whole_partition
        self._batch: set[tuple[Piece, int]] | None = None
        self.pop = self._popper()

    def _popper(self) -> Callable[[], Message]:
        pop, whole_partition, is_free = self._buffer.ready.pop, self._whole_partition, self._is_free

        def pop_free() -> Message:
            while True:
                message = pop()
                key = None if whole_partition else message.key
                if key is None and not whole_partition:
                    return message

                # Inlined from _is_free for nearly all messages: a first delivery, and the one before it is settled.
                piece: Piece = message._piece  # type: ignore[assignment]
                busy = piece.busy
                if busy is not None:
                    holder = busy.get(key)
                    if holder is None or (holder[2] is None and holder[0][holder[1]] == DONE):
                        busy[key] = (piece, message._index, None)
                        return message

                if is_free(message, key):
                    return message

        # A closure: its names cost nothing, the attributes of a method 50 ns a message.
        return pop_free

    def take_batch(self, most: int, now: float) -> tuple[list[Message], list[Span]]:
        """Up to ``most`` messages whose keys are free, or busy only with messages of this batch."""
        messages: list[Message] = []
        self._batch = set()
        try:
            while len(messages) < most:
                try:
                    message = self.pop()
                except IndexError:
                    if not self._buffer.load(now):
                        break
                else:
                    messages.append(message)
                    self._batch.add(slot_of(message))
        finally:
            self._batch = None

        return messages, [(message._piece, message._index, message._index + 1) for message in messages]

    def _is_free(self, message: Message, key: bytes | None) -> bool:
        piece, index = slot_of(message)
        ledger = piece.ledger
        lane = self._buffer.lanes[ledger]
        ahead, known = _ahead(ledger.busy.get(key), message)
        if ahead is not None:
            # Parked ones of the key are older than a message that comes up for the first time.
            may_follow = known or key not in lane.parked
            if self._batch is None or (ahead[0], ahead[1]) not in self._batch or not may_follow:
                _park(lane, message, key)
                return False

        if not known:
            ledger.busy[key] = (piece, index, ahead)

        return True


def unpark(buffer: Buffer, piece: Piece, index: int) -> bool:
    """A slot with a hook was settled: the next message of its key may go. True if there was one."""
    hooks = piece.hooks
    ledger = piece.ledger
    lane = buffer.lanes.get(ledger)
    if hooks is None or index not in hooks or lane is None:
        return False

    key = hooks.pop(index)
    queue = lane.parked.get(key)
    if not queue:
        return False

    ahead, known = _ahead(ledger.busy.get(key), queue[0])
    if ahead is not None:
        _hook(ahead, key)
        return False

    message = queue.popleft()
    if not known:
        ledger.busy[key] = (*slot_of(message), None)

    if queue:
        _hook(ledger.busy[key], key)
    else:
        del lane.parked[key]

    buffer.deliver_next(lane, message)
    return True


def unpark_all(buffer: Buffer) -> None:
    """Order is not asked for any more: parked messages go back to the front of their lanes, in offset order.

    So do those that cancelled handlers have released, which wait in front: what was at hand came back before them.
    What holds a key goes on holding it, for whoever asks for order next: a message may still wait for its retry.
    """
    for lane in buffer.lanes.values():
        buffer.take_back(lane)
        parked = [message for queue in lane.parked.values() for message in queue]
        lane.parked.clear()
        if parked:
            buffer.push_front(lane, parked)

        if lane.front:
            lane.front = deque(sorted(lane.front, key=_offset))

        buffer.resume(lane)


def slot_of(message: Message) -> tuple[Piece, int]:
    """Where the first delivery of the message is; a retry holds its key by the slot that it retries."""
    piece = piece_of(message)
    if piece.parent is not None:
        return piece.parent, piece.parent_index

    return piece, message._index


def _offset(message: Message) -> int:
    return message.offset or 0


def _ahead(holder: Holder | None, message: Message) -> tuple[Holder | None, bool]:
    """The newest unsettled slot that was handed out before this message, and whether the chain has the message's own.

    The chain has it if the message is a retry, or was let go by the one before it.
    """
    piece, index = slot_of(message)
    own = holder
    if message._piece is piece:
        # A first delivery that was let go is the newest of its key: no need to look further.
        known = own is not None and own[0] is piece and own[1] == index
    else:
        while own is not None and not (own[0] is piece and own[1] == index):
            own = own[2]

        known = own is not None

    return newest_unsettled(own[2] if known and own is not None else holder), known


def _park(lane: Lane, message: Message, key: bytes | None) -> None:
    queue = lane.parked.get(key)
    if queue is None:
        queue = lane.parked[key] = deque()
        _hook(lane.ledger.busy[key], key)

    index = len(queue)
    # Retries are older than whatever came up for the first time, and there are few of them.
    while index and _offset(queue[index - 1]) > _offset(message):
        index -= 1

    queue.insert(index, message)


def _hook(holder: Holder, key: bytes | None) -> None:
    """Watches the oldest unsettled slot of the chain: the one whose message nothing of its key holds back."""
    last: Holder | None = holder
    while last is not None:
        holder = last
        last = newest_unsettled(last[2])

    piece, index, _ = holder
    if piece[index] == FREE:
        piece[index] = WATCH

    if piece.hooks is None:
        piece.hooks = {}

    piece.hooks[index] = key
