"""Goes back to an offset or to a moment, and reads what was handled before once more.

The next commit writes the new place, so the whole group goes on from there, also after a restart.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import anyio

import rustmq_sdk

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


async def main() -> None:
    async with rustmq_sdk.Client("memory://") as client:
        async with client.producer() as producer:
            for number in range(6):
                await producer.send("prices", f"price {number}", timestamp=NOON + number * HOUR)

        async with client.consumer("prices", group="reports") as consumer:
            print("first:", ", ".join(await read(consumer, 6)))

            await consumer.seek("prices", 0, 4)
            print("from offset 4:", ", ".join(await read(consumer, 2)))

            await consumer.seek_all_to_timestamp(NOON + 3 * HOUR)
            print("from three o'clock:", ", ".join(await read(consumer, 3)))

            await consumer.commit()
            print("committed:", await consumer.committed_offset("prices", 0))


async def read(consumer: rustmq_sdk.Consumer, count: int) -> list[str]:
    texts = []
    for _ in range(count):
        message = await consumer.receive(timeout=10)
        texts.append(message.text())
        await message.ack()

    return texts


if __name__ == "__main__":
    anyio.run(main, backend=os.getenv("BACKEND", "asyncio"))
