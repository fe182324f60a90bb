"""Every service there is. Another one is one more entry."""

from __future__ import annotations

from collections.abc import Iterable

from tests.services.kafka import Kafka
from tests.services.nats import Nats
from tests.services.redis import Redis
from tests.services.service import Service, ServiceFailed

CATALOGUE: dict[str, Service] = {
    service.name: service
    for service in (
        Kafka("kafka", "Apache Kafka, one node: plain, SASL, TLS, mutual TLS", nodes=1),
        Kafka("kafka3", "Apache Kafka, three nodes that may fail", nodes=3),
        Redis(),
        Nats(),
    )
}


def services(names: Iterable[str]) -> list[Service]:
    """The services of these names.

    Raises:
        ServiceFailed: there is none of that name.
    """
    return [_known(name) for name in dict.fromkeys(names)]


def nodes(names: Iterable[str]) -> list[tuple[Service, str]]:
    """The nodes that these names mean, each with its service: the name of a node is itself, of a service all its nodes.

    Raises:
        ServiceFailed: there is neither of that name.
    """
    known = {service.name: [(service, node) for node in service.nodes] for service in CATALOGUE.values()}
    known |= {node: [(service, node)] for service in CATALOGUE.values() for node in service.nodes}
    found: list[tuple[Service, str]] = []
    for name in names:
        if name not in known:
            raise ServiceFailed(f"no node is called {name!r}; there are {', '.join(known)}")

        found += [one for one in known[name] if one not in found]

    return found


def _known(name: str) -> Service:
    if name not in CATALOGUE:
        raise ServiceFailed(f"no service is called {name!r}; there are {', '.join(CATALOGUE)}")

    return CATALOGUE[name]
