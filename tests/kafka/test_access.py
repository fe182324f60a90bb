"""Who may read, and what is said at once to those who may not."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import anyio
import pytest

import rustmq_sdk
from rustmq_sdk.errors import AuthenticationFailed, PermanentDriverError, UnknownTopic
from tests.kafka.reading import AT_ONCE, consuming, send_numbers, settle, until
from tests.services.certificates import certify
from tests.services.kafka_server import KafkaServer

pytestmark = pytest.mark.slow

WAYS = [
    ("sasl", "PLAIN", "asyncio"),
    ("sasl", "SCRAM-SHA-256", "trio"),
    ("sasl", "SCRAM-SHA-512", "asyncio"),
    ("tls", None, "trio"),
    ("mtls", None, "asyncio"),
    ("sasl-tls", "SCRAM-SHA-512", "trio"),
]


def secure(kafka: KafkaServer, listener: str, sasl: str | None = None, **changed: str) -> str:
    """The URL of a listener, with what it takes, or something else instead."""
    pem = kafka.certificates
    given: dict[str, str] = {"tls": "true", "ca": str(pem / "ca.pem")} if "tls" in listener else {}
    if listener == "mtls":
        given |= {"certificate": str(pem / "client.pem"), "key": str(pem / "client.key")}

    password = changed.pop("password", kafka.password)
    user = ""
    if sasl is not None:
        given["sasl"] = sasl
        user = f"{kafka.user}:{password}@"

    return f"kafka://{user}{kafka.address(listener)}?{urlencode({**given, **changed})}"


@pytest.mark.parametrize(("listener", "sasl", "anyio_backend"), WAYS)
async def test_a_group_reads_and_commits_by_every_listener(kafka: KafkaServer, listener: str, sasl: str | None) -> None:
    topic = await kafka.new_topic("access", partitions=2)
    await send_numbers(f"kafka://{kafka.bootstrap}", topic, range(10))
    async with consuming(secure(kafka, listener, sasl), topic, group=topic) as consumer:
        assert sorted(await settle(consumer, 10)) == list(range(10))
        await consumer.commit()
        assert sum((await consumer.get_lag()).values()) == 0


@pytest.mark.parametrize("sasl", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_said_at_once(kafka: KafkaServer, sasl: str) -> None:
    url = secure(kafka, "sasl-tls", sasl, password="wrong-secret")
    with anyio.fail_after(AT_ONCE), pytest.raises(AuthenticationFailed, match="password") as caught:
        async with rustmq_sdk.Client(url) as client, client.consumer("any", group="any"):
            pass

    assert "wrong-secret" not in str(caught.value)


async def test_a_wrong_authority_is_said_at_once(kafka: KafkaServer, tmp_path: Path) -> None:
    await anyio.to_thread.run_sync(certify, tmp_path)
    url = secure(kafka, "tls", ca=str(tmp_path / "ca.pem"))
    with anyio.fail_after(AT_ONCE), pytest.raises(PermanentDriverError, match="not trusted"):
        async with rustmq_sdk.Client(url) as client, client.consumer("any", group="any"):
            pass


async def test_an_unknown_topic_is_said_at_once(kafka: KafkaServer) -> None:
    async with rustmq_sdk.Client(f"kafka://{kafka.bootstrap}") as client:
        with anyio.fail_after(AT_ONCE), pytest.raises(UnknownTopic, match=r"'no-such-topic'.*create=true"):
            async with client.consumer("no-such-topic", group="any"):
                pass

        assert "no-such-topic" not in await client.topics()


async def test_a_missing_topic_is_made_where_the_url_says_so(kafka: KafkaServer) -> None:
    topic = f"{await kafka.new_topic('made')}-by-the-reader"
    async with consuming(f"kafka://{kafka.bootstrap}?create=true&partitions=3", topic, group=topic) as consumer:
        await until(lambda: len(consumer.assigned_partitions) == 3)
