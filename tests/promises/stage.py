"""Where the promises are tested: a broker in memory, clients of it, and fate in the hands of the test.

``stage://NAME`` is the memory driver behind a plan of faults, reached by ``Client`` as any other driver. Time is
virtual on both loops, so waiting costs nothing: :func:`passes` lets seconds go by.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio
import sniffio
import trio.testing

from rustmq_sdk import Client, Consumer, Message
from rustmq_sdk.drivers.memory import OPTIONS as OPTIONS
from rustmq_sdk.drivers.memory import MemoryBroker
from rustmq_sdk.drivers.memory import forget as forget_memory
from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.options import Location, locate
from rustmq_sdk.testing import Fault, FaultPlan, FaultyDriver
from rustmq_sdk.testing.clock import VirtualTimeLoop
from rustmq_sdk.testing.faults import Kind
from rustmq_sdk.values import Checkpoint, DeadLetter, OutgoingMessage, TopicPartition

TOPIC = "t"
GROUP = "g"
DLQ = "t.dlq"
TP = TopicPartition(TOPIC, 0)

_plans: dict[str, FaultPlan] = {}
_numbers = count(1)


class Plan(FaultPlan):
    """A plan that the test may change while things run.

    Attributes:
        standing: what happens at *every* call of an operation, until the test takes it out again.
    """

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.standing: dict[str, tuple[Kind, float]] = {}

    def breaks(self, *operations: str, kind: Kind = "refused", seconds: float = math.inf) -> None:
        """From now on every call of these operations goes wrong."""
        for operation in operations:
            self.standing[operation] = (kind, seconds)

    def heals(self) -> None:
        """From now on everything works."""
        self.standing.clear()

    def draw(self, operation: str) -> Fault | None:
        planned = super().draw(operation)
        if planned is not None or operation not in self.standing:
            return planned

        kind, seconds = self.standing[operation]
        return Fault(operation, kind, self.calls[operation], seconds)


class Stage:
    """One broker, and everything a test wants to do to it.

    Args:
        kind: ``"log"`` or ``"queue"``.
        options: of the memory driver, for example ``checkpoint_room=20``.
    """

    def __init__(self, kind: str = "log", **options: object) -> None:
        self.name = f"stage-{next(_numbers)}"
        self.kind = kind
        self.plan = Plan()
        self._options = {"kind": kind, **options}
        self.broker: MemoryBroker = open_memory(f"memory://{self.name}").broker

    def client(self, plan: FaultPlan | None = None) -> Client:
        """A client of the stage's broker; its faults are the stage's, or its own."""
        number = f"{self.name}.{next(_numbers)}"
        _plans[number] = self.plan if plan is None else plan
        query = "&".join(f"{name}={value}" for name, value in self._options.items())
        return Client(f"stage://{number}?{query}")

    @asynccontextmanager
    async def consumer(
        self, *topics: str, group: str | None = GROUP, plan: FaultPlan | None = None, **options: Any
    ) -> AsyncIterator[Consumer]:
        """A consumer of a client of its own; of :data:`TOPIC` unless ``topics`` says otherwise."""
        async with (
            self.client(plan) as client,
            client.consumer(*(topics or (TOPIC,)), group=group, **options) as consumer,
        ):
            yield consumer

    def create(self, partitions: int = 1, topic: str = TOPIC) -> None:
        """Creates a topic."""
        self.broker.create_topic(topic, partitions)

    def send(
        self,
        messages: int | Iterable[str] = 1,
        *,
        topic: str = TOPIC,
        partition: int = 0,
        keys: Sequence[str | None] = (None,),
        timestamp: int | None = None,
    ) -> None:
        """Appends so many messages, numbered by their offsets, or these; keys are given out in turn."""
        if topic not in self.broker.topics():
            self.create(partition + 1, topic)

        end = self.broker.log(TopicPartition(topic, partition), operation="send").end
        bodies = [f"m{end + number}" for number in range(messages)] if isinstance(messages, int) else list(messages)
        outgoing = []
        for number, body in enumerate(bodies):
            key = keys[number % len(keys)]
            outgoing.append(OutgoingMessage(body.encode(), key.encode() if key else None, timestamp=timestamp))

        self.broker.append(TopicPartition(topic, partition), outgoing)

    def checkpoint(self, partition: int = 0, topic: str = TOPIC, group: str = GROUP) -> Checkpoint | None:
        """What the broker has of a group and partition."""
        return self.broker.group(group).committed.get(TopicPartition(topic, partition))

    def committed(self, partition: int = 0, topic: str = TOPIC, group: str = GROUP) -> int | None:
        """The committed position that the broker has."""
        checkpoint = self.checkpoint(partition, topic, group)
        return None if checkpoint is None else checkpoint.offset

    @property
    def settling(self) -> str:
        """The operation that tells the broker what is settled, as plans of faults name it."""
        return "source.commit" if self.kind == "log" else "source.settle"

    @property
    def letters(self) -> Sequence[DeadLetter]:
        """What is in :data:`DLQ`."""
        return self.broker.letters[DLQ].letters

    def close(self) -> None:
        """Forgets the broker."""
        forget_memory(self.name)
        for name in [name for name in _plans if name.startswith(f"{self.name}.")]:
            del _plans[name]


def open(url: Location | str) -> FaultyDriver:  # noqa: A001  # every driver has its open()
    """What ``stage://`` names."""
    location = locate(url)
    name = location.address
    driver = open_memory(location._replace(scheme="memory", bare=f"memory://{name.partition('.')[0]}"))
    return FaultyDriver(driver, _plans[name])


async def passes(seconds: float) -> None:
    """Lets time go by; it is virtual."""
    await anyio.sleep(seconds)


def works_for(seconds: float) -> None:
    """Has the clock go on as if the loop's thread had been busy."""
    if sniffio.current_async_library() == "trio":
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(seconds)
    else:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        loop.jump(seconds)


async def until(condition: Callable[[], object], *, at_most: float = 600.0, step: float = 0.01) -> None:
    """Lets time go by until something is true."""
    with anyio.fail_after(at_most):
        while not condition():  # noqa: ASYNC110  # whatever it is, time is virtual
            await anyio.sleep(step)


async def take(consumer: Consumer, count: int, *, timeout: float = 60.0) -> list[Message]:
    """The next messages, not settled."""
    return [await consumer.receive(timeout) for _ in range(count)]


async def take_all(consumer: Consumer, *, quiet: float = 5.0) -> list[Message]:
    """Messages, not settled, until none comes for so many seconds."""
    messages = []
    while True:
        try:
            messages.append(await consumer.receive(quiet))
        except TimeoutError:
            return messages


async def handle_all(consumer: Consumer, *, quiet: float = 5.0) -> list[str]:
    """Receives and acks until none comes for so many seconds; their bodies."""
    bodies: list[str] = []
    while True:
        try:
            message = await consumer.receive(quiet)
        except TimeoutError:
            return bodies

        bodies.append(message.text())
        await message.ack()


async def ack(*messages: Message) -> None:
    """Acks, one by one."""
    for message in messages:
        await message.ack()


def texts(messages: Iterable[Message]) -> list[str]:
    """The bodies."""
    return [message.text() for message in messages]


def numbered(count: int, first: int = 0) -> list[str]:
    """The bodies that ``send(count)`` gives."""
    return [f"m{number}" for number in range(first, first + count)]


def offsets(messages: Iterable[Message]) -> list[int | None]:
    """The offsets."""
    return [message.offset for message in messages]


async def in_background(
    group: anyio.abc.TaskGroup, call: Callable[..., Awaitable[Any]], *arguments: object
) -> list[Any]:
    """Starts a call beside the test and lets it come to its first wait; the list gets its result or its error."""
    outcome: list[Any] = []

    async def record() -> None:
        try:
            outcome.append(await call(*arguments))
        except Exception as error:
            outcome.append(error)

    group.start_soon(record)
    await anyio.wait_all_tasks_blocked()
    return outcome
