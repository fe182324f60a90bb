"""A handler that raises is called again after a backoff; what never works goes to a dead-letter topic, with the reason.

Order 2 fails once and then works, order 3 fails every time, and order 4 is not worth a second attempt.
"""

from __future__ import annotations

import logging
import os
import tempfile

import anyio

import rustmq_sdk
from rustmq_sdk import Reject, RetryPolicy


async def ship(message: rustmq_sdk.Message) -> None:
    order = message.json()
    print(f"order {order['id']}, attempt {message.attempt}")
    if order["id"] == 4:
        raise Reject("the address is empty")  # now, without further attempts

    if order["id"] == 3 or (order["id"] == 2 and message.attempt == 1):
        raise ConnectionError("the carrier does not answer")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with rustmq_sdk.Client(f"sqlite:///{folder}/orders.db") as client:
            async with client.producer() as producer:
                await producer.send_batch("orders", [f'{{"id": {number}}}' for number in (1, 2, 3, 4)])

            policy = RetryPolicy(max_attempts=3, initial=0.05, jitter="none")
            shipping = client.consumer("orders", group="shipping", dead_letter_topic="orders.dead", retry=policy)
            async with shipping as consumer, anyio.create_task_group() as tasks:
                tasks.start_soon(consumer.run, ship)
                await report_dead_letters(client, 2)
                consumer.stop()


async def report_dead_letters(client: rustmq_sdk.Client, count: int) -> None:
    """A dead-letter topic is a topic: what is known about each letter is in its headers."""
    async with client.consumer("orders.dead", group="night-shift") as consumer:
        for _ in range(count):
            async with await consumer.receive(timeout=10) as letter:
                about = dict(letter.headers)
                reason, attempts = about["rustmq-dead-letter-reason"], about["rustmq-dead-letter-attempts"]
                print(f"dead: {letter.text()} after {int(attempts or 0)} attempts: {(reason or b'').decode()}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)  # every failure is logged as well; here they are on purpose
    anyio.run(main, backend=os.getenv("BACKEND", "asyncio"))
