"""From a file to Kafka by its URL: many handlers at work, and each order's events one after the other.

    python examples/11_kafka_in_key_order.py
    RUSTMQ_URL=kafka://localhost:9092 python examples/11_kafka_in_key_order.py

The first packing attempt of each order fails. Its later events wait for the retry, those of other orders do not.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict

import anyio

import rustmq_sdk

TOPIC = "examples.orders"
ORDERS = ("7", "8", "9", "10", "11")
EVENTS = ("placed", "paid", "packed", "shipped")


async def main() -> None:
    history: dict[str, list[str]] = defaultdict(list)

    async def handle(message: rustmq_sdk.Message) -> None:
        order, event = (message.key or b"").decode(), message.text()
        await anyio.sleep(0.01)
        if event == "packed" and message.attempt == 1:
            history[order].append("(nobody to pack)")
            raise rustmq_sdk.Retry(0.05, "the warehouse does not answer")

        history[order].append(event)
        if all("shipped" in history[order] for order in ORDERS):
            consumer.stop()  # run() ends when the handlers at work are done

    with tempfile.TemporaryDirectory() as folder:
        url = os.getenv("RUSTMQ_URL", f"sqlite:///{folder}/orders.db")
        async with rustmq_sdk.Client(url) as client:
            await client.create_topic(TOPIC, partitions=4)
            async with client.producer() as producer:
                for event in EVENTS:
                    for order in ORDERS:
                        await producer.send(TOPIC, event, key=order)

            async with client.consumer(TOPIC, group="examples.packing") as consumer:
                await consumer.run(handle, concurrency=8, ordering="key")

    for order in ORDERS:
        print(f"order {order}: {', '.join(history[order])}")


if __name__ == "__main__":
    anyio.run(main, backend=os.getenv("BACKEND", "asyncio"))
