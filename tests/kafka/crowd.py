"""A group whose members join and leave all the time, under load, and an account of every message."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.abc

import rustmq_sdk
from tests.kills.contents import contents
from tests.kills.journal import Journal, read
from tests.kills.lives import Bounds, Place
from tests.kills.reckoning import Account, reckon, unsettled
from tests.kills.sender import Sender
from tests.kills.standstills import noting
from tests.kills.worker import COMMIT_INTERVAL, Observer, Worker, group_of, settings

LEASE = 6.0
PATIENCE = 60.0
"""Seconds for what is left when nobody joins and leaves any more."""


@dataclass(frozen=True)
class Turmoil:
    """What happens.

    Attributes:
        topic: with ``partitions``, of nobody else.
        seconds: for which members come and go.
        every: seconds between two of these.
        changes: how often somebody comes or goes at least, however long it takes.
        members: at most; there is always one.
        slow: the longest handler, seconds; every second member has quick ones.
    """

    topic: str
    seconds: float
    partitions: int = 6
    every: float = 1.0
    members: int = 4
    slow: float = 1.5
    seed: int = 0
    changes: int = 0


class Presence:
    """One member: ``leave`` ends it in good order, ``scope`` in the middle of everything."""

    def __init__(self) -> None:
        self.leave = anyio.Event()
        self.scope = anyio.CancelScope()


class Crowd:
    """The members of a group, in this process.

    Attributes:
        changes: how often somebody has joined or left.
    """

    def __init__(self, url: str, folder: Path, turmoil: Turmoil) -> None:
        self._url = url
        self._folder = folder
        self._turmoil = turmoil
        self._rng = random.Random(turmoil.seed)
        self._journal = Journal(folder / "crowd.journal")
        self._names = count()
        self._present: dict[str, Presence] = {}
        self._stored: Mapping[str, Sequence[Place]] = {}
        self.changes = 0

    def trouble(self) -> None:
        """Notes that from now on, and until it is noted again, members are out of reach."""
        self._journal.note("troubled")

    async def run(self, meanwhile: Callable[[Crowd], Coroutine[Any, Any, None]] | None = None) -> Account:
        """Turmoil, quiet, and the account.

        Args:
            meanwhile: what else happens in the turmoil; it is cancelled then, and has to leave the servers well.
        """
        with noting(self._journal, self._url):
            await self._run(meanwhile)

        return reckon(read(self._folder), self._stored, Bounds(COMMIT_INTERVAL, LEASE))

    async def _run(self, meanwhile: Callable[[Crowd], Coroutine[Any, Any, None]] | None) -> None:
        async with anyio.create_task_group() as members:
            await self._join(members)
            async with rustmq_sdk.Client(self._url) as client, anyio.create_task_group() as sending:
                sending.start_soon(self._send, client)
                if meanwhile is not None:
                    sending.start_soon(meanwhile, self)

                end = anyio.current_time() + self._turmoil.seconds
                while anyio.current_time() < end or self.changes < self._turmoil.changes:
                    await anyio.sleep(self._turmoil.every)
                    await self._change(members)

                sending.cancel_scope.cancel()

            async with rustmq_sdk.Client(self._url) as client:
                self._stored = await contents(client, self._turmoil.partitions, self._turmoil.topic)

            await self._settle()
            for name in list(self._present):
                self._leave(name, quietly=True)

    async def _change(self, members: anyio.abc.TaskGroup) -> None:
        self.changes += 1
        room = self._turmoil.members - len(self._present)
        if len(self._present) == 1 or (room > 0 and self._rng.random() < 0.5):  # one always stays
            await self._join(members)
        else:
            self._leave(self._rng.choice(sorted(self._present)), quietly=self._rng.random() < 0.5)

    async def _join(self, members: anyio.abc.TaskGroup) -> None:
        number = next(self._names)
        name = f"w{number}.0"
        self._present[name] = Presence()
        members.start_soon(self._member, name, self._turmoil.slow if number % 2 else 0.05)

    def _leave(self, name: str, *, quietly: bool) -> None:
        presence = self._present.pop(name)
        if quietly:
            presence.leave.set()
        else:
            self._journal.note("cancelled", name)
            presence.scope.cancel()

    async def _member(self, name: str, slowest: float) -> None:
        presence = self._present[name]
        journal = Journal(self._folder / f"{name}.journal")
        worker = Worker(journal, random.Random(name), slowest=slowest)
        with presence.scope:
            while not presence.leave.is_set() and not await self._take_part(presence, journal, worker):  # noqa: ASYNC110
                await anyio.sleep(0.5)

    async def _take_part(self, presence: Presence, journal: Journal, worker: Worker) -> bool:
        """Until it is to leave; False if it could not even enter, as happens where networks are cut."""
        topic = self._turmoil.topic
        options = settings(lease=LEASE, commit_interval=COMMIT_INTERVAL, group=group_of(topic))
        async with AsyncExitStack() as stack:
            try:
                client = await stack.enter_async_context(rustmq_sdk.Client(self._url))
                consumer = client.consumer(topic, observers=[Observer(journal)], **options)
                await stack.enter_async_context(consumer)
            except rustmq_sdk.TransientDriverError:
                return False

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_stop_when, presence.leave, consumer)
                await consumer.run(worker.handle, concurrency=8)
                tasks.cancel_scope.cancel()

        return True

    async def _send(self, client: rustmq_sdk.Client) -> None:
        journal = Journal(self._folder / "s0.0.journal")
        async with client.producer() as producer:
            await Sender(producer, journal, "s0", 0, self._turmoil.topic).run(0.02)

    async def _settle(self) -> None:
        def left() -> list[str]:
            return unsettled(read(self._folder), self._stored)

        with anyio.move_on_after(PATIENCE):
            while await anyio.to_thread.run_sync(left):  # noqa: ASYNC110  # a file has no event
                await anyio.sleep(0.5)


async def _stop_when(told: anyio.Event, consumer: rustmq_sdk.Consumer) -> None:
    await told.wait()
    consumer.stop()
