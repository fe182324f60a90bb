"""What ``memory://`` names."""

from __future__ import annotations

import threading
from dataclasses import fields, replace

import anyio

from rustmq_sdk.drivers.memory.broker import MemoryBroker
from rustmq_sdk.drivers.memory.log_source import MemoryLogSource
from rustmq_sdk.drivers.memory.options import MemoryOptions
from rustmq_sdk.drivers.memory.queue_source import MemoryQueueSource
from rustmq_sdk.drivers.memory.stores import MemoryAdmin, MemoryDeadLetters, MemorySink, MemoryStateStore
from rustmq_sdk.errors import ConfigurationError, ConsumerStateError
from rustmq_sdk.options import Location, locate, read_options
from rustmq_sdk.slots import Capabilities, Source, SourceRequest

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


def open(url: Location | str) -> MemoryDriver:  # noqa: A001  # every driver has its open()
    """A driver for ``memory://NAME``, whose broker everybody in this process shares who says the same name.

    ``memory://`` is a broker of its own. Options stand in the URL's query, see :class:`MemoryOptions`, or in the
    environment (``RUSTMQ_MEMORY_KIND``).

    Raises:
        ConfigurationError: an option or a value there is no such thing as.
    """
    location = locate(url)
    options = read_options(MemoryOptions, location)
    capabilities = _capabilities(options)
    name = _broker_name(location)
    broker = _BROKERS.setdefault(name, MemoryBroker()) if name else MemoryBroker()
    if options.max_messages is not None:
        broker.max_messages = options.max_messages

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


def _broker_name(location: Location) -> str:
    if location.scheme != "memory" or "/" in location.address:
        raise ConfigurationError(
            "expected memory:// and perhaps a name", field="url", value=location.shown, fix="Write memory://NAME"
        )

    return location.address


def _capabilities(options: MemoryOptions) -> Capabilities:
    capabilities = _LOG if options.kind == "log" else _QUEUE
    if options.kind == "log":
        capabilities = replace(capabilities, checkpoint_room=options.checkpoint_room)

    optional = [item.name for item in fields(Capabilities) if getattr(capabilities, item.name) is True]
    for name in options.lacking:
        if name not in optional:
            raise ConfigurationError(
                f"a {options.kind} in memory has no capability {name!r} to do without",
                field="without",
                value=options.without,
                fix=f"Name some of {', '.join(optional)}, with commas between them",
            )

    return replace(capabilities, **dict.fromkeys(options.lacking, False))  # type: ignore[arg-type]  # only boolean ones
