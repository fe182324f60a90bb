"""What users do with messages: most of them ack, some do everything that can be done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import anyio
import anyio.abc

from rustmq_sdk import (
    AckResult,
    CircuitOpen,
    ConfigurationError,
    Consumer,
    ConsumerClosed,
    ConsumerStateError,
    Message,
    Messages,
    PartitionStopped,
    Reject,
    StalePartition,
    TopicPartition,
    TransientDriverError,
)
from rustmq_sdk.message import FREE, WATCH
from tests.faults.journal import Journal
from tests.faults.records import Owner
from tests.faults.scenario import TOPIC, Scenario

FAILING = (TransientDriverError, CircuitOpen, StalePartition)
"""What calls that ask the broker may raise while faults go on."""

OFTEN = 0.03
"""How often a user that seeks does so instead of going on: a few times in its life."""


class HandlerFailed(Exception):
    """A handler's own."""


class User:
    """One program around one consumer.

    Args:
        oddity: how often it does something else than acking at once.
        seeks: whether it moves positions.
    """

    def __init__(
        self,
        consumer: Consumer,
        journal: Journal,
        owner: Owner,
        scenario: Scenario,
        rng: Random,
        tasks: anyio.abc.TaskGroup,
        *,
        oddity: float,
        seeks: bool,
        auto_commit: bool,
    ) -> None:
        self._consumer = consumer
        self._journal = journal
        self._owner = owner
        self._scenario = scenario
        self._rng = rng
        self._tasks = tasks
        self._oddity = oddity
        self._seeks = seeks
        self._auto_commit = auto_commit
        self._hand: list[Message] = []

    # Loops

    async def receive(self) -> None:
        """Until the consumer is stopped."""
        while True:
            try:
                messages = await self._next()
            except TimeoutError:
                await self._empty_hand()
            except ConsumerClosed:
                return
            except PartitionStopped as error:
                await self._repair(error)
            except ConsumerStateError as error:
                if "commit()" not in str(error):
                    raise

                await self._empty_hand()
                await self._commit()
                await anyio.sleep(0.05)
            else:
                for message in messages:
                    self._journal.delivered(self._owner, message)

                for message in messages:
                    await self._use(message)

    async def _next(self) -> list[Message]:
        roll = self._rng.random()
        if roll < 0.1:
            size = self._rng.choice((1, 3, 50))
            return list(await self._consumer.receive_batch(size, max_wait=self._rng.choice((0.0, 0.05)), timeout=0.4))

        if roll < 0.2:
            with anyio.move_on_after(self._rng.choice((0.0, 0.01, 0.4))):
                return [await self._consumer.receive()]

            return []

        return [await self._consumer.receive(timeout=0.4)]

    async def work(self, *, ordering: Any, concurrency: int, batch_size: int | None) -> None:
        """``run()`` until the consumer is stopped, or every partition is."""
        handler: Callable[..., Awaitable[None]]
        if batch_size is None:
            handler = self._in_turn(ordering) if ordering != "none" else self._handle
        else:
            handler = self._handle_batch

        while True:
            try:
                await self._consumer.run(
                    handler, ordering=ordering, concurrency=concurrency, batch_size=batch_size, batch_wait=0.05
                )
            except ConsumerClosed:  # while a partition was repaired
                return
            except PartitionStopped as error:
                await self._repair(error)
            except ConsumerStateError as error:
                if "commit()" not in str(error):
                    raise

                await self._empty_hand()
                await self._commit()
                await anyio.sleep(0.05)
            else:
                return

    async def _repair(self, error: PartitionStopped) -> None:
        await anyio.sleep(0.1)
        tp = TopicPartition(error.topic, error.partition)
        self._owner.paused.discard(tp)
        self._consumer.resume_partitions([tp])

    def _in_turn(self, ordering: str) -> Callable[[Message], Awaitable[None]]:
        async def handle(message: Message) -> None:
            key = self._journal.begins(self._owner, message, whole_partition=ordering == "partition")
            try:
                await self._handle(message)
            finally:
                self._journal.ends(self._owner, key, message)

        return handle

    async def _handle(self, message: Message) -> None:
        self._journal.delivered(self._owner, message)
        await self._seek_now_and_then()
        if self._rng.random() < self._oddity:
            try:
                await self._take_time(message)
            except anyio.get_cancelled_exc_class():
                if not self._owner.dead and anyio.current_time() < self._owner.may_finish_until:
                    self._journal.broken(f"{self._owner.name}: a handler was cancelled, and had time left to finish")

                raise

        self._end_of_handling([message], self._failure(message))

    async def _take_time(self, message: Message) -> None:
        await self._something_else()
        await anyio.sleep(self._rng.choice((0.0, 0.01, 0.3, 5.0)))
        if self._rng.random() < 0.3:
            await self._ack(message, durable=self._rng.random() < 0.3)
            await anyio.sleep(self._rng.choice((0.0, 0.2)))

    async def _handle_batch(self, messages: Messages) -> None:
        for message in messages:
            self._journal.delivered(self._owner, message)

        if self._rng.random() < self._oddity:
            await anyio.sleep(self._rng.choice((0.0, 0.01, 0.3)))
            await self._ack(messages[0])

        failures = [self._failure(message) for message in messages]
        self._end_of_handling(list(messages), next(filter(None, failures), None))

    def _end_of_handling(self, messages: list[Message], failure: Exception | None) -> None:
        """What ``run()`` does next it does before anybody else runs: so it can be written down here."""
        verb = "reject" if isinstance(failure, Reject) else "nack"
        for message in messages:
            if message._piece[message._index] not in (FREE, WATCH):
                continue

            if failure is None:
                self._journal.settling(self._owner, message)
                self._journal.acked(self._owner, message, AckResult.RECORDED)
            else:
                self._journal.given_back(self._owner, message, verb, AckResult.RECORDED)

        if failure is not None:
            raise failure

    def _failure(self, message: Message) -> Exception | None:
        if self._is_poison(message):
            return HandlerFailed("poison")

        roll = self._rng.random()
        if roll < self._oddity / 4:
            return HandlerFailed("by chance")

        return Reject("by chance") if roll < self._oddity / 3 and self._scenario.has_route else None

    def _is_poison(self, message: Message) -> bool:
        number = int(message.payload or b"-1") if (message.payload or b"").isdigit() else -1
        if number not in self._scenario.poison:
            return False

        # Without a route poison stops its partition; after some repairs it goes down.
        tp, offset = self._journal.place(message)
        nacks = self._journal.partitions[tp.partition or 0].nacks[offset]
        return self._scenario.has_route or nacks < 2 * self._scenario.retry.max_attempts

    # One message

    async def _use(self, message: Message) -> None:
        await self._seek_now_and_then()
        if self._is_poison(message):
            await self._nack(message, None)
        elif self._rng.random() >= self._oddity:
            await self._ack(message)
        else:
            await self._oddly(message)

        if len(self._hand) > 4 or (self._hand and self._rng.random() < 0.1):
            await self._empty_hand()

    async def _oddly(self, message: Message) -> None:
        act = self._rng.randrange(10)
        if act < 3:
            self._hand.append(message)
        elif act == 3:
            await self._nack(message, self._rng.choice((None, 0.0, 0.2, 2.0)))
        elif act == 4 and self._scenario.has_route:
            self._journal.given_back(self._owner, message, "reject", await message.reject("by choice"))
        elif act == 5:
            await self._ack(message)
            await self._ack(message)
        elif act == 6:
            self._tasks.start_soon(self._later, message, True)
        elif act == 7:
            await self._nack(message, 0.1)
            self._tasks.start_soon(self._later, message, False)
        elif act == 8:
            self._tasks.start_soon(self._later, message, False)
            await self._something_else()
        else:
            await self._something_else()
            await self._ack(message)

    async def _later(self, message: Message, durable: bool) -> None:
        await anyio.sleep(self._rng.choice((0.0, 0.1, 1.5)))
        await self._ack(message, durable=durable)

    async def _empty_hand(self) -> None:
        self._rng.shuffle(self._hand)
        while self._hand:
            await self._ack(self._hand.pop())

    async def _ack(self, message: Message, *, durable: bool = False) -> None:
        self._journal.settling(self._owner, message)
        result: AckResult | None = None
        began = anyio.current_time()
        try:
            result = await message.ack(durable)
            if not durable and anyio.current_time() > began:
                self._journal.broken(f"{self._owner.name}: an ack waited {anyio.current_time() - began} s")
        except StalePartition:
            pass
        finally:
            self._journal.acked(self._owner, message, result)

    async def _nack(self, message: Message, delay: float | None) -> None:
        self._journal.given_back(self._owner, message, "nack", await message.nack(delay))

    # All else

    async def _something_else(self) -> None:
        act = self._rng.random()
        if act < 0.5:
            self._pause()
        elif act < 0.65 and self._seeks:
            await self._seek()
        elif act < 0.8 and self._scenario.kind == "log":
            await self._commit()
        else:
            await anyio.sleep(self._rng.choice((0.0, 0.05, 0.5)))

    def _pause(self) -> None:
        assigned = sorted(self._consumer.assigned_partitions)
        if assigned:
            tp = self._rng.choice(assigned)
            self._owner.paused.add(tp)
            self._consumer.pause_partitions([tp])
            self._journal.note(f"{self._owner.name} pauses {tp}")
            self._tasks.start_soon(self._resume, tp)

    async def _resume(self, tp: Any) -> None:
        await anyio.sleep(self._rng.choice((0.0, 0.2, 1.0)))
        self._owner.paused.discard(tp)
        self._consumer.resume_partitions([tp])
        self._journal.note(f"{self._owner.name} resumes {tp}")

    async def _seek_now_and_then(self) -> None:
        if self._seeks and self._rng.random() < OFTEN:
            await self._seek()

    async def _seek(self) -> None:
        assigned = sorted(self._consumer.assigned_partitions)
        if assigned:
            tp = self._rng.choice(assigned)
            position = await self._consumer.position(TOPIC, tp.partition or 0)
            await self._seek_to(tp, self._rng.randrange(max(0, position - 20), position + 3))

    async def _seek_to(self, tp: TopicPartition, offset: int) -> None:
        """The broker is asked for the end first; what comes until it has answered is of the old position."""
        log = self._journal.broker.log(tp, operation="read")
        end = log.end
        try:
            await self._consumer.seek(TOPIC, tp.partition or 0, offset)
        except ConfigurationError:
            if offset <= end:
                self._journal.broken(f"{self._owner.name}: a seek to {tp}@{offset} was refused, and it ended at {end}")
        except ConsumerStateError:
            if tp in self._consumer.assigned_partitions:
                self._journal.broken(f"{self._owner.name}: a seek in {tp} was refused, and it is assigned")
        except FAILING:
            pass
        else:
            # In the step in which it has moved: nobody was handed anything since.
            self._journal.seeks(self._owner, tp, offset)
            if offset > log.end:
                self._journal.broken(f"{self._owner.name} has moved to {tp}@{offset}, and it ends at {log.end}")

    async def _commit(self) -> None:
        try:
            await self._consumer.commit()
        except FAILING:
            await anyio.sleep(0.1)
