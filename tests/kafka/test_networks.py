"""A network that is cut, slow, or half-open: the circuit opens and closes, nothing is lost, and nothing hangs."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

import rustmq_sdk
from rustmq_sdk._runtime import partitions
from tests.kafka.awake import Awake
from tests.kafka.reading import (
    SOON,
    Events,
    consuming,
    on_trio,
    options,
    send_numbers,
    settle,
    until,
    until_committed,
)
from tests.services.kafka_server import KafkaServer
from tests.services.proxy import OFFSET_COMMIT, Proxy, failed_commit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TIMES = "rebalance_timeout=2.1&request_timeout=2.5"
"""A half-open connection is given up when an answer is overdue."""
LEASE, CLOSE = 6.0, 2.0
LIST_OFFSETS, OFFSET_FETCH = 2, 9


def reasons(consumer: rustmq_sdk.Consumer) -> set[str]:
    return {reason.code for reason in consumer.health().reasons}


@pytest.mark.parametrize(
    ("trouble", "anyio_backend"), [(Proxy.cut, "asyncio"), (Proxy.freeze, "trio")], ids=["cut", "half-open"]
)
async def test_a_lost_network_opens_the_circuit_and_nothing_is_lost(
    kafka: KafkaServer, network: Proxy, trouble: Callable[[Proxy], None]
) -> None:
    topic = await kafka.new_topic("network", partitions=2)
    direct, through = f"kafka://{kafka.bootstrap}", f"kafka://{network.bootstrap}?{TIMES}"
    events = Events()
    await send_numbers(direct, topic, range(50))
    async with consuming(
        through, topic, group=topic, observers=[events], lease=LEASE, close_timeout=CLOSE, commit_timeout=1.0
    ) as consumer:
        seen = await settle(consumer, 50)
        await until_committed(consumer)
        trouble(network)
        await send_numbers(direct, topic, range(50, 100))
        await until(lambda: "circuit_open" in reasons(consumer))
        assert not consumer.health().ok

        network.mend()
        while set(seen) < set(range(100)):
            seen += await settle(consumer, 1)

        await until_committed(consumer)
        await until(lambda: set(consumer.statistics().circuits.values()) == {"closed"})
        await until(lambda: consumer.health().ok)

    assert sorted(seen) == list(range(100)), "what was committed is not run again"
    assert ("source.fetch", "open") in events.circuits


async def test_an_idle_reader_on_a_half_open_connection_does_not_look_healthy(
    kafka: KafkaServer, network: Proxy
) -> None:
    """A request that is overdue would tell as well, 17 s after it was sent."""
    topic = await kafka.new_topic("idle")
    hasty = options(group=topic, lease=2.0, close_timeout=1.5, commit_timeout=1.0)
    async with consuming(f"kafka://{network.bootstrap}", topic, **hasty) as consumer:
        await until(lambda: consumer.assigned_partitions)
        network.freeze()
        await until(lambda: not consumer.health().ok, within=12)
        assert "heartbeat" in consumer.health().reasons[0].text


@pytest.mark.parametrize("grouped", [True, False], ids=["group", "no group"])
async def test_a_network_that_is_lost_while_partitions_are_assigned_is_waited_for(
    kafka: KafkaServer, network: Proxy, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "ATTEMPTS", 2)
    topic = await kafka.new_topic("assigning")
    await send_numbers(f"kafka://{kafka.bootstrap}", topic, range(10))

    def lose(answer: bytes) -> bytes:
        network.freeze()
        return answer

    network.change(OFFSET_FETCH if grouped else LIST_OFFSETS, lose)
    hasty = options(group=topic if grouped else None, lease=LEASE, close_timeout=CLOSE, commit_timeout=0.3)
    async with consuming(f"kafka://{network.bootstrap}?{TIMES}", topic, **hasty) as consumer:
        await until(lambda: "circuit_open" in reasons(consumer))
        assert any("no answer in time" in reason.text for reason in consumer.health().reasons)
        assert not consumer.assigned_partitions
        network.mend()
        assert sorted(await settle(consumer, 10)) == list(range(10))
        await until(lambda: consumer.health().ok)


@on_trio
async def test_a_slow_network_costs_time_and_nothing_else(kafka: KafkaServer, network: Proxy) -> None:
    topic = await kafka.new_topic("slow", partitions=2)
    network.slow_down(0.1)
    await send_numbers(f"kafka://{kafka.bootstrap}", topic, range(50))
    events = Events()
    async with consuming(f"kafka://{network.bootstrap}", topic, group=topic, observers=[events]) as consumer:
        assert sorted(await settle(consumer, 50)) == list(range(50))
        await consumer.commit()

    assert events.circuits == []


async def test_commits_that_fail_open_the_circuit_though_fetches_answer_nothing(
    kafka: KafkaServer, network: Proxy
) -> None:
    topic = await kafka.new_topic("quiet")
    await send_numbers(f"kafka://{kafka.bootstrap}", topic, range(20))
    events = Events()
    async with consuming(
        f"kafka://{network.bootstrap}", topic, group=topic, observers=[events], commit_timeout=0.3
    ) as consumer:
        await settle(consumer, 10)
        await until_committed(consumer)
        await until(lambda: set(consumer.statistics().circuits.values()) == {"closed"})
        events.circuits.clear()
        # COORDINATOR_LOAD_IN_PROGRESS: aiokafka tries again for as long as it is told that.
        network.change(OFFSET_COMMIT, failed_commit(14))
        await settle(consumer, 10)
        await until(lambda: ("source.settle", "open") in events.circuits)
        await until(lambda: {"circuit_open", "commit_failing"} <= reasons(consumer))
        assert not consumer.health().ok
        with anyio.fail_after(SOON), pytest.raises((rustmq_sdk.CircuitOpen, rustmq_sdk.TransientDriverError)):
            await consumer.commit()

        network.mend()
        await until(lambda: set(consumer.statistics().circuits.values()) == {"closed"})
        await until_committed(consumer)
        assert await consumer.committed_offset(topic, 0) == 20
        await until(lambda: consumer.health().ok)


@pytest.mark.parametrize("trouble", [Proxy.cut, Proxy.freeze], ids=["cut", "half-open"])
async def test_closing_ends_inside_its_deadline_though_nobody_answers(
    kafka: KafkaServer, network: Proxy, trouble: Callable[[Proxy], None]
) -> None:
    topic = await kafka.new_topic("close", partitions=2)
    await send_numbers(f"kafka://{kafka.bootstrap}", topic, range(20))
    with Awake() as clock:
        async with consuming(
            f"kafka://{network.bootstrap}", topic, group=topic, close_timeout=4.0, commit_interval=60.0
        ) as consumer:
            await settle(consumer, 20)
            trouble(network)
            began = clock.seconds

        # The last commit may take 30 %, leaving 10 %; the client closes its connections after that.
        assert clock.seconds - began < 4.0


@pytest.mark.parametrize("trouble", [Proxy.cut, Proxy.freeze], ids=["cut", "half-open"])
async def test_entering_through_a_lost_network_is_an_error_and_no_hang(
    kafka: KafkaServer, network: Proxy, trouble: Callable[[Proxy], None]
) -> None:
    topic = await kafka.new_topic("entering")
    url = f"kafka://{network.bootstrap}?{TIMES}"
    async with rustmq_sdk.Client(url) as client:
        trouble(network)
        with anyio.fail_after(SOON), pytest.raises(rustmq_sdk.TransientDriverError):
            async with client.consumer(
                topic, **options(group=topic, lease=LEASE, close_timeout=CLOSE, commit_timeout=1.0)
            ):
                pass
