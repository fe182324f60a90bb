"""What ``memory://`` names."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Literal, cast

import anyio

from rustmq_sdk._environment import options_of
from rustmq_sdk._redaction import HIDDEN
from rustmq_sdk._urls import locate
from rustmq_sdk.config import check_known
from rustmq_sdk.drivers.memory.broker import MemoryBroker
from rustmq_sdk.drivers.memory.log_source import MemoryLogSource
from rustmq_sdk.drivers.memory.queue_source import MemoryQueueSource
from rustmq_sdk.drivers.memory.stores import MemoryAdmin, MemoryDeadLetters, MemorySink, MemoryStateStore
from rustmq_sdk.errors import ConfigurationError, ConsumerStateError
from rustmq_sdk.slots import Capabilities, Source, SourceRequest

OPTIONS = ("kind", "max_messages", "checkpoint_room", "without")
"""``kind=log|queue`` (log); ``max_messages=N`` kept a partition (all); ``checkpoint_room=N`` bytes (no limit);
``without=NAME,NAME``: capabilities not to have, so that programs can be tried against a lesser backend."""

_LOG = Capabilities(
    kind="log",
    checkpoint_room=None,
    seek=True,
    offsets_at=True,
    read=True,
    dense_offsets=True,
    idempotent_append=True,
    dedup_letters=True,
    fences=True,
)
_QUEUE = Capabilities(
    kind="queue",
    lease=30.0,
    counts_attempts=True,
    delayed_nack=True,
    idempotent_append=True,
    dedup_letters=True,
)
_BROKERS: dict[str, MemoryBroker] = {}


def open(url: str, options: Mapping[str, str] | None = None) -> MemoryDriver:  # noqa: A001  # every driver has its open()
    """A driver for ``memory://NAME``, whose broker everybody in this process shares who says the same name.

    ``memory://`` is a broker of its own. Options stand in ``options``, in the URL's query, or in the
    environment (``RUSTMQ_MEMORY_KIND``); the first of these that names one wins.

    Raises:
        ConfigurationError: an option or a value there is no such thing as.
    """
    location = locate(url)
    with options_of("memory", location.options, options or {}) as given:
        for option in given:
            check_known(option, OPTIONS, value=HIDDEN)

        limit = _number("max_messages", given, least=1)
        capabilities = _capabilities(given)

    name = _broker_name(location.bare)
    broker = _BROKERS.setdefault(name, MemoryBroker()) if name else MemoryBroker()
    if limit is not None:
        broker.max_messages = limit

    return MemoryDriver(broker, capabilities)


def forget(name: str) -> None:
    """Drops the broker of that name with all it holds; the next ``open`` starts with an empty one."""
    _BROKERS.pop(name, None)


class MemoryDriver:
    """Fills every slot from one :class:`MemoryBroker`, which tests reach as ``driver.broker``."""

    def __init__(self, broker: MemoryBroker | None = None, capabilities: Capabilities = _LOG) -> None:
        self.broker = broker or MemoryBroker()
        self._capabilities = capabilities
        self._is_open = False

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def __aenter__(self) -> MemoryDriver:
        if not self._is_open:
            self.broker.opened(threading.get_ident(), anyio.current_time())
            self._is_open = True

        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._is_open:
            self._is_open = False
            self.broker.closed(anyio.current_time())

    def source(self, request: SourceRequest) -> Source:
        self._must_be_open("source")
        if self._capabilities.kind == "log":
            return MemoryLogSource(self.broker, request, self._capabilities)

        return MemoryQueueSource(self.broker, request, replace(self._capabilities, lease=request.lease))

    def sink(self) -> MemorySink:
        self._must_be_open("sink")
        return MemorySink(self.broker, self._capabilities)

    def admin(self) -> MemoryAdmin:
        self._must_be_open("admin")
        return MemoryAdmin(self.broker, self._capabilities)

    def state_store(self, name: str) -> MemoryStateStore:
        self._must_be_open("state_store")
        return self.broker.state[name]

    def dead_letters(self, topic: str) -> MemoryDeadLetters:
        self._must_be_open("dead_letters")
        return MemoryDeadLetters(self.broker, topic, self._capabilities)

    def _must_be_open(self, part: str) -> None:
        if not self._is_open:
            raise ConsumerStateError(f"{part}() of a memory driver that is not open. Enter it first: async with driver")


def _broker_name(url: str) -> str:
    scheme, _, name = url.partition("://")
    if scheme != "memory" or "/" in name:
        raise ConfigurationError(
            "expected memory:// and perhaps a name", field="url", value=url, fix="Write memory://NAME"
        )

    return name


def _capabilities(options: Mapping[str, str]) -> Capabilities:
    kind = options.get("kind", "log")
    if kind not in ("log", "queue"):
        raise ConfigurationError("expected log or queue", field="kind", value=kind, fix="Write kind=log or kind=queue")

    capabilities = _LOG if cast("Literal['log', 'queue']", kind) == "log" else _QUEUE
    room = _number("checkpoint_room", options, least=0)
    if room is not None and kind == "log":
        capabilities = replace(capabilities, checkpoint_room=room)

    optional = tuple(item.name for item in fields(Capabilities) if getattr(capabilities, item.name) is True)
    for name in filter(None, options.get("without", "").split(",")):
        check_known(name, optional, value=options["without"])
        capabilities = replace(capabilities, **{name: False})  # type: ignore[arg-type]  # only the boolean ones

    return capabilities


def _number(name: str, options: Mapping[str, str], *, least: int) -> int | None:
    text = options.get(name)
    if text is None:
        return None

    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise ConfigurationError(f"expected a number >= {least}", field=name, value=text, fix=f"Write {name}=1000")

    return int(text)
