"""Pausing a partition holds its messages back, prefetched ones too, while the others flow.

Partition 0 of the jobs needs a printer, and the printer is out of paper for a while.
"""

from __future__ import annotations

import os

import anyio

import rustmq_sdk

PRINTER = ("jobs", 0)


async def main() -> None:
    async with rustmq_sdk.Client("memory://") as client:
        await client.create_topic("jobs", partitions=2)
        async with client.producer() as producer:
            for number in range(3):
                await producer.send("jobs", f"print page {number}", partition=0)
                await producer.send("jobs", f"mail letter {number}", partition=1)

        async with client.consumer("jobs", group="office") as consumer:
            print("out of paper: pausing the printer")
            consumer.pause_partitions([PRINTER])
            await work_until_quiet(consumer)

            print(f"paper is back: resuming {', '.join(map(str, consumer.paused_partitions))}")
            consumer.resume_partitions([PRINTER])
            await work_until_quiet(consumer)


async def work_until_quiet(consumer: rustmq_sdk.Consumer) -> None:
    while True:
        try:
            message = await consumer.receive(timeout=0.5)
        except TimeoutError:
            return

        print(f"  {message.text()}")
        await message.ack()


if __name__ == "__main__":
    anyio.run(main, backend=os.getenv("BACKEND", "asyncio"))
