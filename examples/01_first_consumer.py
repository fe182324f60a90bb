"""Sends three messages to a log in a file, and receives and acknowledges them.

The second consumer finds only what came since: the position of the group is in the file as well.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import anyio

import rustmq_sdk


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "visitors.db")
        async with rustmq_sdk.Client(f"sqlite:///{path}") as client:
            await welcome(client, "Ada", "Grace", "Edsger")
            await welcome(client, "Barbara")


async def welcome(client: rustmq_sdk.Client, *names: str) -> None:
    async with client.producer() as producer:
        for name in names:
            sent = await producer.send("visitors", name, key=name)
            print(f"sent {name}, stored at offset {sent.offset}")

    async with client.consumer("visitors", group="greeter") as consumer:
        for _ in names:
            message = await consumer.receive(timeout=10)
            print(f"Hello {message.text()}! You are number {message.offset}.")
            await message.ack()


if __name__ == "__main__":
    anyio.run(main, backend=os.getenv("BACKEND", "asyncio"))
