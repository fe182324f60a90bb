"""The client opens the driver that a URL names, and makes producers and consumers on it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Literal, Unpack, final

from rustmq_sdk._origin import read_origin
from rustmq_sdk._redaction import redact
from rustmq_sdk._runtime.consumer import Consumer
from rustmq_sdk._runtime.dead_letters import TopicDeadLetters
from rustmq_sdk._runtime.home import Home
from rustmq_sdk._runtime.producer import Producer
from rustmq_sdk.config import ConsumerConfig, ConsumerOptions, ProducerConfig, ProducerOptions, fields_of
from rustmq_sdk.drivers import open_driver
from rustmq_sdk.errors import ConfigurationError, ConsumerStateError, Unsupported
from rustmq_sdk.options import locate
from rustmq_sdk.slots import DeadLetterQueue, SourceRequest, StateStore

_SETTINGS = {"consumer": fields_of(ConsumerConfig), "producer": fields_of(ProducerConfig)}


@final
class Client:
    """A connection to the log or queue that a URL names. It is an async context manager, to be entered once.

    Args:
        url_or_config: a URL (``"sqlite:///events.db"``, ``"memory://"``, …); or a path to a YAML or TOML file, or a
            mapping, with ``url``, ``consumer`` and ``producer``. Without it the URL is read from ``RUSTMQ_URL``, which
            also wins over the ``url`` of a file.

    Settings of consumers and producers may stand after the ``?`` of the URL, in ``RUSTMQ_CONSUMER_<FIELD>`` and
    ``RUSTMQ_PRODUCER_<FIELD>``, and in the file or mapping. A keyword argument wins over all of them, then the URL,
    then the environment. A driver's own options may stand in ``RUSTMQ_<SCHEME>_<OPTION>``.

    Raises:
        ConfigurationError: the URL, the file or a setting in it cannot work. Nothing was connected yet.
        MissingDriver: the driver's client library is not installed; the message has the command.
    """

    def __init__(self, url_or_config: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> None:
        self._origin = read_origin(url_or_config)
        self._location = locate(self._origin.url)
        self._driver = open_driver(self._location, others=_SETTINGS)
        self._state: Literal["new", "open", "closed"] = "new"
        self._home: Home
        # Read now for its errors alone: a wrong setting in the environment or a file is reported where the program
        # starts, not where its first consumer does.
        self._consumer_config({})
        self._producer_config({})

    async def __aenter__(self) -> Client:
        """Connects. Raises what the driver raises, and ``ConsumerStateError`` if it was entered before."""
        if self._state != "new":
            raise ConsumerStateError(
                f"this client is {self._state} already, and a client is entered once. "
                "Make another Client for another `async with`"
            )

        self._home = Home("client")
        self._state = "open"
        try:
            await self._driver.__aenter__()
        except BaseException:
            self._state = "closed"
            raise

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnects. Leave its producers and consumers first."""
        self._state = "closed"
        await self._driver.__aexit__(kind, error, trace)

    async def create_topic(self, name: str, partitions: int = 1, **settings: Any) -> None:
        """Creates a topic, or does nothing if it exists with as many partitions and with the settings given.

        Args:
            name: of the topic.
            partitions: how many, at least 1.
            settings: the driver's own, for example its retention. An embedded log gives them to a topic that exists
                with others, with a warning, and leaves those that are not given as they are. Kafka's topics keep what
                they have, with a warning that says what differs.

        Raises:
            ConfigurationError: it exists with another number of partitions, or a setting is wrong.
            Unsupported: this backend does not let its clients create topics.
        """
        self._check_open()
        self._home.require("create_topic()")
        _check_topic(name)
        if isinstance(partitions, bool) or not isinstance(partitions, int) or partitions < 1:
            raise ConfigurationError(
                "expected a whole number of at least 1", field="partitions", value=partitions, fix="Give 1 or more"
            )

        try:
            await self._driver.admin().create_topic(name, partitions, settings)
        except ConfigurationError as error:
            # A driver looks for the nearest among its own settings; the argument it cannot know.
            if error.field in settings and difflib.get_close_matches(error.field, ["partitions"], cutoff=0.75):
                raise ConfigurationError(
                    error.problem, field=error.field, value=error.value, fix="Did you mean 'partitions'?"
                ) from error

            raise

    async def delete_topic(self, name: str) -> None:
        """Deletes a topic and everything in it.

        Raises:
            UnknownTopic: there is no topic of this name.
            Unsupported: this backend does not let its clients delete topics.
        """
        self._check_open()
        self._home.require("delete_topic()")
        _check_topic(name)
        await self._driver.admin().delete_topic(name)

    async def topics(self) -> Mapping[str, int]:
        """Returns the names of all topics, and how many partitions each has (1 for a queue)."""
        self._check_open()
        self._home.require("topics()")
        return await self._driver.admin().topics()

    def producer(self, **options: Unpack[ProducerOptions]) -> Producer:
        """Makes a producer, which is an async context manager. :class:`~rustmq_sdk.ProducerConfig` has the options."""
        self._check_open()
        config = self._producer_config(options)
        can = self._driver.capabilities
        return Producer(
            self._driver.sink(), config=config, idempotent=can.idempotent_append, append_messages=can.append_messages
        )

    def consumer(
        self, *topics: str, observers: Collection[object] = (), **options: Unpack[ConsumerOptions]
    ) -> Consumer:
        """Makes a consumer, which is an async context manager. :class:`~rustmq_sdk.ConsumerConfig` has the options.

        Args:
            topics: the names of the topics to read, at least one.
            observers: objects that are told what happens, see :class:`~rustmq_sdk.Observer`.
            options: the settings, by name.

        Raises:
            ConfigurationError: no topic, or an option that cannot work.
        """
        self._check_open()
        _check_topics(topics)
        config = self._consumer_config(options)
        _refuse_loop(topics, config)
        source = self._driver.source(
            SourceRequest(
                topics=topics,
                group=config.group,
                lease=config.lease,
                revoke_budget=config.close_timeout,
            )
        )
        return Consumer(source, topics=topics, config=config, route=self._dead_letters(config), observers=observers)

    def state_store(self, name: str) -> StateStore:
        """Makes a store of small values, each of which is written only if nobody else has written it since it was read.

        Give it to a consumer as ``state_store=`` (of this client or of another one), or use it for values of your own.

        Raises:
            Unsupported: this backend has no state stores.
        """
        self._check_open()
        return self._driver.state_store(name)

    def _dead_letters(self, config: ConsumerConfig) -> DeadLetterQueue | None:
        """The driver's own place for dead letters, or a topic like any other."""
        topic = config.dead_letter_topic
        if topic is None:
            return None

        try:
            return self._driver.dead_letters(topic)
        except Unsupported:
            return TopicDeadLetters(self._driver.sink(), topic)

    def __repr__(self) -> str:
        return f"<Client {redact(self._origin.url, self._location.options)}, {self._state}>"

    def _consumer_config(self, options: Mapping[str, Any]) -> ConsumerConfig:
        return self._origin.settings(ConsumerConfig, options, self._named(ConsumerConfig))

    def _producer_config(self, options: Mapping[str, Any]) -> ProducerConfig:
        return self._origin.settings(ProducerConfig, options, self._named(ProducerConfig))

    def _named(self, schema: type[ConsumerConfig | ProducerConfig]) -> dict[str, str]:
        known = fields_of(schema)
        return {name: value for name, value in self._location.options.items() if name in known}

    def _check_open(self) -> None:
        if self._state == "new":
            raise ConsumerStateError("the client is not connected yet. Use it inside `async with Client(…) as client:`")

        if self._state == "closed":
            raise ConsumerStateError(
                "the client is closed. Move the call inside its `async with` block, or make another Client"
            )


def _refuse_loop(topics: tuple[str, ...], config: ConsumerConfig) -> None:
    if config.dead_letter_topic in topics:
        raise ConfigurationError(
            "this consumer reads that topic itself, so each dead letter would come back as a message",
            field="dead_letter_topic",
            value=config.dead_letter_topic,
            fix="Choose a topic of its own for the dead letters",
        )


def _check_topics(topics: tuple[str, ...]) -> None:
    if not topics:
        raise ConfigurationError(
            "expected at least one topic", field="topics", value=(), fix='Write for example client.consumer("orders")'
        )

    for position, name in enumerate(topics):
        _check_topic(name)
        if name in topics[:position]:
            raise ConfigurationError("the topic is named twice", field="topics", value=name, fix="Name it once")


def _check_topic(name: object) -> None:
    if not isinstance(name, str) or not name:
        several = isinstance(name, Collection) and not isinstance(name, str | bytes)
        raise ConfigurationError(
            "expected a topic's name",
            field="topic",
            value=name,
            fix='Give each name as an argument of its own: consumer("orders", "refunds")'
            if several
            else 'Write it as text, for example "orders"',
        )
