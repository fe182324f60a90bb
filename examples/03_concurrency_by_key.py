"""Many handlers at work at once, and still one message after the other for each key.

Each of four accounts has five movements, and a movement takes 20 ms: one at a time that is 400 ms, with a handler for
each account 100 ms. Within an account none overtakes another.
"""

from __future__ import annotations

import os
from collections import defaultdict

import anyio

import rustmq_sdk

ACCOUNTS = ("ada", "grace", "edsger", "barbara")


async def main() -> None:
    booked: dict[str, list[int]] = defaultdict(list)

    async def book(message: rustmq_sdk.Message) -> None:
        await anyio.sleep(0.02)
        booked[(message.key or b"").decode()].append(message.json())
        if sum(map(len, booked.values())) == 5 * len(ACCOUNTS):
            consumer.stop()  # run() ends when the handlers at work are done

    async with rustmq_sdk.Client("memory://") as client:
        async with client.producer() as producer:
            for movement in range(5):
                for account in ACCOUNTS:
                    await producer.send("movements", str(movement), key=account)

        async with client.consumer("movements", group="ledger") as consumer:
            start = anyio.current_time()
            await consumer.run(book, concurrency=8, ordering="key")
            took = anyio.current_time() - start

    for account, movements in sorted(booked.items()):
        print(f"{account}: {movements}")

    print(f"20 movements of 20 ms in {took * 1000:.0f} ms")


if __name__ == "__main__":
    anyio.run(main, backend=os.getenv("BACKEND", "asyncio"))
