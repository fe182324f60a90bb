"""The recipe of docs/guarantees.md against messages that kill their process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
import pytest

from rustmq_sdk import Message, Reject, RetryPolicy
from rustmq_sdk.drivers import open_driver
from rustmq_sdk.testing import message as make_message

GUARANTEES = Path(__file__).parents[2] / "docs" / "guarantees.md"


def recipe() -> Any:
    blocks = re.findall(r"^```python\n(.*?)^```$", GUARANTEES.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (block,) = (each for each in blocks if "def counted" in each)
    names: dict[str, Any] = {}
    exec(block, names)  # as a reader would copy it
    return names["counted"]


class Killed(BaseException):
    """The process ends here."""


class Process:
    """A store as one process uses it: killed, it writes nothing more."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._alive = True

    async def begin(self, message: Message, raises: BaseException | None = None) -> None:
        """Enters the recipe for the message, and leaves it by the exception."""
        async with recipe()(self, message):
            self._alive = not isinstance(raises, Killed)
            if raises is not None:
                raise raises

    async def get(self, key: str) -> Any:
        return await self._store.get(key)

    async def put(self, key: str, value: bytes, **options: Any) -> Any:
        if not self._alive:
            raise Killed

        return await self._store.put(key, value, **options)


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    async with open_driver(f"sqlite:///{tmp_path}/log.db") as driver:
        yield driver.state_store("begun")


async def test_a_message_that_kills_its_process_is_rejected_the_fourth_time(store: Any) -> None:
    message = make_message(b"poison", offset=7)
    for _ in range(3):
        with pytest.raises(Killed):
            await Process(store).begin(message, Killed())

    with pytest.raises(Reject, match="begun 3 times"):
        await Process(store).begin(message, Killed())

    await Process(store).begin(make_message(b"other", offset=10_007))


async def test_a_message_that_ends_may_come_as_often_as_it_likes(store: Any) -> None:
    for _ in range(10):
        await Process(store).begin(make_message(b"fine", offset=7))


async def test_a_failure_is_an_end_and_left_to_the_retries(store: Any) -> None:
    message = make_message(b"late", offset=7)
    for _ in range(2 * RetryPolicy().max_attempts):
        with pytest.raises(OSError, match="service is down"):
            await Process(store).begin(message, OSError("the service is down"))


async def test_a_cancellation_is_an_end_as_well(store: Any) -> None:
    message = make_message(b"slow", offset=7)
    for _ in range(10):
        with anyio.CancelScope() as scope:
            async with recipe()(Process(store), message):
                scope.cancel()
                await anyio.sleep_forever()

        assert scope.cancelled_caught
