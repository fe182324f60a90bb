"""Promise 13, its other end: whoever gives up entering does not wait for the broker, and errors come as themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest

from rustmq_sdk import Consumer, Message
from rustmq_sdk.slots import AnySubscription, AssignmentListener, Capabilities
from rustmq_sdk.testing import Fault
from tests.promises.stage import Plan, Stage, ack, in_background, numbered, passes, take, take_all, texts

pytestmark = pytest.mark.virtual_time


class Unreachable:
    """A source that never connects."""

    capabilities = Capabilities(kind="log", read=True)

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[AnySubscription]:
        await anyio.sleep_forever()
        yield cast(AnySubscription, None)


async def test_a_cancelled_connect_does_not_wait_for_the_broker() -> None:
    start = anyio.current_time()
    with anyio.move_on_after(5):
        async with Consumer(Unreachable(), group="g"):
            raise AssertionError("it cannot be entered")

    assert anyio.current_time() - start == pytest.approx(5, abs=0.1)


async def test_a_base_exception_of_a_handler_ends_run_as_itself_and_releases(either: Stage) -> None:
    class Stop(BaseException):
        pass

    either.send(3)

    async def handler(message: Message) -> None:
        raise Stop

    async with either.consumer() as consumer:
        with pytest.raises(Stop):
            await consumer.run(handler, concurrency=2)

        again = await take_all(consumer)
        assert sorted(texts(again)) == numbered(3)
        assert {message.attempt for message in again} == {1}


async def test_leaving_does_not_wait_for_what_close_waits_for(stage: Stage) -> None:
    stage.send(1)
    async with anyio.create_task_group() as group:
        async with stage.consumer() as consumer:
            await take(consumer, 1)
            await in_background(group, consumer.close)
            start = anyio.current_time()

        # Nobody can settle it any more: only this task had it.
        assert anyio.current_time() - start < 1


async def test_a_commit_that_hangs_at_first_is_waited_for(stage: Stage) -> None:
    stage.plan = Plan(Fault("source.commit", "hang", seconds=3))
    stage.send(4)
    async with stage.consumer() as consumer:
        await ack(*(await take(consumer, 4)))

    assert stage.committed() == 4


async def test_the_partitions_need_not_have_come_yet(stage: Stage) -> None:
    stage.plan.breaks("source.committed", kind="hang")
    stage.send(1)
    async with stage.consumer():
        await passes(3)
        start = anyio.current_time()

    assert anyio.current_time() - start <= 25
