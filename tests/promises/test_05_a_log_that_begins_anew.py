"""Promise 5 where the log itself was made anew below the position: it is said, and nobody goes on by accident."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rustmq_sdk import Consumer, PartitionStopped
from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.drivers.memory.log import build
from rustmq_sdk.slots import AssignmentListener, Capabilities, Fetched, Source, SourceRequest
from rustmq_sdk.values import Assignment, Gone
from tests.promises.stage import TOPIC, TP, Stage, ack, passes, take, take_all

pytestmark = pytest.mark.virtual_time


class Anew:
    """A source whose log has begun anew: the first fetch at the end of the old one says so."""

    def __init__(self, source: Source, position: int) -> None:
        self._source = source
        self._position = position

    @property
    def capabilities(self) -> Capabilities:
        return self._source.capabilities

    @asynccontextmanager
    async def subscribe(self, listener: AssignmentListener) -> AsyncIterator[Any]:
        async with self._source.subscribe(listener) as entered:
            subscription: Any = entered
            fetch = subscription.fetch
            told: list[Assignment] = []

            async def fetch_and_tell(wanted: Collection[Assignment], **limits: Any) -> Sequence[Fetched]:
                found: Sequence[Fetched] = await fetch(wanted, **limits)
                if found or told or not wanted:
                    return found

                (assignment,) = wanted
                told.append(assignment)
                gone = Gone(TP, self._position, self._position, "the topic was created again", restart=0)
                return [Fetched(assignment, (), (), build, self._position, 0, gone=(gone,))]

            subscription.fetch = fetch_and_tell
            yield subscription


@asynccontextmanager
async def consumer(stage: Stage, **options: Any) -> AsyncIterator[Consumer]:
    """Of a topic with three messages, whose end is where another log ended."""
    driver = open_memory(f"memory://{stage.name}")
    request = SourceRequest(topics=[TOPIC], group="g", lease=30, revoke_budget=25)
    async with driver, Consumer(Anew(driver.source(request), 3), group="g", **options) as consumer:
        yield consumer


async def test_the_partition_stops_there_until_somebody_resumes_it_at_the_new_beginning(stage: Stage) -> None:
    stage.send(3)
    lost: list[Gone] = []

    class Observer:
        def on_lost(self, gone: Gone) -> None:
            lost.append(gone)

    async with consumer(stage, observers=[Observer()]) as reader:
        await ack(*await take(reader, 3))
        with pytest.raises(PartitionStopped, match="created again") as stop:
            await reader.receive(10)

        assert "offset 0, where the log begins now" in str(stop.value)
        assert [(gone.first, gone.restart) for gone in lost] == [(3, 0)]
        await passes(5)
        assert stage.committed() == 3, "what was handled of the old log stays committed until somebody decides"
        reader.resume_partitions([TP])
        assert [message.offset for message in await take_all(reader)] == [0, 1, 2]


async def test_it_goes_on_by_itself_where_it_was_told_to(stage: Stage) -> None:
    stage.send(3)
    async with consumer(stage, on_lost="dead_letter", dead_letters=lambda letters: None) as reader:
        await ack(*await take(reader, 3))
        again = await take(reader, 3)
        assert [message.offset for message in again] == [0, 1, 2]
        await ack(again[0])
        await passes(5)
        assert stage.committed() == 1
        assert reader.statistics().lost == 0


async def test_what_is_unsettled_of_the_old_log_can_still_be_settled(stage: Stage) -> None:
    stage.send(3)
    async with consumer(stage) as reader:
        first, *others = await take(reader, 3)
        await ack(*others)
        await passes(5)
        assert stage.committed() == 0
        await first.ack()
        await passes(5)
        assert stage.committed() == 3
