"""A position that the log does not have, while things change: a seek, a revoke. asyncio only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition as KafkaPartition

from rustmq_sdk.drivers.kafka.gaps import Gaps
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.slots import Fetched
from rustmq_sdk.values import Assignment, TopicPartition

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

ONE, LATER = (Assignment(TopicPartition("t", 0), epoch) for epoch in (1, 2))
ON_ONE = KafkaPartition("t", 0)


class Log:
    """A consumer, and the offsets of the log, which are 100 to 200.

    Attributes:
        sought: where it was told to read on.
        meanwhile: happens while the broker is asked.
    """

    def __init__(self) -> None:
        self.sought: list[int] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def seek(self, partition: KafkaPartition, offset: int) -> None:
        self.sought.append(offset)

    async def start(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.meanwhile()
        return dict.fromkeys(partitions, 100)

    async def end(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 200)


def gaps_at(position: int) -> tuple[Log, Holdings, Gaps]:
    log: Any = Log()
    holdings = Holdings()
    holdings.take({ONE: position}, 1)
    return log, holdings, Gaps(log, holdings, log)


async def told(gaps: Gaps) -> Fetched | None:
    """What comes of a position that is out of range."""
    answered = asyncio.Event()
    gaps.out_of_range(ONE, ON_ONE, answered.set)
    assert not gaps.answers([ONE], 1000)
    await answered.wait()
    found = gaps.answers([ONE], 1000)
    assert not gaps.is_asked(ONE)
    return found[0] if found else None


async def test_what_retention_took_is_told_and_passed() -> None:
    log, holdings, gaps = gaps_at(50)
    found = await told(gaps)
    assert found is not None
    assert [(gone.first, gone.end) for gone in found.gone] == [(50, 100)]
    assert (log.sought, holdings.position(ONE)) == ([100], 100)


async def test_a_position_that_is_there_after_all_is_read_on_from() -> None:
    log, holdings, gaps = gaps_at(150)
    assert await told(gaps) is None
    assert (log.sought, holdings.position(ONE)) == ([150], 150)


async def test_a_position_beyond_the_end_is_told_and_stays() -> None:
    log, holdings, gaps = gaps_at(250)
    found = await told(gaps)
    assert found is not None
    assert [(gone.first, gone.restart) for gone in found.gone] == [(250, 100)]
    assert (log.sought, holdings.position(ONE)) == ([], 250)


@pytest.mark.parametrize("position", [50, 150, 250])
@pytest.mark.parametrize("happens", ["a seek", "a move", "a revoke", "a loss"])
async def test_an_answer_that_came_too_late_says_nothing_and_moves_nothing(position: int, happens: str) -> None:
    log, holdings, gaps = gaps_at(position)
    changes: dict[str, Callable[[], object]] = {
        "a seek": lambda: holdings.rename(ONE, LATER, 120),
        "a move": lambda: holdings.move(ONE, 130),
        "a revoke": holdings.revoke,
        "a loss": lambda: holdings.drop([ONE]),
    }
    log.meanwhile = changes[happens]
    assert await told(gaps) is None
    assert log.sought == []
    if happens == "a seek":
        assert holdings.position(LATER) == 120
    elif happens == "a move":
        assert holdings.position(ONE) == 130
