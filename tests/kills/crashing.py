"""A program that dies between two statements of its own choice, and another that carries on after it.

Each statement of SQL that the driver runs is counted; before the chosen one the process kills itself as ``kill -9``
would. Run for each number in turn, no two statements are left between which a crash was not tried.

The program sends, and consumes; a second consumer joins it and leaves again, so that partitions move there and back;
some messages become dead letters; and it has chores (``chores.py``).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import apsw

import rustmq_sdk
from rustmq_sdk.drivers.sqlite import integrity_check
from tests.kills.chores import counter, do_chores, miscounted, not_buried
from tests.kills.contents import contents
from tests.kills.journal import Event, Journal, read
from tests.kills.lives import Bounds, Place
from tests.kills.reckoning import Account, reckon
from tests.kills.sender import TOPIC, Sender
from tests.kills.worker import Observer, Worker, settings

PARTITIONS = 2
BURIED = "buried"
BATCHES = 6
PATIENCE = 30.0
BOUNDS = Bounds(commit_interval=0.02, lease=3.0, slack=2.5)
"""All of them write one file, on a machine that may be busy: how soon an ack is committed is not what is tried here."""

# Children are forked from a process without threads that has imported everything: 20 ms each instead of 400.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class Fuse:
    """Kills the process before a statement.

    Args:
        number: of the statement, counted from 0 over all connections.
    """

    def __init__(self, number: int) -> None:
        self._left = number

    def light(self) -> None:
        """From now on."""
        apsw.connection_hooks.append(self._attach)

    def _attach(self, connection: apsw.Connection) -> None:
        connection.exec_trace = self._before

    def _before(self, cursor: Any, statement: str, bindings: Any) -> bool:
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)

        self._left -= 1
        return True


def crash(file: Path, folder: Path, number: int) -> bool:
    """Runs the program to its death before that statement; False if it has come to its end without it."""
    process = _processes.Process(target=_doomed, args=(file, folder, number))
    process.start()
    process.join(PATIENCE)
    status = process.exitcode
    assert status in (0, -signal.SIGKILL), f"before statement {number} the program ended with {status}"
    if status == 0:
        return False

    journal = Journal(folder / "conductor.journal")
    for name in ("s0.0", "w0.0", "w1.0"):
        journal.note("killed", name)

    return True


def carry_on(file: Path, folder: Path) -> Account:
    """Somebody else sends a little more and handles all that is left; and the account."""
    url = f"sqlite:///{file}"
    stored, buried = anyio.run(_finish, url, folder)
    events = killed_last(read(folder))
    account = reckon(events, stored, BOUNDS)
    account.broken += [*integrity_check(file), *not_buried(events, buried)]
    account.broken += miscounted(events, anyio.run(counter, url))
    return account


def killed_last(events: Sequence[Event]) -> list[Event]:
    """The kill is noted by who survives it, a little late: it was after the last word of the victim."""
    victims = {event.details[0] for event in events if event.what == "killed"}
    last = max((event.at for event in events if event.who in victims), default=0)
    return sorted(event._replace(at=last + 1) if event.what == "killed" else event for event in events)


def sweep(folder: Path, numbers: Iterable[int]) -> Iterator[tuple[int, Account]]:
    """A crash before each of these statements, each on a log of its own, until the program ends without one."""
    for number in numbers:
        place = folder / f"before-{number}"
        place.mkdir()
        alive = not crash(place / "log.db", place, number)
        yield number, carry_on(place / "log.db", place)
        if alive:
            return


def _doomed(file: Path, folder: Path, number: int) -> None:
    logging.getLogger("rustmq_sdk").setLevel(logging.CRITICAL)  # what fails on purpose is no news
    Fuse(number).light()
    anyio.run(_work, f"sqlite:///{file}", folder, "0")


async def _finish(url: str, folder: Path) -> tuple[dict[str, list[Place]], dict[str, list[Place]]]:
    await _work(url, folder, "1")
    async with rustmq_sdk.Client(url) as client:
        return await contents(client, PARTITIONS), await contents(client, 1, BURIED)


async def _work(url: str, folder: Path, life: str) -> None:
    sending, first_working, second_working = (Journal(folder / f"{name}.{life}.journal") for name in ("s0", "w0", "w1"))
    first = max((int(event.details[1]) for event in read(folder) if event.what == "sending"), default=0)
    async with rustmq_sdk.Client(url) as client:
        await client.create_topic(TOPIC, partitions=PARTITIONS)
        await client.create_topic(BURIED, partitions=1)
        async with client.producer() as producer:
            sender = Sender(producer, sending, f"s0.{life}", first)
            for _ in range(BATCHES):
                await sender.send_some()

        async with _worker(client, first_working, life) as run, anyio.create_task_group() as tasks:
            tasks.start_soon(_join_and_leave, url, second_working, life)
            tasks.start_soon(do_chores, url, sending)
            await run(PARTITIONS)


async def _join_and_leave(url: str, journal: Journal, life: str) -> None:
    """Another member, for as long as it has something to do."""
    async with rustmq_sdk.Client(url) as client, _worker(client, journal, life) as run:
        await run(1)


@asynccontextmanager
async def _worker(
    client: rustmq_sdk.Client, journal: Journal, life: str
) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """A consumer that runs until it has so many partitions, and nothing is left in them."""
    options = settings(lease=BOUNDS.lease, commit_interval=BOUNDS.commit_interval)
    options["dead_letter_topic"] = BURIED
    observer, worker = Observer(journal), Worker(journal, random.Random(life), rejects=0.1)
    async with client.consumer(TOPIC, observers=[observer], **options) as consumer:

        async def run(partitions: int) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_stop_at_the_end, consumer, partitions)
                await consumer.run(worker.handle, concurrency=4)

        yield run


async def _stop_at_the_end(consumer: rustmq_sdk.Consumer, partitions: int) -> None:
    with anyio.fail_after(PATIENCE):
        while not await _is_at_the_end(consumer, partitions):  # noqa: ASYNC110
            await anyio.sleep(0.01)

    consumer.stop()


async def _is_at_the_end(consumer: rustmq_sdk.Consumer, partitions: int) -> bool:
    if len(consumer.assigned_partitions) < partitions:
        return False

    try:
        return not any((await consumer.get_lag()).values())
    except rustmq_sdk.TransientDriverError:  # no answer in time: it is asked again
        return False
