"""Handles messages in batches: one transaction for a hundred readings instead of a hundred transactions.

A message of a batch can be settled by itself; what is left unsettled is acked when the handler returns, and comes again
when it raises.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import anyio

import rustmq_sdk

COUNT = 1000


async def main() -> None:
    with closing(sqlite3.connect(":memory:")) as store:
        store.execute("CREATE TABLE reading (celsius REAL)")
        sizes: list[int] = []

        async def insert(batch: rustmq_sdk.Messages) -> None:
            with store:  # one transaction
                store.executemany("INSERT INTO reading VALUES (?)", [(message.json(),) for message in batch])

            sizes.append(len(batch))
            if sum(sizes) == COUNT:
                consumer.stop()

        async with rustmq_sdk.Client("memory://") as client:
            async with client.producer() as producer:
                await producer.send_batch("thermometer", [str(20 + number % 10) for number in range(COUNT)])

            async with client.consumer("thermometer", group="archive") as consumer:
                await consumer.run(insert, batch_size=100, batch_wait=0.05)

        (count, mean) = store.execute("SELECT count(*), avg(celsius) FROM reading").fetchone()
        print(f"{count} readings in {len(sizes)} transactions, {mean:.1f} degrees on average")


if __name__ == "__main__":
    anyio.run(main, backend=os.getenv("BACKEND", "asyncio"))
