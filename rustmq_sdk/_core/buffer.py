"""What waits to be delivered: who is next, pause, and taking messages back. ``order.py`` holds back by key.

``ready`` holds built messages in reverse, so that ``receive()`` pops the next one off its end; it is refilled in place,
because ``receive()`` keeps its bound ``pop``. Partitions take turns by piece.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from rustmq_sdk._core.lane import Lane, Waiting
from rustmq_sdk._core.ledger import Ledger
from rustmq_sdk._core.piece import Piece, piece_of
from rustmq_sdk.message import OPEN, STALE, Message, Span

LOAD = 256
"""Messages to have at hand after a refill, so that tiny pieces share its cost (and the caller's checkpoint)."""


class Buffer:
    """The lanes of all assignments, and the messages at hand."""

    def __init__(self) -> None:
        self.ready: list[Message] = []
        self.lanes: dict[Ledger, Lane] = {}
        self._rotation: deque[Lane] = deque()
        self._withheld: set[Lane] = set()
        self._waiting = 0

    # Lanes

    def add(self, lane: Lane) -> None:
        """A new assignment."""
        self.lanes[lane.ledger] = lane
        if not lane.deliverable:
            self._withheld.add(lane)

    def remove(self, ledger: Ledger) -> Lane | None:
        """An assignment is over: nothing of it will be handed out."""
        lane = self.lanes.pop(ledger, None)
        if lane is not None:
            self.take_back(lane)
            self._withheld.discard(lane)
            self._waiting -= lane.backlog
            self._unqueue(lane)
            lane.front.clear()
            lane.waiting.clear()
            lane.parked.clear()
            ledger.busy.clear()

        return lane

    def hold(self, lane: Lane) -> None:
        """Call after ``lane.deliverable`` turned false: messages at hand go back to the front of their lane."""
        self.take_back(lane)
        self._unqueue(lane)
        self._withheld.add(lane)

    def resume(self, lane: Lane) -> None:
        """Call after ``lane.deliverable`` may have turned true."""
        if lane.deliverable:
            self._withheld.discard(lane)

        self._queue(lane)

    def push(self, waiting: Waiting) -> None:
        """A fetched piece, after those of its partition that wait already."""
        lane = self.lanes[waiting.piece.ledger]
        lane.waiting.append(waiting)
        self._waiting += len(waiting)
        self._queue(lane)

    def push_front(self, lane: Lane, messages: Iterable[Message]) -> None:
        """Built messages that come before the waiting pieces of their lane, after others of this kind."""
        before = len(lane.front)
        lane.front.extend(messages)
        self._waiting += len(lane.front) - before
        self._queue(lane, first=True)

    def deliver_next(self, lane: Lane, message: Message) -> None:
        """The very next message, if its lane may deliver."""
        if lane.deliverable:
            self.ready.append(message)
            # An obstacle after it may have waited for just this message.
            self._queue(lane)
        else:
            self.push_front(lane, [message])

    def _queue(self, lane: Lane, *, first: bool = False) -> None:
        if lane.queued or not lane.deliverable or not (lane.front or lane.waiting):
            return

        lane.queued = True
        if first:
            self._rotation.appendleft(lane)
        else:
            self._rotation.append(lane)

    def _unqueue(self, lane: Lane) -> None:
        if lane.queued:
            self._rotation.remove(lane)
            lane.queued = False

    def take_back(self, lane: Lane) -> None:
        """Messages of the lane that are at hand go back to its front, in order."""
        ledger = lane.ledger
        mine = [message for message in self.ready if _ledger(message) is ledger]
        if mine:
            self.ready[:] = [message for message in self.ready if _ledger(message) is not ledger]
            # ``ready`` is reversed, and so is extendleft: the order comes out right.
            lane.front.extendleft(mine)
            self._waiting += len(mine)

    def drop_stale(self, ledgers: Iterable[Ledger]) -> None:
        """Built messages whose lease was lost are, or will be, somebody else's: they are not handed out.

        Queues only: they have no order by key, so none of them is parked.
        """
        self.ready[:] = filter(_is_fresh, self.ready)
        for lane in [self.lanes[ledger] for ledger in ledgers if ledger in self.lanes]:
            front = deque(filter(_is_fresh, lane.front))
            self._waiting -= len(lane.front) - len(front)
            lane.front = front

    # Delivery

    @property
    def backlog(self) -> int:
        """Messages not handed out, parked ones apart."""
        return self._waiting + len(self.ready)

    @property
    def withheld(self) -> int:
        """Messages of the backlog that may not be handed out now."""
        return sum(lane.backlog for lane in self._withheld)

    @property
    def runnable(self) -> bool:
        """Whether a refill would bring anything."""
        return bool(self._rotation)

    def deliverable(self, enough: int) -> int:
        """Messages that could be handed out now; stops counting at ``enough``."""
        count = len(self.ready)
        for lane in self._rotation:
            if count >= enough:
                break

            if lane.at_obstacle:
                # Nothing more comes before it: whoever asks has to be told at once.
                return enough

            count += lane.backlog

        return count

    def load(self, now: float) -> int:
        """Refills ``ready``; how many messages came in."""
        loaded: list[Message] = []
        while self._rotation and len(loaded) < LOAD:
            lane = self._rotation.popleft()
            lane.queued = False
            if lane.at_obstacle and (loaded or self.ready or lane.parked):
                # The partition stops there, which would take back what is at hand. Parked messages queue it again.
                if not lane.parked:
                    self._queue(lane, first=True)
                    break

                continue

            part, _ = self._next_part(lane, None, now)
            # One piece is the common case: then its list is used as it is.
            loaded = loaded + part if loaded else part
            self._queue(lane)

        loaded.reverse()
        # After what is at hand, and in place: receive() keeps its bound pop.
        self.ready[:0] = loaded
        return len(loaded)

    def take_batch(self, most: int, now: float) -> tuple[list[Message], list[Span]]:
        """Up to ``most`` messages in delivery order, and the runs of slots that they fill."""
        at_hand = min(most, len(self.ready))
        messages = self.ready[: -at_hand - 1 : -1]
        # In place: receive() keeps its bound pop.
        del self.ready[len(self.ready) - at_hand :]
        spans = list(_spans(messages))
        while self._rotation and len(messages) < most:
            lane = self._rotation.popleft()
            lane.queued = False
            part, run = self._next_part(lane, most - len(messages), now)
            spans.extend(_spans(part) if run is None else (run,))
            messages = messages + part if messages else part

            self._queue(lane)

        return messages, spans

    def _next_part(self, lane: Lane, most: int | None, now: float) -> tuple[list[Message], Span | None]:
        """The next messages of a lane: what is in front, or of the next piece all (``most=None``) or so many.

        With them the run of slots that they fill; None where that takes a closer look.
        """
        if lane.front:
            count = len(lane.front) if most is None else min(most, len(lane.front))
            self._waiting -= count
            return [lane.front.popleft() for _ in range(count)], None

        lane.forget_settled_keys()
        waiting = lane.waiting[0]
        before = len(waiting)
        part = waiting.load(before if most is None else most, now)
        self._waiting -= before - len(waiting)
        if not len(waiting):
            lane.waiting.popleft()

        return part

    # Questions

    def handed_out(self, lane: Lane) -> int:
        """Messages of the lane that are in somebody's hands: delivered, unsettled, not waiting for a retry."""
        built = sum(message._piece[message._index] in OPEN for message in self._built(lane))
        return lane.unsettled_slots() - built - sum(waiting.unsettled() for waiting in lane.waiting)

    def has(self, piece: Piece, index: int) -> bool:
        """Whether the slot's message was not handed out yet."""
        lane = self.lanes[piece.ledger]
        waiting = any(entry.piece is piece and index >= entry.first for entry in lane.waiting)
        return waiting or any(message._piece is piece and message._index == index for message in self._built(lane))

    def position(self, lane: Lane) -> int:
        """The next offset to hand out; retries apart."""
        return min(self._undelivered(lane), default=lane.ledger.scanned)

    def _built(self, lane: Lane) -> Iterator[Message]:
        yield from (message for message in self.ready if _ledger(message) is lane.ledger)
        yield from lane.front
        for queue in lane.parked.values():
            yield from queue

    def _undelivered(self, lane: Lane) -> Iterator[int]:
        for message in self._built(lane):
            if piece_of(message).parent is None and message.offset is not None:
                yield message.offset

        for waiting in lane.waiting:
            index = waiting.next_index()
            if index is not None:
                yield waiting.piece.offsets[index]
                return


def _is_fresh(message: Message) -> bool:
    return message._piece[message._index] != STALE


def _ledger(message: Message) -> Ledger:
    return piece_of(message).ledger


def _spans(messages: list[Message]) -> Iterator[Span]:
    """Runs of neighbouring slots; a freshly loaded part of a piece is one.

    Both ends in one piece are not enough to know: between them a message may be a later attempt, in a piece of its own.
    """
    if not messages:
        return

    piece, first = messages[0]._piece, messages[0]._index
    end = first
    for message in messages:
        if message._piece is not piece or message._index != end:
            yield piece, first, end
            piece, first = message._piece, message._index

        end = message._index + 1

    yield piece, first, end
