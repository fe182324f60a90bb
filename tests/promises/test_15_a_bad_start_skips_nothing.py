"""Promise 15: a checkpoint that is damaged, a position that is missing or too high: a start skips nothing."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustmq_sdk import ConsumerStateError, TopicPartition
from rustmq_sdk.testing import BACKENDS, Fault
from rustmq_sdk.testing import run as run_test
from rustmq_sdk.testing.clock import Backend
from rustmq_sdk.values import Checkpoint
from tests.promises.stage import GROUP, TP, Plan, Stage, ack, handle_all, offsets, take, take_all


class TestCheckpoints:
    """What stands beside a committed position may be anything: a start from it skips nothing."""

    @pytest.mark.parametrize("backend", BACKENDS)
    @settings(max_examples=25, deadline=None)
    @given(position=st.integers(0, 12), extra=st.binary(max_size=40))
    def test_random_bytes_beside_a_position_are_a_safe_start(
        self, backend: Backend, position: int, extra: bytes
    ) -> None:
        assert _delivered_from(backend, Checkpoint(position, extra)) == list(range(position, 12))

    @pytest.mark.parametrize("backend", BACKENDS)
    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_a_damaged_checkpoint_is_a_safe_start(self, backend: Backend, data: st.DataObject) -> None:
        extra = bytearray(_real_checkpoint().extra)
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(extra) - 1))
            extra[place] ^= data.draw(st.integers(1, 255))

        damaged = bytes(extra)[: data.draw(st.integers(1, len(extra)))]
        if damaged != _real_checkpoint().extra:
            assert _delivered_from(backend, Checkpoint(2, damaged)) == list(range(2, 12))

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("position", [0, 1, 3, 11])
    def test_a_checkpoint_copied_to_another_position_is_a_safe_start(self, backend: Backend, position: int) -> None:
        copied = Checkpoint(position, _real_checkpoint().extra)
        assert _delivered_from(backend, copied) == list(range(position, 12))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_an_undamaged_one_is_believed(self, backend: Backend) -> None:
        assert _delivered_from(backend, _real_checkpoint()) == [2, 3, 5, 7, 9, 11]


@pytest.mark.virtual_time
class TestStartPositions:
    async def test_error_names_every_partition_nobody_has_committed(self, stage: Stage) -> None:
        stage.create(3)
        stage.broker.group(GROUP).committed[TopicPartition("t", 1)] = Checkpoint(0)
        async with stage.consumer(start="error") as consumer:
            with pytest.raises(ConsumerStateError, match=r"t\[0\], t\[2\]: no committed position in group 'g'") as one:
                await consumer.receive()

            with pytest.raises(ConsumerStateError) as two:
                await consumer.receive()

            assert one.value is two.value
            assert consumer.health().state == "failed"

    async def test_error_starts_where_everything_is_committed(self, stage: Stage) -> None:
        stage.send(5)
        stage.broker.group(GROUP).committed[TP] = Checkpoint(3)
        async with stage.consumer(start="error") as consumer:
            assert await handle_all(consumer) == ["m3", "m4"]

    async def test_an_offset_beyond_the_end_means_the_end_and_is_said(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage.create(2)
        stage.send(4)
        async with stage.consumer(start=2) as consumer:
            assert offsets(await take_all(consumer)) == [2, 3]
            stage.send(["first of all"], partition=1)
            assert await handle_all(consumer) == ["first of all"]

        said = [record for record in caplog.records if getattr(record, "event", "") == "start_beyond_end"]
        assert [record.getMessage() for record in said] == [
            "t[1] ends at offset 0, and start=2 is beyond that: it starts at its end, with what is sent from now on"
        ]
        assert said[0].levelname == "WARNING"

    async def test_a_moment_to_come_means_the_end_and_is_said(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        stage.create(2)
        stage.send(2)
        stage.send(["of then"], partition=1, timestamp=32_503_680_000_000)
        async with stage.consumer(start=datetime(2999, 1, 1, tzinfo=UTC)) as consumer:
            assert [message.text() for message in await take_all(consumer)] == ["of then"]
            assert stage.committed() == 2, "or what is sent during a restart would be skipped"

        said = [record for record in caplog.records if getattr(record, "event", "") == "start_beyond_end"]
        text = (
            "t[0]: start=2999-01-01T00:00:00+00:00 is yet to come: it starts at its end, with what is sent from now on"
        )
        assert [(record.getMessage(), record.levelname) for record in said] == [(text, "WARNING")]

    async def test_the_end_itself_is_a_start_as_any_other(self, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
        stage.send(2)
        async with stage.consumer(start=2) as consumer:
            assert await take_all(consumer) == []
            stage.send(1)
            assert await handle_all(consumer) == ["m2"]

        assert "start_beyond_end" not in [getattr(record, "event", "") for record in caplog.records]

    async def test_what_comes_while_a_consumer_restarts_that_began_beyond_the_end_is_not_skipped(
        self, stage: Stage
    ) -> None:
        stage.send(2)
        async with stage.consumer(start=4) as consumer:
            assert await take_all(consumer) == []

        stage.send(4)
        async with stage.consumer(start=4) as consumer:
            assert await handle_all(consumer) == ["m2", "m3", "m4", "m5"]

    async def test_a_log_that_does_not_say_where_it_ends_is_asked_again(self, stage: Stage) -> None:
        stage.send(2)
        stage.plan = Plan(Fault("source.end_offsets", "refused", 1))
        async with stage.consumer(start=1) as consumer:
            assert offsets(await take_all(consumer)) == [1]


@functools.cache
def _real_checkpoint() -> Checkpoint:
    stage = Stage()

    async def live() -> None:
        stage.send(12)
        async with stage.consumer() as consumer:
            messages = await take(consumer, 12)
            await ack(*(messages[offset] for offset in (0, 1, 4, 6, 8, 10)))

    run_test(live)
    checkpoint = stage.checkpoint()
    stage.close()
    assert checkpoint is not None
    assert checkpoint.offset == 2
    assert checkpoint.extra
    return checkpoint


def _delivered_from(backend: Backend, checkpoint: Checkpoint) -> list[int | None]:
    """The offsets that a consumer gets which starts from there; 12 is the end."""
    stage = Stage()

    async def live() -> list[int | None]:
        stage.send(12)
        stage.broker.group(GROUP).committed[TP] = checkpoint
        async with stage.consumer() as consumer:
            return offsets(await take_all(consumer))

    try:
        return run_test(live, backend=backend)
    finally:
        stage.close()
