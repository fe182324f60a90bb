"""Taking records out of aiokafka, which fetches them in the background.

aiokafka's fetch must never be cancelled (after that it believes for ever that somebody is fetching), must not be
called while a reassignment runs (it would wait for the callback that waits for us), and takes no list of partitions to
mean all of them. With a timeout of 0 it does not suspend outside a reassignment, so there is nothing to cancel: the
waiting is done here, on a future of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError

from rustmq_sdk.drivers.kafka.gaps import Gaps
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.records import Room, piece_of
from rustmq_sdk.drivers.kafka.salvage import UNREADABLE
from rustmq_sdk.drivers.kafka.taking import Taking
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment


class Polling:
    """Fetches of one consumer.

    Args:
        holdings: what is ours.
        check: raises what the consumer should know: a failure of the membership, a group without its coordinator.
        gaps: knows what to do about a partition whose position the log does not have, or where it is damaged.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        holdings: Holdings,
        *,
        check: Callable[[], None],
        gaps: Gaps,
    ) -> None:
        self._consumer = consumer
        self._holdings = holdings
        self._taking = Taking(consumer)
        self._check = check
        self._gaps = gaps
        self._failure: Exception | None = None
        self._woken = False
        self._waker: asyncio.Future[None] | None = None
        self._turn = 0

    async def fetch(
        self, wanted: Collection[Assignment], *, max_messages: int, max_bytes: int, max_wait: float
    ) -> Sequence[Fetched]:
        """As :meth:`rustmq_sdk.slots.Subscription.fetch`."""
        clock = asyncio.get_running_loop().time
        until = clock() + max_wait
        while True:
            self._live()
            pieces = await self._look(list(wanted), max_messages, max_bytes)
            left = until - clock()
            if pieces or self._woken or left <= 0:
                self._woken = False
                return pieces

            await self._wait(left)

    def wake(self) -> None:
        """Ends a wait, or the next one."""
        self._woken = True
        self.interrupt()

    def interrupt(self) -> None:
        """Ends a wait, if there is one: what the next look finds, or nothing, is the answer."""
        if self._waker is not None:
            self._woken = True
            _end(self._waker)

    def _live(self) -> None:
        """Shows that somebody fetches, also where nothing is wanted or a reassignment runs: max.poll.interval.ms."""
        with self._consumer._subscription.fetch_context():
            pass  # what it ends with it does not do where something is raised inside

        self._check()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _wait(self, seconds: float) -> None:
        """Until records arrive, the time is over, or somebody ends it."""
        # asyncio.wait() would take three times as long, and a quick reader comes here twice in a thousand messages.
        loop = asyncio.get_running_loop()
        waker = self._waker = loop.create_future()
        timer = loop.call_later(seconds, _end, waker)
        arrived = self._consumer._fetcher._create_fetch_waiter()
        arrived.add_done_callback(partial(_end, waker))
        try:
            await waker
        finally:
            self._waker = None
            timer.cancel()
            if arrived.done() and not arrived.cancelled():
                arrived.exception()  # aiokafka keeps it, and check() raises it
            else:
                arrived.cancel()

    async def _look(self, wanted: Sequence[Assignment], max_messages: int, max_bytes: int) -> list[Fetched]:
        """What was taken is handed over, whatever else happens: its positions have moved.

        So nothing is waited for in here (outside a reassignment aiokafka does not suspend either), and what is raised
        after something that was taken is raised by the next fetch.
        """
        if self._consumer._subscription.reassignment_in_progress:
            return []

        pieces = list(self._gaps.answers(wanted, max_messages))
        max_messages -= sum(len(piece.records) for piece in pieces)
        if max_messages <= 0:
            return pieces

        for assignment, partition in self._in_turn(wanted):
            # One message that is larger than all the room still comes, alone.
            alone = not any(piece.records for piece in pieces)
            try:
                piece = await self._take(assignment, partition, (max_messages, max_bytes), at_least_one=alone)
            except Exception as error:
                if not pieces:
                    raise

                self._failure = error
                break

            if piece is None:
                continue

            pieces.append(piece)
            max_messages -= len(piece.records)
            max_bytes -= piece.size
            if max_messages <= 0 or max_bytes <= 0:
                break

        self._taking.ask_for_more()
        return pieces

    def _in_turn(self, wanted: Sequence[Assignment]) -> list[tuple[Assignment, KafkaPartition]]:
        """Those that have something to say, beginning with another one each time."""
        # aiokafka's own table: asking it about each of 1,000 partitions would take 5 ms.
        arrived = self._consumer._fetcher._records
        ready = [(one, partition) for one, partition in self._holdings.wanted(wanted) if partition in arrived]
        if not ready:
            return []

        self._turn += 1
        first = self._turn % len(ready)
        return ready[first:] + ready[:first]

    async def _take(
        self, assignment: Assignment, partition: KafkaPartition, room: Room, *, at_least_one: bool
    ) -> Fetched | None:
        if self._gaps.is_asked(assignment):
            return None  # whatever has come again meanwhile

        try:
            rows, sizes = await self._taking.take(partition, room, at_least_one=at_least_one)
        except NoOffsetForPartitionError:
            # From before our seek: aiokafka looked for a committed position by itself, and there is none.
            return None
        except OffsetOutOfRangeError:
            self._gaps.out_of_range(assignment, partition, self.interrupt)
            return None
        except UNREADABLE as error:
            # Beyond the transactions and markers that were passed before it.
            self._holdings.move(assignment, self._taking.position(partition))
            self._gaps.unreadable(assignment, partition, error, room[0], self.interrupt)
            return None

        position = self._taking.position(partition)
        if position == self._holdings.position(assignment):
            return None

        self._holdings.move(assignment, position)
        return piece_of(assignment, rows, position, sizes)


def _end(wait: asyncio.Future[None], _: object = None) -> None:
    if not wait.done():
        wait.set_result(None)
