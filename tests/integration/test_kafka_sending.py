"""Sending to a real Kafka: who we are, what is stored, and that it is stored once."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import pytest

from rustmq_sdk import Client
from rustmq_sdk.drivers import kafka as kafka_driver
from rustmq_sdk.drivers.kafka.connecting import Address, Connections
from rustmq_sdk.drivers.kafka.encoding import CODECS
from rustmq_sdk.errors import (
    AuthenticationFailed,
    ConfigurationError,
    DriverError,
    PermanentDriverError,
    TransientDriverError,
    UnknownTopic,
)
from rustmq_sdk.slots import Driver
from rustmq_sdk.values import OutgoingMessage, ProducerSequence
from tests.kafka.reading import AT_ONCE, SOON, until
from tests.services.certificates import certify
from tests.services.kafka_server import KafkaServer
from tests.services.ports import HOST
from tests.services.programs import OPENSSL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
async def driver(kafka: KafkaServer) -> AsyncIterator[Driver]:
    async with kafka_driver.open(f"kafka://{kafka.bootstrap}") as driver:
        yield driver


def url(kafka: KafkaServer, listener: str, **options: str) -> str:
    known = {"tls": {"tls": "true", "ca": str(kafka.certificates / "ca.pem")}}
    given = {**(known["tls"] if "tls" in listener else {}), **options}
    if listener == "mtls" and "certificate" not in given:
        pem = kafka.certificates
        given |= {"certificate": str(pem / "client.pem"), "key": str(pem / "client.key")}

    user = f"{kafka.user}:{kafka.password}@" if "sasl" in given else ""
    return f"kafka://{user}{kafka.address(listener)}?{urlencode(given)}"


async def read(kafka: KafkaServer, topic: str, count: int) -> list[Any]:
    """The records of partition 0, by aiokafka itself."""

    async def consume() -> list[Any]:
        from aiokafka import AIOKafkaConsumer, TopicPartition

        async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest") as consumer:
            consumer.assign([TopicPartition(topic, 0)])
            found = [await consumer.getone() for _ in range(count)]
            rest = await consumer.getmany(timeout_ms=50)
            return found + [record for records in rest.values() for record in records]

    return await anyio.to_thread.run_sync(asyncio.run, consume())


WAYS = [
    ("plain", {}),
    ("sasl", {"sasl": "PLAIN"}),
    ("sasl", {"sasl": "SCRAM-SHA-256"}),
    ("sasl", {"sasl": "SCRAM-SHA-512"}),
    ("tls", {}),
    ("mtls", {}),
    ("sasl-tls", {"sasl": "SCRAM-SHA-512"}),
    ("plain", {"thread": "true"}),
]


@pytest.mark.parametrize(("listener", "options"), WAYS)
async def test_a_message_is_sent_by_every_listener_and_no_line_of_the_log_has_the_password(
    kafka: KafkaServer, listener: str, options: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    topic = await kafka.new_topic("listener")
    async with Client(url(kafka, listener, **options)) as client, client.producer() as producer:
        sent = await producer.send(topic, b"hello", key=b"k", headers=[("h", None), ("h", b"\xff")])

    assert (sent.partition, sent.offset) == (0, 0)
    (record,) = await read(kafka, topic, 1)
    assert (record.value, record.key, record.headers) == (b"hello", b"k", (("h", None), ("h", b"\xff")))
    assert caplog.records
    assert kafka.password not in caplog.text
    if "sasl" in options:
        assert "SaslHandShake" in caplog.text, "requests are logged, or this test shows nothing"
        assert f"mechanism='{options['sasl']}'" in caplog.text
        assert "(hidden)" in caplog.text


REFUSALS: list[tuple[str, dict[str, str], type[DriverError], str]] = [
    ("sasl", {"sasl": "PLAIN", "password": "not-the-one"}, AuthenticationFailed, "password"),
    ("sasl", {"sasl": "SCRAM-SHA-256", "password": "not-the-one"}, AuthenticationFailed, "password"),
    ("sasl", {"sasl": "SCRAM-SHA-512", "user": "nobody", "password": "not-the-one"}, AuthenticationFailed, "password"),
    ("plain", {"sasl": "PLAIN"}, AuthenticationFailed, "knows no users"),
    ("tls", {"ca": ""}, PermanentDriverError, "ca=PATH"),
    ("mtls", {"certificate": ""}, AuthenticationFailed, "certificate=PATH"),
    ("sasl", {}, TransientDriverError, "sasl="),
    ("plain", {"tls": "true"}, TransientDriverError, "tls=true"),
]


@pytest.mark.parametrize(("listener", "options", "kind", "hint"), REFUSALS)
async def test_who_is_not_let_in_is_told_why_at_once(
    kafka: KafkaServer,
    listener: str,
    options: dict[str, str],
    kind: type[DriverError],
    hint: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    given = {"user": kafka.user, "password": kafka.password} if "sasl" in options else {}
    given |= {"tls": "true", "ca": str(kafka.certificates / "ca.pem")} if "tls" in listener else {}
    given = {name: value for name, value in {**given, **options}.items() if value}
    client = Client(f"kafka://{kafka.address(listener)}?{urlencode(given)}")
    with anyio.fail_after(AT_ONCE), pytest.raises(kind) as refusal:
        await client.__aenter__()

    assert hint in str(refusal.value)
    assert kafka.address(listener) in str(refusal.value)
    for secret in (kafka.password, "not-the-one"):
        assert secret not in caplog.text
        assert secret not in repr(refusal.value)


async def test_a_certificate_has_to_name_the_host_unless_the_url_says_otherwise(
    kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def stranger(host: str | bytes | None, *args: Any, **options: Any) -> Any:
        """Another name of the same machine."""
        return resolve("127.0.0.1" if host == "stranger.example" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", stranger)
    there = url(kafka, "tls").replace("//127.0.0.1:", "//stranger.example:")
    with anyio.fail_after(AT_ONCE), pytest.raises(PermanentDriverError, match="as it is named there"):
        await Client(there).__aenter__()

    async with Client(f"{there}&check_hostname=false") as client:
        await client.topics()

    with anyio.fail_after(AT_ONCE), pytest.raises(PermanentDriverError, match="not trusted"):
        await Client(f"kafka://{kafka.address('tls')}?tls=true&check_hostname=false").__aenter__()


async def test_a_private_key_may_be_encrypted(kafka: KafkaServer, tmp_path: Path) -> None:
    key = tmp_path / "encrypted.key"
    encrypt = ("pkcs8", "-topk8", "-in", str(kafka.certificates / "client.key"), "-passout", "pass:key-secret")
    await anyio.run_process([OPENSSL.required(), *encrypt, "-out", str(key)])
    mine = {"certificate": str(kafka.certificates / "client.crt"), "key": str(key)}
    async with Client(url(kafka, "mtls", key_password="key-secret", **mine)) as client:
        await client.topics()

    for wrong in ({}, {"key_password": "not-the-one"}):
        with pytest.raises(ConfigurationError, match="key_password") as refusal:
            await Client(url(kafka, "mtls", **mine, **wrong)).__aenter__()

        assert "not-the-one" not in str(refusal.value)


async def test_servers_that_do_not_answer_are_all_named() -> None:
    client = Client("kafka://127.0.0.1:1,nobody.invalid:9092")
    with anyio.fail_after(SOON), pytest.raises(TransientDriverError) as refusal:
        await client.__aenter__()

    assert "127.0.0.1:1" in str(refusal.value)
    assert "nobody.invalid:9092" in str(refusal.value)


async def test_one_server_that_answers_is_enough(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic()
    for _ in range(4):
        async with Client(f"kafka://127.0.0.1:1,{kafka.bootstrap}") as client:
            assert (await client.topics())[topic] == 1


@contextmanager
def mute_server(folder: Path) -> Iterator[Address]:
    """Takes one connection with TLS, and says nothing more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    over = threading.Event()
    listener = socket.create_server((HOST, 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with context.wrap_socket(connection, server_side=True):
            over.wait()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Address(*listener.getsockname())
    finally:
        over.set()
        thread.join()
        listener.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_connection_that_fails_while_it_is_made_is_closed_whatever_the_broker_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await anyio.to_thread.run_sync(certify, tmp_path)
    loop = asyncio.get_running_loop()
    create, made = loop.create_connection, list[socket.socket]()

    async def create_and_keep(*arguments: Any, **options: Any) -> Any:
        transport, protocol = await create(*arguments, **options)
        made.append(transport.get_extra_info("socket"))
        return transport, protocol

    monkeypatch.setattr(loop, "create_connection", create_and_keep)
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with mute_server(tmp_path) as address:
        connections = Connections({"security_protocol": "SSL", "ssl_context": trust})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connections._connect, address)
            await until(lambda: made)
            tasks.cancel_scope.cancel()

        await until(lambda: made[0].fileno() == -1, within=AT_ONCE)


async def test_a_certificate_that_does_not_exist_is_named(tmp_path: Path) -> None:
    client = Client(f"kafka://127.0.0.1:1?tls=true&ca={tmp_path}/no.pem")
    with pytest.raises(ConfigurationError, match=r"no\.pem"):
        await client.__aenter__()


@pytest.mark.parametrize("compression", CODECS)
async def test_what_is_compressed_is_read_by_others(kafka: KafkaServer, compression: str) -> None:
    topic = await kafka.new_topic()
    payloads = [b"%d" % number * 50 for number in range(100)]
    async with (
        Client(f"kafka://{kafka.bootstrap}?compression={compression}") as client,
        client.producer() as producer,
    ):
        await producer.send_batch(topic, [*payloads, OutgoingMessage(None, b"key")])

    assert [record.value for record in await read(kafka, topic, 101)] == [*payloads, None]


async def test_an_append_larger_than_a_batch_may_be_is_stored_in_order(kafka: KafkaServer, driver: Driver) -> None:
    topic = await kafka.new_topic(configs={"max.message.bytes": "5000"})
    messages = [OutgoingMessage(b"%03d" % number + b"x" * 1000) for number in range(50)]
    sent = await driver.sink().append(topic, 0, messages, sequence=ProducerSequence(b"p", 0))
    assert [one.offset for one in sent] == list(range(50))
    assert [record.value for record in await read(kafka, topic, 50)] == [message.payload for message in messages]
    with pytest.raises(PermanentDriverError, match=r"max\.message\.bytes"):
        await driver.sink().append(topic, 0, [OutgoingMessage(b"x" * 6000)], sequence=None)


async def test_messages_that_a_topic_never_takes_fail_by_themselves(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic(configs={"max.message.bytes": "5000", "cleanup.policy": "compact"})
    told: dict[int, str] = {}

    async def send(number: int) -> None:
        payload = b"%03d" % number + b"x" * (6000 if number == 7 else 10)
        try:
            told[number] = f"at {(await producer.send(topic, payload, key=None if number in (9, 20) else b'k')).offset}"
        except PermanentDriverError as error:
            told[number] = str(error)

    with anyio.fail_after(AT_ONCE):
        async with Client(f"kafka://{kafka.bootstrap}") as client, client.producer() as producer:
            await send(0)
            async with anyio.create_task_group() as tasks:
                for number in range(1, 30):
                    tasks.start_soon(send, number)

    assert "max.message.bytes" in told.pop(7)
    assert "with keys only" in told.pop(9)
    assert "with keys only" in told.pop(20)
    records = await read(kafka, topic, len(told))
    assert {int((record.value or b"")[:3]): f"at {record.offset}" for record in records} == told


async def test_a_compacted_topic_refuses_messages_without_a_key_for_good(kafka: KafkaServer, driver: Driver) -> None:
    topic = await kafka.new_topic(configs={"cleanup.policy": "compact"})
    with pytest.raises(PermanentDriverError, match="with keys only"):
        await driver.sink().append(topic, 0, [OutgoingMessage(b"x")], sequence=None)

    await driver.sink().append(topic, 0, [OutgoingMessage(None, b"key")], sequence=None)


async def test_the_broker_may_set_the_time(kafka: KafkaServer, driver: Driver) -> None:
    topic = await kafka.new_topic(configs={"message.timestamp.type": "LogAppendTime"})
    (sent,) = await driver.sink().append(topic, 0, [OutgoingMessage(b"x", timestamp=5)], sequence=None)
    (record,) = await read(kafka, topic, 1)
    assert sent.timestamp == record.timestamp > 5


async def test_asking_for_a_topic_does_not_make_it_and_create_does(kafka: KafkaServer) -> None:
    name = f"made-{uuid.uuid4().hex[:8]}"
    async with Client(f"kafka://{kafka.bootstrap}") as client, client.producer() as producer:
        with anyio.fail_after(AT_ONCE), pytest.raises(UnknownTopic, match="create=true"):
            await producer.send(name, b"x")

        assert name not in await client.topics()

    async with (
        Client(f"kafka://{kafka.bootstrap}?create=true&partitions=3&replication_factor=1") as client,
        client.producer() as producer,
    ):
        await producer.send(name, b"x", partition=2)
        assert (await client.topics())[name] == 3

    async with Client(f"kafka://{kafka.bootstrap}?create=false") as client, client.producer() as producer:
        with pytest.raises(UnknownTopic):
            await producer.send(f"{name}-not", b"x")


async def test_settings_of_a_topic_are_kafkas_with_underscores(kafka: KafkaServer, driver: Driver) -> None:
    name = f"settings-{uuid.uuid4().hex[:8]}"
    settings = {"retention_ms": 1000, "cleanup.policy": ["compact", "delete"], "preallocate": False}
    await driver.admin().create_topic(name, 1, {**settings, "replication_factor": 1})
    with pytest.raises(ConfigurationError) as refusal:
        await driver.admin().create_topic(f"{name}2", 1, {"retentoin_ms": 1})

    assert (refusal.value.field, refusal.value.fix) == ("retentoin_ms", "Did you mean 'retention_ms'?")
    with pytest.raises(ConfigurationError) as refusal:
        await driver.admin().create_topic(f"{name}2", 1, {"segment_ms": 5, "retention_ms": "soon"})

    assert refusal.value.field == "retention_ms"
    for wrong in ({"replication_factor": 5}, {"replication_factor": 0}, {"retention_ms": object()}):
        with pytest.raises(ConfigurationError):
            await driver.admin().create_topic(f"{name}2", 1, wrong)

    with pytest.raises(ConfigurationError, match="letters, digits"):
        await driver.admin().create_topic("no/name", 1, {})


async def test_a_topic_that_exists_keeps_its_settings_and_what_differs_is_said(
    kafka: KafkaServer, driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    admin = driver.admin()
    configs = {"retention.ms": "1000", "cleanup.policy": "delete,compact", "preallocate": "true"}
    topic = await kafka.new_topic(configs=configs)
    same = {"retention_ms": 1000, "cleanup_policy": ["compact", "delete"], "preallocate": True}
    await admin.create_topic(topic, 1, {**same, "replication_factor": 1})
    await admin.create_topic(topic, 1, {})
    assert not caplog.records

    await admin.create_topic(topic, 1, {**same, "retention_ms": 5, "segment.ms": 7, "replication_factor": 3})
    (record,) = caplog.records
    assert record.__dict__["event"] == "topic_settings_differ"
    assert record.getMessage() == (
        f"topic {topic} exists, and keeps its settings: replication_factor=1 (asked for: 3), retention_ms='1000' "
        "(asked for: '5'), segment.ms='604800000' (asked for: '7'). Change them with Kafka's own tools, or ask for "
        "what there is"
    )
    with pytest.raises(ConfigurationError) as refusal:
        await admin.create_topic(topic, 1, {"retentoin_ms": 1})

    assert (refusal.value.field, refusal.value.fix) == ("retentoin_ms", "Did you mean 'retention_ms'?")
    with pytest.raises(ConfigurationError, match="exists, with 1"):
        await admin.create_topic(topic, 2, {})


async def test_a_topic_that_is_made_again_takes_appends_of_the_same_producer(
    kafka: KafkaServer, driver: Driver
) -> None:
    topic = await kafka.new_topic()
    await driver.sink().append(topic, 0, [OutgoingMessage(b"a")] * 3, sequence=ProducerSequence(b"p", 0))
    await driver.admin().delete_topic(topic)
    with pytest.raises(UnknownTopic):
        await driver.sink().partitions(topic)

    await driver.admin().create_topic(topic, 1, {})
    await driver.sink().append(topic, 0, [OutgoingMessage(b"b")], sequence=ProducerSequence(b"p", 3))
    assert [record.value for record in await read(kafka, topic, 1)] == [b"b"]


async def test_what_is_sent_while_the_broker_is_killed_is_stored_once_and_in_order(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("killed")
    acknowledged: list[int] = []
    back = anyio.Event()

    async def send() -> None:
        while not back.is_set() or len(acknowledged) < before + 20:
            await producer.send(topic, b"%d" % len(acknowledged), key=b"one")
            acknowledged.append(len(acknowledged))

    before = 0
    async with (
        Client(f"kafka://{kafka.bootstrap}") as client,
        client.producer(linger=0.0, send_timeout=120.0) as producer,  # longer than a restart takes
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(send)
        while len(acknowledged) < 20:  # noqa: ASYNC110 - it has to be in full swing, whatever the machine
            await anyio.sleep(0.01)

        await kafka.kill()
        before = len(acknowledged)
        await kafka.restart()
        back.set()

    assert 20 <= before < len(acknowledged)
    stored = [int(record.value) for record in await read(kafka, topic, len(acknowledged))]
    assert stored == acknowledged


async def test_dead_letters_of_a_consumer_are_where_spring_looks_for_them(kafka: KafkaServer) -> None:
    topic = await kafka.new_topic("orders", partitions=2)
    dead = await kafka.new_topic("orders-dead", partitions=2)
    address = f"kafka://{kafka.bootstrap}?dead_letter_headers=spring,kip-1191"
    async with Client(address) as client, client.producer() as producer:
        await producer.send(topic, b"a lamp", key=b"7", headers=[("shop", b"north")], partition=0)
        async with client.consumer(topic, group=f"group-of-{topic}", dead_letter_topic=dead) as consumer:
            await (await consumer.receive(timeout=SOON)).reject("the address is empty")

    (record,) = await read(kafka, dead, 1)
    headers = dict(record.headers)
    assert (record.key, record.value, headers["shop"]) == (b"7", b"a lamp", b"north")
    assert headers["kafka_dlt-original-topic"] == topic.encode()
    assert headers["kafka_dlt-original-partition"] == bytes(4)
    assert headers["kafka_dlt-original-offset"] == bytes(8)
    assert headers["kafka_dlt-exception-message"] == b"the address is empty"
    assert headers["__dlq.errors.group"] == f"group-of-{topic}".encode()
