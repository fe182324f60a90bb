"""Connections to brokers, and why one cannot be made. On an asyncio loop.

``AIOKafkaClient`` is not used for what is sent and administrated: it logs why a connection failed and raises that there
is none, asks for topics in a way that makes them, and keeps asking for those that were deleted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, NamedTuple

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

from rustmq_sdk.drivers.kafka.failures import ClosedInGreeting, NotSent, Unanswered

CONNECT = 5.0
"""Seconds for a connection, with TLS and SASL. A TCP SYN that was lost is sent again after 1 and 3 s."""
IDLE = 540.0
"""Seconds after which an unused connection is closed: before the broker does (``connections.max.idle.ms``, 600)."""


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Connection(AIOKafkaConnection):  # type: ignore[misc]  # aiokafka has no types for us to see
    """Closes at once, also when it fails while it is made.

    asyncio would keep a socket with TLS until the broker has said goodbye as well, for half a minute. Whoever ends its
    loop before that is warned of a socket that was forgotten.
    """

    def close(self, reason: CloseReason | None = None, exc: BaseException | None = None) -> None:
        writer = self._writer
        super().close(reason=reason, exc=exc)
        if writer is not None:
            writer.transport.abort()


class Connections:
    """One connection to each broker that was asked for something.

    Args:
        settings: from :func:`~rustmq_sdk.drivers.kafka.settings.client_settings`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = {name: value for name, value in settings.items() if name != "bootstrap_servers"}
        self._open: dict[Address, Connection] = {}
        self._locks: defaultdict[Address, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._closed = False

    async def ask(self, address: Address, request: Any, seconds: float) -> Any:
        """Sends a request and returns the answer.

        Raises:
            NotSent: there is no connection.
            Unanswered: there was one, and no answer within ``seconds``; it is closed then.
        """
        connection = await self._connection(address)
        try:
            answer = connection.send(request)
        except Exception as error:  # the connection was lost meanwhile, or the broker is too old for the request
            raise NotSent(f"{address}: {str(error) or type(error).__name__}") from error

        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError as error:
            # What comes later on this connection comes after the lost answer, so a new one is needed.
            self._drop(address, connection)
            raise Unanswered(f"{address} did not answer within {seconds:g} s") from error
        except KafkaConnectionError as error:
            raise Unanswered(f"{address}: {error}") from error

    def close(self) -> None:
        """Closes all connections at once; what waits for an answer gets ``Unanswered``."""
        self._closed = True
        for address, connection in list(self._open.items()):
            self._drop(address, connection)

    async def _connection(self, address: Address) -> Connection:
        async with self._locks[address]:
            connection = self._open.get(address)
            if connection is None or not connection.connected():
                connection = self._open[address] = await self._connect(address)

            return connection

    async def _connect(self, address: Address) -> Connection:
        self._check_open()
        try:
            connection = Connection(
                *address, **self._settings, request_timeout_ms=_NEVER_MS, max_idle_ms=int(IDLE * 1000)
            )
            async with asyncio.timeout(CONNECT):
                await connection.connect()
        except Exception as error:
            # Whatever it is: TLS and SASL raise what they like, a ValueError among it.
            raise NotSent(f"{address}: {str(error) or type(error).__name__}") from _reason(error)

        try:
            self._check_open()
        except NotSent:
            connection.close(reason=CloseReason.SHUTDOWN)
            raise

        return connection

    def _check_open(self) -> None:
        if self._closed:
            raise NotSent("the client is closed")

    def _drop(self, address: Address, connection: Connection) -> None:
        if self._open.get(address) is connection:
            del self._open[address]

        connection.close(reason=CloseReason.SHUTDOWN)


_NEVER_MS = 3_600_000
"""The deadlines are ours. aiokafka's own ends a request and leaves the connection open."""


def _reason(error: Exception) -> Exception:
    """What is behind an error of connecting: aiokafka wraps what broke the connection."""
    cause = error.__cause__
    if isinstance(error, KafkaConnectionError) and isinstance(cause, OSError):
        return cause

    if isinstance(error, KafkaConnectionError | ConnectionResetError):
        return ClosedInGreeting(str(error) or type(error).__name__)

    return error
