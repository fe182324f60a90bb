"""The recipe of docs/guarantees.md against messages that kill their process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rustmq_sdk import Message, Reject
from rustmq_sdk.drivers import open_driver
from rustmq_sdk.testing import message as make_message

GUARANTEES = Path(__file__).parents[2] / "docs" / "guarantees.md"


def recipe() -> Any:
    (block,) = re.findall(r"^```python\n(.*?)^```$", GUARANTEES.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)  # as a reader would copy it
    return names["counted"]


class Killed(BaseException):
    """The process ends here: nothing that stands behind it is done."""


async def begin(store: Any, message: Message, *, dies: bool) -> None:
    async with recipe()(store, message):
        if dies:
            raise Killed


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    async with open_driver(f"sqlite:///{tmp_path}/log.db") as driver:
        yield driver.state_store("begun")


async def test_a_message_that_kills_its_process_is_rejected_the_fourth_time(store: Any) -> None:
    message = make_message(b"poison", offset=7)
    for _ in range(3):
        with pytest.raises(Killed):
            await begin(store, message, dies=True)

    with pytest.raises(Reject, match="begun 3 times"):
        await begin(store, message, dies=True)

    await begin(store, make_message(b"other", offset=10_007), dies=False)


async def test_a_message_that_ends_may_come_as_often_as_it_likes(store: Any) -> None:
    for _ in range(10):
        await begin(store, make_message(b"fine", offset=7), dies=False)
