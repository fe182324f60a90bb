"""The configuration of a node of Kafka, as text."""

from __future__ import annotations

from collections.abc import Sequence

from tests.services.service import Site

USER = "tests"
# Guards nothing: these servers listen on the loopback address only.
PASSWORD = "tests-secret"

# Listeners besides plain: what each is called in Kafka, and which protocol it speaks.
SECURE = {"sasl": "SASL_PLAINTEXT", "tls": "SSL", "mtls": "SSL", "sasl-tls": "SASL_SSL"}

_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_PLAIN = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'


def properties(site: Site, nodes: Sequence[str], number: int) -> str:
    """For node ``number``, counted from 1, of these; secure listeners where the site has ports for them."""
    node = nodes[number - 1]
    listeners = {"plain": "PLAINTEXT", "controller": "PLAINTEXT"}
    if f"{node}/tls" in site.ports:
        listeners |= SECURE

    spoken = [(_name(listener), listener) for listener in listeners]
    lines = {
        "process.roles": "broker,controller",
        "node.id": str(number),
        "controller.quorum.voters": ",".join(
            f"{voter}@{site.address(peer, 'controller')}" for voter, peer in enumerate(nodes, 1)
        ),
        "listeners": ",".join(f"{name}://{site.address(node, listener)}" for name, listener in spoken),
        "advertised.listeners": ",".join(
            f"{name}://{site.address(node, listener)}" for name, listener in spoken if listener != "controller"
        ),
        "controller.listener.names": _name("controller"),
        "inter.broker.listener.name": _name("plain"),
        "listener.security.protocol.map": ",".join(f"{_name(one)}:{protocol}" for one, protocol in listeners.items()),
        "log.dirs": str(site.node(node) / "data"),
        **_sizes(len(nodes)),
        **(_security(site) if "tls" in listeners else {}),
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def _sizes(nodes: int) -> dict[str, str]:
    replicas, enough = str(nodes), str(nodes // 2 + 1)
    return {
        "default.replication.factor": replicas,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": enough,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": enough,
        # 50 each by default: opening them is most of what the first group and the first transaction wait for.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        # Tests say what a topic is like, and a misspelt name is an error.
        "auto.create.topics.enable": "false",
        # Three seconds by default, for members that start one after the other.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        # Nine seconds by default until a killed node's partitions have a new leader, and until it is let in again.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # Five minutes by default between two looks for what is too old, also of a segment that is being written.
        "log.retention.check.interval.ms": "1000",
        # Room for a test run, not for a year.
        "log.segment.bytes": str(64 * 1024 * 1024),
        "log.index.size.max.bytes": str(1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.recovery.threads.per.data.dir": "1",
        "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),
        # Fifteen seconds by default between two looks for something to compact.
        "log.cleaner.backoff.ms": "500",
    }


def _security(site: Site) -> dict[str, str]:
    folder = site.folder / "certificates"
    lines = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "server.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
        f"listener.name.{_name('mtls').lower()}.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    }
    for listener in ("sasl", "sasl-tls"):
        prefix = f"listener.name.{_name(listener).lower()}"
        lines[f"{prefix}.plain.sasl.jaas.config"] = _PLAIN
        lines[f"{prefix}.scram-sha-256.sasl.jaas.config"] = _SCRAM
        lines[f"{prefix}.scram-sha-512.sasl.jaas.config"] = _SCRAM

    return lines


def _name(listener: str) -> str:
    """As Kafka likes the names of listeners: ``SASL_TLS``."""
    return listener.upper().replace("-", "_")
