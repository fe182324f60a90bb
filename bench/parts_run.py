"""The process in which a message's time is taken apart."""

from __future__ import annotations

import functools
import gc
import threading
from collections import defaultdict
from time import perf_counter, process_time, thread_time
from typing import Any, TypeAlias

import anyio

import rustmq_sdk
from bench.tables import percentile
from rustmq_sdk._core.buffer import Buffer
from rustmq_sdk._runtime.commits import LogCommits
from rustmq_sdk._runtime.fetcher import Fetcher
from rustmq_sdk._runtime.settler import LedgerSettler
from rustmq_sdk.drivers.memory.log_source import MemoryLogSubscription
from rustmq_sdk.drivers.sqlite import fetching
from rustmq_sdk.drivers.sqlite.writer import Writer
from rustmq_sdk.values import OutgoingMessage

TOPIC = "bench"
PARTITIONS = 4
BATCH = 500
RUN = 50
"""Messages that are timed together: short, so that most such runs have nothing else among them."""

Part: TypeAlias = "tuple[str, Any, str]"
"""What it is called, and the function: where it stands, and its name."""

OF_KAFKA = "kafka:"
PARTS: tuple[Part, ...] = (
    ("build the messages, put them at hand", Buffer, "load"),
    ("decide what to fetch", Fetcher, "_demand"),
    ("driver: whose turn it is", fetching.Fetching, "_busy"),
    ("driver: cut and decode pieces", fetching.Fetching, "_hand_out"),
    ("driver: cut and decode pieces", MemoryLogSubscription, "_pieces"),
    ("take pieces in", Fetcher, "_take_in"),
    ("acks that are watched: count, make room", LedgerSettler, "_settled"),
    ("commits: what to write", LogCommits, "prepare"),
    ("reader's thread: read the file", fetching, "read_chunks"),
    ("writer's thread: commits", Writer, "_work"),
)


def parts(url: str) -> tuple[Part, ...]:
    """Those that a log may have."""
    if not url.startswith(OF_KAFKA):
        return PARTS

    from aiokafka.conn import AIOKafkaConnection
    from aiokafka.consumer.fetcher import Fetcher as KafkaFetcher

    from rustmq_sdk.drivers.kafka import bare, polling

    return (
        *PARTS,
        ("driver: whose turn it is", polling.Polling, "_in_turn"),
        ("driver: cut and decode pieces", bare, "take"),
        ("driver: sizes of the records", polling, "piece_of"),
        ("aiokafka: answers, as far as the records", AIOKafkaConnection, "_handle_frame"),
        ("aiokafka: what to ask for", KafkaFetcher, "_get_actions_per_node"),
    )


class Meter:
    """Adds up the processor time of functions, each without what it calls of the others."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.names = list(dict.fromkeys(name for name, _, _ in parts))
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = threading.local()
        for part in parts:
            self._wrap(*part)

    def _wrap(self, part: str, place: Any, name: str) -> None:
        function = getattr(place, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            outer = getattr(self._inside, "of_others", 0.0)
            self._inside.of_others = 0.0
            began = thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = thread_time() - began
                self.seconds[part] += took - self._inside.of_others
                self._inside.of_others = outer + took

        setattr(place, name, timed)


def measure(url: str, messages: int, loop: str, fill: bool, topic: str = TOPIC) -> dict[str, float]:
    """``fill``: the topic is not there yet, or it lives in this process."""
    meter = Meter(parts(url))
    return anyio.run(_measure, url, topic, messages, fill, meter, backend=loop)


async def _measure(url: str, topic: str, messages: int, fill: bool, meter: Meter) -> dict[str, float]:
    async with rustmq_sdk.Client(url) as client:
        if fill:
            await client.create_topic(topic, PARTITIONS)
            await _fill(client, messages)

        receiving, acking = await _apart(client, topic, messages // 3)
        gc.collect()
        gc.freeze()
        at_hand = {"receive()": receiving, "ack()": acking}
        return at_hand | await _whole(client, topic, messages, meter, receiving + acking)


async def _fill(client: rustmq_sdk.Client, messages: int) -> None:
    async with client.producer() as producer:
        for number, start in enumerate(range(0, messages, BATCH)):
            batch = [OutgoingMessage(b"x" * 100, partition=number % PARTITIONS)] * min(BATCH, messages - start)
            await producer.send_batch(TOPIC, batch)


async def _apart(client: rustmq_sdk.Client, topic: str, messages: int) -> tuple[float, float]:
    """Nanoseconds of a receive() and of an ack() that find nothing special."""
    receiving, acking = [], []
    async with client.consumer(topic, group=None) as consumer:
        for _ in range(messages // RUN):
            held = []
            began = perf_counter()
            for _ in range(RUN):
                held.append(await consumer.receive())  # noqa: PERF401 - the comprehension would be timed as well

            received = perf_counter()
            for message in held:
                await message.ack()

            acking.append(perf_counter() - received)
            receiving.append(received - began)

    # The lower half has nothing else in it; its middle is typical of what a run costs.
    return percentile(receiving, 25) / RUN * 1e9, percentile(acking, 25) / RUN * 1e9


async def _whole(
    client: rustmq_sdk.Client, topic: str, messages: int, meter: Meter, at_hand: float
) -> dict[str, float]:
    async with client.consumer(topic, group=f"g{perf_counter()}") as consumer:
        await (await consumer.receive()).ack()
        meter.seconds.clear()
        began, cpu = perf_counter(), process_time()
        for _ in range(messages - 1):
            message = await consumer.receive()
            await message.ack()

        took, cpu = perf_counter() - began, process_time() - cpu

    found = {part: meter.seconds[part] / messages * 1e9 for part in meter.names if part in meter.seconds}
    whole = cpu / messages * 1e9
    found["the loop, task switches, crossings"] = whole - at_hand - sum(found.values())
    return {**found, "all threads": whole, "by the clock": took / messages * 1e9}
