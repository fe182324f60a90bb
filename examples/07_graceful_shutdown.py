"""Stops on SIGTERM as a container does: what is in flight is finished, what is settled is committed, then it ends.

The program sends the signal to itself while four parcels are being packed. What had not begun comes to the next run.
"""

from __future__ import annotations

import os
import signal
import tempfile

import anyio

import rustmq_sdk


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with rustmq_sdk.Client(f"sqlite:///{folder}/parcels.db") as client:
            async with client.producer() as producer:
                await producer.send_batch("parcels", [f"parcel {number}" for number in range(10)])

            await work(client)
            async with client.consumer("parcels", group="packing") as next_run:
                message = await next_run.receive(timeout=10)
                print(f"the next run goes on with {message.text()}, attempt {message.attempt}")


async def work(client: rustmq_sdk.Client) -> None:
    begun = 0

    async def pack(message: rustmq_sdk.Message) -> None:
        nonlocal begun
        begun += 1
        if begun == 4:
            print("SIGTERM arrives while four parcels are being packed")
            os.kill(os.getpid(), signal.SIGTERM)

        await anyio.sleep(0.1)
        print(f"packed {message.text()}")

    async with client.consumer("parcels", group="packing") as consumer:
        with rustmq_sdk.stop_on_signals(consumer):
            await consumer.run(pack, concurrency=4)

        print("run() has returned; leaving the context commits")


if __name__ == "__main__":
    anyio.run(main, backend=os.getenv("BACKEND", "asyncio"))
