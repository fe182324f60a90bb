"""What all suites share: the driver under test, names of their own for topics and groups, and ways to fill them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import pytest

from rustmq_sdk.slots import Driver, LogSubscription, QueueSubscription, SourceRequest
from rustmq_sdk.testing.contracts.subscriber import Subscriber, log_member, queue_member
from rustmq_sdk.testing.listener import OnRevoking, RecordingListener
from rustmq_sdk.values import OutgoingMessage, SentMessage, TopicPartition


class Contract:
    """The class that all suites derive from."""

    pytestmark: ClassVar = [pytest.mark.anyio]

    patience: float = 10.0
    """How many seconds to wait for what has to happen; of virtual time, where a test has that."""
    lease: float = 10.0
    revoke_budget: float = 5.0
    creates_topics: bool = True
    """Whether topics come into being when somebody sends, and readers wait for them. If not: ``UnknownTopic``."""

    @pytest.fixture
    async def driver(self) -> Any:
        """The driver under test, entered. To be overridden by a fixture that yields it."""
        raise NotImplementedError(f"{type(self).__name__} has to override the fixture `driver`")

    @pytest.fixture
    def topic(self) -> str:
        """The name of a topic that does not exist yet."""
        return f"contract-{uuid.uuid4().hex[:12]}"

    @pytest.fixture
    def group(self) -> str:
        """The name of a group that does not exist yet."""
        return f"group-{uuid.uuid4().hex[:12]}"

    async def create(self, driver: Driver, topic: str, partitions: int = 1) -> Sequence[TopicPartition]:
        """Creates a topic."""
        await driver.admin().create_topic(topic, partitions, {})
        return [TopicPartition(topic, number) for number in range(partitions)]

    async def append(
        self, driver: Driver, topic: str, messages: Iterable[bytes | OutgoingMessage | None], partition: int = 0
    ) -> Sequence[SentMessage]:
        """Appends to one partition; bytes and None are payloads."""
        outgoing = [
            message if isinstance(message, OutgoingMessage) else OutgoingMessage(message) for message in messages
        ]
        return await driver.sink().append(topic, partition, outgoing, sequence=None)

    def log_member(
        self,
        driver: Driver,
        topic: str,
        group: str | None,
        *,
        starts: dict[TopicPartition, int] | None = None,
        on_revoking: OnRevoking | None = None,
    ) -> AbstractAsyncContextManager[Subscriber[LogSubscription]]:
        """A member of a group that reads a log."""
        listener = RecordingListener(committed=group is not None, starts=starts, on_revoking=on_revoking)
        return log_member(driver, self._request(topic, group), listener, self.patience)

    def queue_member(
        self, driver: Driver, topic: str, group: str | None
    ) -> AbstractAsyncContextManager[Subscriber[QueueSubscription]]:
        """A member of a group that reads a queue."""
        return queue_member(driver, self._request(topic, group), RecordingListener(), self.patience)

    def needs(self, hook: str) -> None:
        """Skips the running test if the suite does not override ``hook``, a thing only the backend's owner can do.

        To be called before anything is started: a skip is an exception, and would come out of a context in a group.
        """
        first = next(cls for cls in reversed(type(self).__mro__) if hook in vars(cls))
        if getattr(type(self), hook) is vars(first)[hook]:
            pytest.skip(
                f"{type(self).__name__} does not override {hook}(): {vars(first)[hook].__doc__.splitlines()[0]}"
            )

    def _request(self, topic: str, group: str | None) -> SourceRequest:
        return SourceRequest(topics=[topic], group=group, lease=self.lease, revoke_budget=self.revoke_budget)


def numbered(count: int, prefix: str = "m") -> list[bytes | OutgoingMessage | None]:
    """Returns payloads that have their number in them."""
    return [b"%s%d" % (prefix.encode(), number) for number in range(count)]


def ago(seconds: int) -> int:
    """A message's timestamp, in milliseconds: old enough to be told from now, too young for anybody's retention.

    Where retention goes by what the sender wrote, as on Kafka, last year's message is deleted as soon as it is there.
    """
    return int(time.time() - seconds) * 1000
