"""What a user reads on stderr: our words, and none of aiokafka's beside them."""

from __future__ import annotations

import logging
import secrets

import pytest

import rustmq_sdk
from tests.kafka.reading import SOON, consuming, on_asyncio, until
from tests.services.kafka_server import KafkaServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_missing_topic_is_said_once(kafka: KafkaServer, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(rustmq_sdk.UnknownTopic, match="ordesr"):
        async with consuming(f"kafka://{kafka.bootstrap}", f"ordesr-{secrets.token_hex(4)}", group="ordesr"):
            pass

    assert said(caplog) == []


@on_asyncio
@pytest.mark.parametrize("group", [True, False], ids=["group", "no-group"])
async def test_a_topic_that_is_deleted_is_said_once(
    kafka: KafkaServer, group: bool, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await kafka.new_topic("deleted")
    url = f"kafka://{kafka.bootstrap}"
    async with consuming(url, topic, group=topic if group else None) as consumer:
        await until(lambda: consumer.assigned_partitions)
        async with rustmq_sdk.Client(url) as client:
            await client.delete_topic(topic)

        await until(lambda: said(caplog))
        await until(lambda: not consumer.health().ok)
        await until(lambda: not consumer.assigned_partitions)

    assert [line for line in said(caplog) if topic in line] == [
        f"topic '{topic}' does not exist; waiting until somebody creates it"
    ]


async def test_a_rebalance_is_no_warning(kafka: KafkaServer, caplog: pytest.LogCaptureFixture) -> None:
    topic = await kafka.new_topic("joined", partitions=2)
    url = f"kafka://{kafka.bootstrap}"
    async with consuming(url, topic, group=topic) as first:
        await until(lambda: len(first.assigned_partitions) == 2)
        async with consuming(url, topic, group=topic) as second:
            await until(lambda: second.assigned_partitions)

        await until(lambda: len(first.assigned_partitions) == 2)

    assert said(caplog) == []


@on_asyncio
@pytest.mark.parametrize(
    ("query", "lease", "named"), [("", 3000.0, "lease"), ("?session_timeout=3000", 30.0, "session_timeout")]
)
async def test_a_session_that_brokers_refuse_is_named_as_it_was_given(
    kafka: KafkaServer, query: str, lease: float, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await kafka.new_topic("long")
    with pytest.raises(rustmq_sdk.ConfigurationError, match=f"^{named}=3000.0: .* Choose {named} between"):
        async with consuming(f"kafka://{kafka.bootstrap}{query}", topic, group=topic, lease=lease) as consumer:
            await consumer.receive(timeout=SOON)

    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert record.exc_info is None, "what is raised needs no traceback in the log as well"
