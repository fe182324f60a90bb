"""The pure parts of consuming from Kafka: what is subscribed to, which times fit, what is ours, what was committed."""

from __future__ import annotations

import base64
from typing import Any

import pytest

pytest.importorskip("aiokafka")

from aiokafka import TopicPartition as KafkaPartition

from rustmq_sdk.drivers.kafka import metadata
from rustmq_sdk.drivers.kafka.holdings import Holdings
from rustmq_sdk.drivers.kafka.options import KafkaOptions
from rustmq_sdk.drivers.kafka.source import KafkaSource
from rustmq_sdk.drivers.kafka.timing import MARGIN, REQUEST_MARGIN, Timing
from rustmq_sdk.drivers.kafka.topics import read_topics
from rustmq_sdk.errors import ConfigurationError
from rustmq_sdk.slots import SourceRequest
from rustmq_sdk.values import Assignment, TopicPartition

# What is subscribed to


def test_topics_patterns_and_partitions_are_told_apart() -> None:
    assert read_topics(["orders", "refunds"]).names == ["orders", "refunds"]
    pattern = read_topics([r"^orders-\d+$"]).pattern
    assert pattern is not None
    assert pattern.match("orders-17")
    assert read_topics(["orders[0]", "orders[12]"]).partitions == [
        KafkaPartition("orders", 0),
        KafkaPartition("orders", 12),
    ]


@pytest.mark.parametrize(
    "topics",
    [
        ["^orders", "refunds"],
        ["^a", "^b"],
        ["orders[0]", "refunds"],
        ["^orders("],
        ["orders[1"],
        ["a b"],
        [".."],
        ["x" * 250],
    ],
)
def test_what_is_mixed_or_malformed_is_refused(topics: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="topics"):
        read_topics(topics)


# Times


def timing(lease: float = 30.0, budget: float = 25.0, **options: Any) -> Timing:
    request = SourceRequest(topics=["t"], group="g", lease=lease, revoke_budget=budget)
    return Timing.of(KafkaOptions(servers=("localhost:9092",), **options), request)


@pytest.mark.parametrize(("lease", "budget"), [(30.0, 25.0), (6.0, 5.0), (10.0, 60.0), (300.0, 1.0)])
def test_times_fit_each_other_whatever_the_consumer_asks_for(lease: float, budget: float) -> None:
    times = timing(lease, budget)
    assert times.heartbeat * 3 < times.session == lease
    assert budget + MARGIN <= times.rebalance
    assert times.rebalance + REQUEST_MARGIN <= times.request


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"rebalance_timeout": 25.0}, "rebalance_timeout"),
        ({"rebalance_timeout": 30.0, "request_timeout": 30.0}, "request_timeout"),
    ],
)
def test_times_that_cannot_work_are_refused(options: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        timing(**options)

    assert refusal.value.field == field


# What the client is told


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_reader_says_where_it_is_and_what_it_wants_to_see() -> None:
    options = KafkaOptions(servers=("localhost:9092",), client_rack="a", isolation="read_committed", fetch_max_wait=0.1)
    request = SourceRequest(topics=["t"], group="g", lease=30.0, revoke_budget=25.0)
    consumer = KafkaSource(options, request, create=print)._consumer("g")
    assert (consumer._client_rack, consumer._isolation_level) == ("a", "read_committed")
    assert (consumer._fetch_max_wait_ms, consumer._auto_offset_reset) == (100, "none")
    await consumer.stop()


# What was committed


@pytest.mark.parametrize("extra", [b"", b"\x01", bytes(range(256)), bytes(metadata.ROOM)])
def test_what_is_committed_beside_an_offset_comes_back(extra: bytes) -> None:
    text = metadata.as_text(extra)
    assert len(text) <= metadata.LIMIT
    assert metadata.as_bytes(text) == extra


@pytest.mark.parametrize("text", ["somebody else's", "é", "====", "a" * 4096])
def test_what_somebody_else_committed_is_no_checkpoint_and_no_crash(text: str) -> None:
    read = metadata.as_bytes(text)
    assert read in (text.encode(), base64.b64decode(text) if text == "a" * 4096 else None)


def test_nothing_is_nothing() -> None:
    assert metadata.as_bytes(None) == metadata.as_bytes("") == b""


# What is ours

A, B = (Assignment(TopicPartition("t", number), 1) for number in (0, 1))
A2, B2 = (Assignment(TopicPartition("t", number), 2) for number in (0, 1))
ON_A, ON_B = KafkaPartition("t", 0), KafkaPartition("t", 1)


@pytest.fixture
def holdings() -> Holdings:
    holdings = Holdings()
    assert holdings.take({A: 10, B: 20}, 1) == {ON_A: 10, ON_B: 20}
    return holdings


def test_what_is_held_is_delivered_and_committed(holdings: Holdings) -> None:
    assert list(holdings.wanted([A, B, A2])) == [(A, ON_A), (B, ON_B)]
    assert (holdings.position(A), holdings.generation) == (10, 1)
    holdings.move(A, 15)
    assert holdings.position(A) == 15
    assert holdings.may_commit(A)
    assert not holdings.may_commit(A2)


def test_what_is_revoked_is_committed_until_it_is_released(holdings: Holdings) -> None:
    assert holdings.revoke() == [A, B]
    assert list(holdings.wanted([A, B])) == []
    assert holdings.may_commit(A)
    holdings.release()
    assert not holdings.may_commit(A)
    assert holdings.released == {A, B}


def test_what_was_released_stays_open_when_the_rebalance_begins_anew(holdings: Holdings) -> None:
    for _ in range(2):
        holdings.revoke()
        holdings.release()

    assert holdings.released == {A, B}


def test_what_comes_back_is_held_and_nothing_is_left_open(holdings: Holdings) -> None:
    holdings.revoke()
    holdings.release()
    holdings.drop([B])
    assert holdings.released == {A}
    assert holdings.take({A2: 12}, 2) == {ON_A: 12}
    assert (set(holdings.held), holdings.released) == ({A2}, set())


def test_a_seek_moves_what_is_held(holdings: Holdings) -> None:
    assert holdings.rename(A, A2, 3) == ON_A
    assert (set(holdings.held), holdings.position(A2)) == ({A2, B}, 3)


def test_a_seek_of_what_is_on_its_way_out_keeps_it_there(holdings: Holdings) -> None:
    holdings.revoke()
    assert holdings.rename(A, A2, 3) is None
    assert holdings.may_commit(A2)
    holdings.release()
    assert holdings.rename(B, B2, 4) is None
    assert holdings.released == {A2, B2}


def test_a_seek_that_comes_before_its_assignment_was_taken_is_not_lost() -> None:
    holdings = Holdings()
    third = Assignment(A.tp, 3)
    assert holdings.rename(A, A2, 5) is None
    assert holdings.rename(A2, third, 7) is None
    assert holdings.take({A: 0, B: 0}, 1) == {ON_A: 7, ON_B: 0}
    assert set(holdings.held) == {third, B}
    assert holdings.position(third) == 7
