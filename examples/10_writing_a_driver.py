"""A driver of one's own: a text file becomes a log, like ``tail -f`` with acks, retries and a position that is kept.

The driver is in ``driver_parts/text_file.py``. The runtime does the rest: here a line fails once and comes again, and
the second consumer goes on where the first one stopped, at a line that was written meanwhile.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import anyio

from driver_parts.text_file import TextFile
from rustmq_sdk import Consumer, RetryPolicy


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "access.log")
        await write(path, "GET /\nGET /about\nGET /favi")  # the third line is not complete yet
        await tail(path, 3)
        await write(path, "con.ico\nPOST /\n")
        await tail(path, 2)


async def write(path: Path, text: str) -> None:
    async with await anyio.open_file(path, "a", encoding="utf-8") as file:
        await file.write(text)


async def tail(path: Path, count: int) -> None:
    source = TextFile(path, group="statistics")
    async with Consumer(source, group="statistics", retry=RetryPolicy(initial=0.01)) as consumer:
        for _ in range(count):
            message = await consumer.receive(timeout=10)
            print(f"byte {message.offset}, attempt {message.attempt}: {message.text()}")
            if message.text() == "GET /" and message.attempt == 1:
                await message.nack()
            else:
                await message.ack()

        print(f"lag: {sum((await consumer.get_lag()).values())} bytes")


if __name__ == "__main__":
    anyio.run(main, backend=os.getenv("BACKEND", "asyncio"))
