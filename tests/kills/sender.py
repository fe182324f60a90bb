"""A producer that is killed: sends numbered messages in every way there is, and notes what it knows.

Arguments: the URL, the topic, the folder of journals, its name, the number of its first message, seconds between two
sends. SIGTERM ends it.
"""

from __future__ import annotations

import random
import signal
import sys
from pathlib import Path

import anyio

import rustmq_sdk
from rustmq_sdk.values import OutgoingMessage
from tests.kills.journal import Journal

TOPIC = "work"
MOST = 30
"""Messages a batch has at most."""


class Sender:
    """Sends ``name:number`` for ascending numbers."""

    def __init__(
        self, producer: rustmq_sdk.Producer, journal: Journal, name: str, first: int, topic: str = TOPIC
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._journal = journal
        self._name = name.split(".", maxsplit=1)[0]
        self._next = first
        self._rng = random.Random(name)

    async def run(self, pause: float) -> None:
        """Sends until it is cancelled."""
        while True:
            await self.send_some()
            await anyio.sleep(pause)

    async def send_some(self) -> None:
        """A few messages, in one of the ways there are."""
        numbers = range(self._next, self._next + self._rng.randint(1, MOST))
        self._next = numbers.stop
        self._journal.note("sending", numbers.start, numbers.stop)
        try:
            await self._send(numbers)
        except rustmq_sdk.RustMQError as error:
            self._journal.note("unknown", numbers.start, numbers.stop, type(error).__name__)
        else:
            self._journal.note("sent", numbers.start, numbers.stop)

    async def _send(self, numbers: range) -> None:
        messages = [OutgoingMessage(f"{self._name}:{number}".encode(), b"%d" % (number % 100)) for number in numbers]
        way = self._rng.randrange(3)
        if way == 0:
            for message in messages:
                await self._producer.send(self._topic, message.payload, key=message.key)
        elif way == 1:
            await self._producer.send_batch(self._topic, messages)
        else:
            for message in messages:
                self._producer.send_nowait(self._topic, message.payload, key=message.key)

            await self._producer.flush()


async def main(url: str, topic: str, folder: Path, name: str, first: int, pause: float) -> None:
    journal = Journal(folder / f"{name}.journal")
    async with (
        rustmq_sdk.Client(url) as client,
        client.producer() as producer,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(Sender(producer, journal, name, first, topic).run, pause)
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            journal.note("ready")
            async for _ in signals:
                tasks.cancel_scope.cancel()


if __name__ == "__main__":
    url, topic, folder, name, first, pause = sys.argv[1:]
    anyio.run(main, url, topic, Path(folder), name, int(first), float(pause))
