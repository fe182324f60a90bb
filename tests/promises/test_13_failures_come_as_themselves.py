"""Promise 13, after a failure: it is raised once, as itself, and what was settled before is committed."""

from __future__ import annotations

import anyio
import pytest

from rustmq_sdk import Consumer, Message, PartitionStopped, PermanentDriverError, RetryPolicy
from rustmq_sdk.drivers.memory import MemoryDriver
from rustmq_sdk.testing import Fault
from tests.promises.hard_shutdowns import Unreachable
from tests.promises.stage import GROUP, Plan, Stage, ack, passes, take


class Refused(Plan):
    """A broker that after a while lets nobody read any more."""

    def __init__(self) -> None:
        super().__init__()
        self.until = anyio.current_time() + 5

    def draw(self, operation: str) -> Fault | None:
        if operation == "source.fetch" and anyio.current_time() > self.until:
            raise PermanentDriverError("you may not read this", slot="source", operation="fetch")

        return super().draw(operation)


@pytest.mark.virtual_time
class TestFailures:
    async def test_a_failure_nobody_has_seen_is_raised_at_the_exit_as_itself(self, stage: Stage) -> None:
        stage.send(3)
        with pytest.raises(PermanentDriverError, match="you may not read this") as caught:
            await self._live(stage, 10)

        assert type(caught.value) is PermanentDriverError
        # What was acked before is committed all the same.
        assert stage.committed() == 2

    async def _live(self, stage: Stage, seconds: float) -> None:
        async with stage.consumer(plan=Refused(), commit_interval=3600) as consumer:
            await ack(*(await take(consumer, 2)))
            await passes(seconds)

    async def test_one_that_was_raised_already_is_not_raised_again(self, stage: Stage) -> None:
        stage.send(3)
        async with stage.consumer(plan=Refused()) as consumer:
            await ack(*(await take(consumer, 3)))
            with pytest.raises(PermanentDriverError):
                await consumer.receive(60)

        assert consumer.health().state == "failed"

    async def test_the_users_own_error_is_not_replaced_by_it(self, stage: Stage) -> None:
        with pytest.raises(KeyError, match="the user's"):
            await self._fail(stage)

    async def _fail(self, stage: Stage) -> None:
        async with stage.consumer(plan=Refused()):
            await passes(20)
            raise KeyError("the user's")

    async def test_run_raises_it_as_itself_when_handlers_have_finished(self, stage: Stage) -> None:
        stage.send(2)
        done: list[str] = []

        async def handler(message: Message) -> None:
            await passes(20)
            done.append(message.text())

        async with stage.consumer(plan=Refused()) as consumer:
            with pytest.raises(PermanentDriverError) as caught:
                await consumer.run(handler, concurrency=4)

            assert type(caught.value) is PermanentDriverError
            assert sorted(done) == ["m0", "m1"]

        assert stage.committed() == 2

    async def test_a_source_that_cannot_be_reached_is_raised_at_the_entry(self, stage: Stage) -> None:
        async with MemoryDriver() as driver:
            with pytest.raises(PermanentDriverError, match="no such host"):
                async with Consumer(Unreachable(driver), group=GROUP):
                    raise AssertionError("it cannot be entered")


@pytest.mark.virtual_time
class TestTracebacks:
    """What a user sees of a failure is the failure and what it comes from, nothing of our own loops."""

    async def test_a_stopped_partition_names_the_handlers_error_as_its_cause(self, stage: Stage) -> None:
        stage.send(1, keys=["k"])
        failure = ValueError("no such order")

        async def handler(message: Message) -> None:
            raise failure

        async with stage.consumer(retry=RetryPolicy(max_attempts=1)) as consumer:
            with pytest.raises(PartitionStopped, match="no such order") as caught:
                await consumer.run(handler)

        assert caught.value.__cause__ is failure
        assert caught.value.__context__ is None

    @pytest.mark.parametrize("receive", ["receive", "async for", "receive_batch", "run"])
    async def test_a_stop_without_a_cause_stands_alone(self, stage: Stage, receive: str) -> None:
        stage.send(1, keys=["k"])
        async with stage.consumer() as consumer:
            await (await consumer.receive(60)).reject("not ours")
            with pytest.raises(PartitionStopped, match="not ours") as caught:
                await _next(consumer, receive)

        assert caught.value.__cause__ is caught.value.__context__ is None

    @pytest.mark.parametrize("receive", ["receive", "async for"])
    async def test_a_cancelled_wait_is_no_second_failure(self, stage: Stage, receive: str) -> None:
        stage.create()
        async with stage.consumer() as consumer:
            with anyio.move_on_after(1), pytest.raises(anyio.get_cancelled_exc_class()) as caught:
                await _next(consumer, receive)

        assert caught.value.__context__ is None


async def _next(consumer: Consumer, receive: str) -> None:
    async def handler(message: Message) -> None:
        raise AssertionError("nothing is left to handle")

    match receive:
        case "receive":
            await consumer.receive()
        case "receive_batch":
            await consumer.receive_batch()
        case "async for":
            await anext(consumer)
        case "run":
            await consumer.run(handler)
