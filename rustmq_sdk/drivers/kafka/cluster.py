"""What is known of the cluster: its brokers, its topics, and who leads which partition. On an asyncio loop.

Asking never makes a topic: brokers make what is asked for where ``auto.create.topics.enable`` is set, which is the
default, and a misspelt name would become a topic.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka.conn import collect_hosts
from aiokafka.protocol.metadata import MetadataRequest

from rustmq_sdk.drivers.kafka.connecting import Address, Connections
from rustmq_sdk.drivers.kafka.failures import ClosedInGreeting, NotSent, Unanswered, translate
from rustmq_sdk.errors import TransientDriverError

ANSWER = 6.0
"""Seconds to wait for a broker's answer; less than a third of a producer's default ``send_timeout``, its attempts."""


class Topic(NamedTuple):
    """What a broker says of a topic.

    Attributes:
        error: why it says nothing more; 0 if it does.
        internal: it is Kafka's own.
        leaders: the node that leads each partition, by number; -1 where there is none now.
        replicas: how many nodes keep a partition; of the one that the fewest keep.
    """

    error: int
    internal: bool
    leaders: Mapping[int, int]
    replicas: int


class Cluster:
    """Finds brokers and asks them.

    Args:
        settings: from :func:`~rustmq_sdk.drivers.kafka.settings.client_settings`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._servers: Sequence[str] = settings["bootstrap_servers"]
        self._bootstrap = [Address(host, port) for host, port, _ in collect_hosts(self._servers, randomize=False)]
        self._connections = Connections(settings)
        self._nodes: dict[int, Address] = {}
        self._controller = -1
        self._topics: dict[str, Topic] = {}

    @property
    def nodes(self) -> Sequence[int]:
        """The brokers that are alive, as far as is known."""
        return tuple(self._nodes)

    async def open(self) -> None:
        """Finds the brokers.

        Raises:
            AuthenticationFailed, PermanentDriverError: a server does not want us, or we do not trust it.
            TransientDriverError: none can be reached.
        """
        failures: list[TransientDriverError] = []
        for address in random.sample(self._bootstrap, len(self._bootstrap)):
            try:
                self._learn(await self._connections.ask(address, MetadataRequest([]), ANSWER))
            except (NotSent, Unanswered) as error:
                reason: Exception = error
                if isinstance(error, Unanswered) and not isinstance(error.__cause__, TimeoutError):
                    # A listener with SASL answers who it is to anybody, and hangs up at the first real question.
                    reason = ClosedInGreeting(str(error))

                failure = translate(reason, slot="driver", operation="connect")
                failure.__cause__ = error
                if not isinstance(failure, TransientDriverError):
                    # The servers of a cluster are configured alike: the next one would say the same, perhaps later.
                    raise failure from error

                failures.append(failure)
            else:
                return

        raise failures[-1] if len(failures) == 1 else _none_reached(failures)

    def close(self) -> None:
        """Closes all connections."""
        self._connections.close()

    async def ask(self, node: int, request: Any, seconds: float = ANSWER) -> Any:
        """Asks one broker; raises ``NotSent`` or ``Unanswered``."""
        address = self._nodes.get(node)
        if address is None:
            raise NotSent(f"broker {node} is not in the cluster now")

        return await self._connections.ask(address, request, seconds)

    async def ask_any(self, request: Any, seconds: float = ANSWER) -> Any:
        """Asks the brokers, and the servers of the URL, one after another until one answers.

        For requests that may be repeated. Raises what the last one did.
        """
        known = [*self._nodes.values()]
        others = [address for address in self._bootstrap if address not in known]
        addresses = [*random.sample(known, len(known)), *others]
        for address in addresses[:-1]:
            try:
                return await self._connections.ask(address, request, seconds)
            except (NotSent, Unanswered):
                continue

        return await self._connections.ask(addresses[-1], request, seconds)

    async def ask_controller(self, request: Any, seconds: float) -> Any:
        """Asks the broker that changes topics; raises ``NotSent`` or ``Unanswered``."""
        if self._controller not in self._nodes:
            self._learn(await self.ask_any(MetadataRequest([])))

        return await self.ask(self._controller, request, seconds)

    def forget_controller(self) -> None:
        """Another broker may change topics now."""
        self._controller = -1

    async def describe(self, name: str, node: int | None = None) -> Topic:
        """What a broker, or this one, says of a topic; it may not exist. Raises ``NotSent`` or ``Unanswered``."""
        request = MetadataRequest([name], allow_auto_topic_creation=False)
        answer = await (self.ask_any(request) if node is None else self.ask(node, request))
        self._learn(answer)
        (topic,) = _topics(answer).values()
        if topic.error:
            self._topics.pop(name, None)
        else:
            self._topics[name] = topic

        return topic

    async def all_topics(self) -> Mapping[str, Topic]:
        """All topics that we may see. Raises ``NotSent`` or ``Unanswered``."""
        answer = await self.ask_any(MetadataRequest(None, allow_auto_topic_creation=False))
        self._learn(answer)
        return _topics(answer)

    async def known(self, name: str) -> Topic:
        """As :meth:`describe`, from memory if it was asked before."""
        return self._topics.get(name) or await self.describe(name)

    def forget(self, name: str) -> None:
        """Lets the next one who wants to know of a topic ask."""
        self._topics.pop(name, None)

    def _learn(self, answer: Any) -> None:
        nodes = {node: Address(host, port) for node, host, port, *_ in answer.brokers}
        if nodes:
            self._nodes = nodes
            self._controller = answer.controller_id


def _topics(answer: Any) -> dict[str, Topic]:
    found = {}
    for error, name, internal, partitions in answer.topics:
        leaders = {number: leader for _, number, leader, *_ in partitions}
        replicas = min((len(nodes) for _, _, _, nodes, *_ in partitions), default=0)
        found[name] = Topic(error, internal, leaders, replicas)

    return found


def _none_reached(failures: Sequence[TransientDriverError]) -> TransientDriverError:
    said = "; ".join(failure.problem for failure in failures)
    error = TransientDriverError(f"none of the servers can be used: {said}", slot="driver", operation="connect")
    error.__cause__ = failures[-1]
    return error
