"""What waits for one broker: it goes in one request, and one request is under way. On an asyncio loop.

A broker works on one request of a connection at a time, and with ``acks=all`` that lasts until the replicas have it. So
requests of single partitions would wait for each other; together they are replicated together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from aiokafka.protocol.produce import ProduceRequest

from rustmq_sdk.drivers.kafka.encoding import Answer
from rustmq_sdk.drivers.kafka.failures import NotSent, Unanswered

REPLICATION = 5.0
"""Seconds that a broker waits for the replicas; below the wait for its answer."""
MOST = 8 * 1024 * 1024
"""Bytes of one request; a broker takes 100 MiB (``socket.request.max.bytes``)."""
_ALL_REPLICAS = -1

Ask = Callable[[Any], Awaitable[Any]]


class _Parcel(NamedTuple):
    topic: str
    partition: int
    data: bytes
    left: Callable[[], None]
    answer: asyncio.Future[Answer]


class BrokerQueue:
    """Sends batches to one broker, in the order in which they come.

    Args:
        ask: sends a request to it; raises ``NotSent`` or ``Unanswered``.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._waiting: deque[_Parcel] = deque()
        self._task: asyncio.Task[None] | None = None

    async def send(self, topic: str, partition: int, data: bytes, left: Callable[[], None]) -> Answer:
        """Sends a batch.

        Cancelled before it was sent, it is not sent; afterwards, when ``left`` was called, its effect stays unknown.

        Raises:
            NotSent: it was not.
            Unanswered: it was, and there is no answer.
        """
        parcel = _Parcel(topic, partition, data, left, asyncio.get_running_loop().create_future())
        self._waiting.append(parcel)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="kafka broker queue")

        return await parcel.answer

    async def close(self) -> None:
        """Ends it; what is under way or waits gets its error."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

        _fail(self._waiting, NotSent("the client is closed"))
        self._waiting.clear()

    async def _run(self) -> None:
        while parcels := self._load():
            for parcel in parcels:
                parcel.left()

            try:
                answers = _read(await self._ask(_request(parcels)))
            except (NotSent, Unanswered) as error:
                _fail(parcels, error)
            except asyncio.CancelledError:
                _fail(parcels, Unanswered("the client was closed"))
                raise
            except Exception as error:
                # Nothing that we know of. It must not end in silence, with somebody waiting.
                lost = Unanswered(f"{type(error).__name__}: {error}")
                lost.__cause__ = error
                _fail(parcels, lost)
            else:
                for parcel in parcels:
                    _settle(parcel, answers.get((parcel.topic, parcel.partition)))

    def _load(self) -> list[_Parcel]:
        """What goes next: of each partition one batch, as a request has room for."""
        parcels: dict[tuple[str, int], _Parcel] = {}
        later: list[_Parcel] = []
        held: set[tuple[str, int]] = set()  # none of a partition overtakes another
        size = 0
        while self._waiting:
            parcel = self._waiting.popleft()
            place = (parcel.topic, parcel.partition)
            if parcel.answer.done():  # nobody waits for it any more
                continue

            if place in held or (parcels and size + len(parcel.data) > MOST):
                held.add(place)
                later.append(parcel)
                continue

            held.add(place)
            parcels[place] = parcel
            size += len(parcel.data)

        self._waiting.extend(later)
        return list(parcels.values())


def _request(parcels: list[_Parcel]) -> ProduceRequest:
    topics: dict[str, list[tuple[int, bytes]]] = {}
    for parcel in parcels:
        topics.setdefault(parcel.topic, []).append((parcel.partition, parcel.data))

    return ProduceRequest(None, _ALL_REPLICAS, int(REPLICATION * 1000), list(topics.items()))


def _read(response: Any) -> dict[tuple[str, int], Answer]:
    return {
        (topic, partition): Answer(code, base, *rest[:1])
        for topic, partitions in response.topics
        for partition, code, base, *rest in partitions
    }


def _settle(parcel: _Parcel, answer: Answer | None) -> None:
    if parcel.answer.done():
        return

    if answer is None:
        parcel.answer.set_exception(Unanswered("the broker's answer leaves the partition out"))
    else:
        parcel.answer.set_result(answer)


def _fail(parcels: list[_Parcel] | deque[_Parcel], error: Exception) -> None:
    for parcel in parcels:
        if not parcel.answer.done():
            # Each its own: an exception that is raised in several places gathers all their tracebacks.
            own = type(error)(*error.args)
            own.__cause__ = error.__cause__
            parcel.answer.set_exception(own)
