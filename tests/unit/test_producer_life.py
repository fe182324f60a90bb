"""A producer's life: entered once, cancelled anywhere, left in time, and nothing it was given is lost silently."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from rustmq_sdk import (
    ConfigurationError,
    ConsumerStateError,
    OutcomeUnknown,
    Producer,
    SentMessage,
    TransientDriverError,
)
from rustmq_sdk._runtime.dispatcher import SENDERS
from tests.unit.producer_bench import Bench, hang
from tests.unit.producer_bench import bench as bench

pytestmark = pytest.mark.virtual_time


class TestCancellation:
    async def test_a_cancelled_send_takes_nothing_from_others_and_doubles_nothing(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        results: list[SentMessage] = []

        async def send(producer: Producer, name: str) -> None:
            results.append(await producer.send("t", name))

        async with bench.producer() as producer, anyio.create_task_group() as tasks:
            tasks.start_soon(send, producer, "before")
            await checkpoint()
            with anyio.move_on_after(0.5):
                await producer.send("t", "cancelled")

            tasks.start_soon(send, producer, "after")

        stored = bench.stored()
        assert [stored[result.offset or 0] for result in results] == ["before", "after"]
        assert sorted(stored) in (["after", "before"], ["after", "before", "cancelled"])

    async def test_a_cancelled_wait_for_room_gives_its_place_to_the_next(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        async with bench.producer(max_buffered=2, batch_size=2) as producer, anyio.create_task_group() as tasks:
            tasks.start_soon(producer.send_batch, "t", ["a", "b"])
            await checkpoint()
            waiting = anyio.CancelScope()

            async def give_up() -> None:
                with waiting:
                    await producer.send_batch("t", ["x", "y"])

            tasks.start_soon(give_up)
            await checkpoint()
            tasks.start_soon(producer.send, "t", "c")
            await checkpoint()
            waiting.cancel()

        assert bench.stored() == ["a", "b", "c"]

    async def test_a_cancelled_flush_leaves_its_messages_to_the_next(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        async with bench.producer() as producer:
            producer.send_nowait("t", "a")
            with anyio.move_on_after(0.5):
                await producer.flush()

            await producer.flush()
            assert bench.stored() == ["a"]

    async def test_a_cancelled_block_still_sends_what_it_was_given(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        with anyio.CancelScope() as scope:
            async with bench.producer() as producer:
                producer.send_nowait("t", "a")
                scope.cancel()
                await checkpoint()

        assert bench.stored() == ["a"]

    async def test_native_cancellation_of_asyncio_loses_nothing_either(
        self, bench: Bench, anyio_backend_name: str
    ) -> None:
        if anyio_backend_name != "asyncio":
            pytest.skip("trio has no cancellation but scopes")

        bench.wire.seconds = 1.0

        async def block() -> None:
            async with bench.producer() as producer:
                producer.send_nowait("t", "a")
                async with asyncio.timeout(0.5):
                    await producer.send("t", "b")

        with pytest.raises(TimeoutError):
            await block()

        task = asyncio.create_task(block())
        await anyio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert sorted(bench.stored()) == ["a", "a", "b", "b"]


class TestLife:
    async def test_leaving_sends_what_waits(self, bench: Bench) -> None:
        async with bench.producer(linger=3600) as producer:
            for n in range(5):
                producer.send_nowait("t", str(n))

        assert bench.stored() == [str(n) for n in range(5)]

    async def test_leaving_is_bounded_by_the_send_timeout(self, bench: Bench) -> None:
        bench.wire.always = hang
        before = anyio.current_time()

        async def block() -> None:
            async with bench.producer(send_timeout=5) as producer:
                for n in range(1000):
                    producer.send_nowait("t", str(n))

        with pytest.raises(OutcomeUnknown):
            await block()

        assert anyio.current_time() - before <= 6

    async def test_a_send_that_waits_for_room_while_it_is_left_hears_of_it(self, bench: Bench) -> None:
        bench.wire.always = hang
        heard: list[str] = []

        async def send(producer: Producer, name: str) -> None:
            try:
                await producer.send("t", name)
            except (TransientDriverError, OutcomeUnknown):
                heard.append(name)

        settings: dict[str, Any] = {"max_buffered": 1, "batch_size": 1, "send_timeout": 10}
        async with anyio.create_task_group() as tasks, bench.producer(**settings) as producer:
            for name in "abc":
                tasks.start_soon(send, producer, name)
                await anyio.sleep(0.1)

        assert sorted(heard) == ["a", "b", "c"]

    async def test_what_is_in_flight_or_waits_when_a_sink_hangs_for_good_is_not_lost_silently(
        self, bench: Bench
    ) -> None:
        async def deaf(append: Callable[[], Any]) -> Any:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(3600)

        bench.wire.always = deaf

        async def block() -> None:
            async with bench.producer(send_timeout=5, batch_size=1) as producer:
                for name in "ab":
                    producer.send_nowait("t", name)

        with pytest.raises((OutcomeUnknown, TransientDriverError)) as caught:
            await block()

        assert "2 to 't'" in caught.value.__notes__[-1]

    @pytest.mark.parametrize("call", ["send", "send_batch", "send_nowait", "flush"])
    async def test_before_and_after_its_block_every_call_names_the_remedy(self, bench: Bench, call: str) -> None:
        async def use(producer: Producer) -> None:
            result = getattr(producer, call)(
                *(() if call == "flush" else ("t", ["a"] if call == "send_batch" else "a"))
            )
            if call != "send_nowait":
                await result

        producer = bench.producer()
        with pytest.raises(ConsumerStateError, match="Use it inside"):
            await use(producer)

        async with producer:
            pass

        with pytest.raises(ConsumerStateError, match="the producer is closed"):
            await use(producer)

        with pytest.raises(ConsumerStateError, match="closed already"):
            await producer.__aenter__()

    async def test_its_number_of_tasks_does_not_grow_with_messages(self, bench: Bench) -> None:
        bench.wire.seconds = 1.0
        before = len(anyio.get_running_tasks())
        async with bench.producer() as producer:
            for n in range(1000):
                producer.send_nowait("t", str(n))

            await anyio.sleep(0.5)
            assert len(anyio.get_running_tasks()) - before == SENDERS + 1

        assert len(anyio.get_running_tasks()) == before

    async def test_leaving_it_in_another_task_names_the_reason(self, bench: Bench) -> None:
        async with bench.producer() as producer, anyio.create_task_group() as tasks:

            async def leave() -> None:
                with pytest.raises(ConsumerStateError, match="async-generator fixtures of pytest-asyncio"):
                    await producer.__aexit__(None, None, None)

            tasks.start_soon(leave)

    async def test_bad_input_is_refused_before_anything_is_sent(self, bench: Bench) -> None:
        async with bench.producer() as producer:
            with pytest.raises(TypeError, match=r"json\.dumps"):
                await producer.send("t", {"a": 1})  # type: ignore[arg-type]

            with pytest.raises(TypeError, match=r"json\.dumps"):
                producer.send_nowait("t", 5)  # type: ignore[arg-type]

            with pytest.raises(TypeError):
                await producer.send_batch("t", "abc")

            with pytest.raises(ConfigurationError, match="expected a topic's name"):
                await producer.send("", "a")

        assert bench.stored() == []
