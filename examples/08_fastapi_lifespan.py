"""A web application that sends what it is asked to, and consumes beside that, for as long as it lives.

The server owns the signals, so there is no ``stop_on_signals``. Needs fastapi, and httpx to ask itself.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
from fastapi import FastAPI

import rustmq_sdk

mailed: list[str] = []


async def mail(message: rustmq_sdk.Message) -> None:
    mailed.append(message.text())


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with (
        rustmq_sdk.Client("memory://") as client,
        client.producer() as producer,
        client.consumer("signups", group="mailer") as consumer,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(consumer.run, mail)
        app.state.producer, app.state.consumer = producer, consumer
        yield
        consumer.stop()  # run() finishes what is in flight; the contexts commit and close


app = FastAPI(lifespan=lifespan)


@app.post("/signups/{name}", status_code=202)
async def sign_up(name: str) -> dict[str, int | None]:
    sent = await app.state.producer.send("signups", name)
    return {"offset": sent.offset}  # durable: we may promise it


async def main() -> None:
    async with lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as http:
        for name in ("ada", "grace"):
            print((await http.post(f"/signups/{name}")).json())

        while len(mailed) < 2:  # noqa: ASYNC110  # the mailer works beside us
            await anyio.sleep(0.01)

        print("mailed:", mailed)


if __name__ == "__main__":
    anyio.run(main, backend=os.getenv("BACKEND", "asyncio"))
