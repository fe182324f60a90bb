"""What can go wrong, classed by what the caller should do next.

::

    RustMQError
    ├── ConfigurationError (ValueError)      fix the program: ``field``, ``value``, ``fix``
    │   └── MissingDriver (ImportError)      install what ``fix`` names
    ├── ConsumerStateError (RuntimeError)    the call does not fit the consumer's state: change the order of calls
    │   ├── ConsumerClosed                   normal after ``close()``; ``async for`` ends instead
    │   ├── BufferFull                       ``send_nowait()`` was too fast: ``await flush()`` first
    │   └── IslandClosed                     a client library's event loop has ended: open another ``Client``
    ├── Unsupported                          this source cannot do it, ever: choose another call or another source
    ├── DriverError                          a slot's backend failed: ``slot``, ``operation``, ``__cause__``
    │   ├── TransientDriverError             may be retried, not before ``retry_after`` seconds if that is set
    │   └── PermanentDriverError             will not heal by itself
    │       ├── AuthenticationFailed
    │       ├── NotAllStored             between drivers and the runtime: some of what was given is refused
    │       └── UnknownTopic
    ├── OutcomeUnknown                       the effect may or may not have happened: look before repeating it
    ├── CircuitOpen                          the backend is being left alone: try again in ``retry_in`` seconds
    ├── StrayCancellation                    a client library cancelled what a call awaited: look before repeating it
    ├── StalePartition                       somebody else owns the partition now: stop working on it
    └── PartitionStopped                     a message could be neither handled nor dead-lettered: do what ``fix`` says

    Retry, Reject                            raised *by handlers*, to overrule the retry policy
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rustmq_sdk._operations import words_for
from rustmq_sdk._places import place
from rustmq_sdk._redaction import printable, without_secrets


class RustMQError(Exception):
    """The class of all errors that this package raises by itself."""


class ConfigurationError(RustMQError, ValueError):
    """A setting that cannot work, found before anything was started.

    Args:
        problem: what was expected and what came.
        field: the setting's name, as it is written in Python, in a URL, in a file and (upper-cased) in the environment.
        value: what was given; of a URL without its secrets.
        fix: what to do about it, as an instruction.
        also: what else is wrong with the same settings, so that all of it can be mended at once.
    """

    def __init__(
        self, problem: str, *, field: str, value: object, fix: str, also: Sequence[ConfigurationError] = ()
    ) -> None:
        self.problem = problem
        self.field = field
        self.value = without_secrets(value)
        self.fix = fix
        self.also = tuple(also)
        said = f"{field}={printable(value)}: {problem}. {fix}"
        for other in self.also:
            said = f"{said.removesuffix('.')}. Also {other}"

        super().__init__(said)


class MissingDriver(ConfigurationError, ImportError):
    """The URL names a driver whose packages are not installed; ``fix`` is the exact command."""


class ConsumerStateError(RustMQError, RuntimeError):
    """A call that does not fit the state its consumer or producer is in."""


class ConsumerClosed(ConsumerStateError):
    """The consumer was closed; there will be no further messages."""


class BufferFull(ConsumerStateError):
    """``send_nowait()`` found ``max_buffered`` messages waiting to be sent already; this one was not taken."""


class IslandClosed(ConsumerStateError):
    """The event loop of an asyncio-only client takes no calls (any more).

    It was not entered yet, was left, has died, or is another process's. What ended it, if it ended by itself, is
    ``__cause__``.
    """


class Unsupported(RustMQError):
    """The source cannot do this, and the runtime cannot do it in its place."""


class DriverError(RustMQError):
    """The backend behind a slot has failed. The client library's own exception is ``__cause__``.

    Args:
        problem: what happened, in the backend's words where they help.
        slot: ``"source"``, ``"sink"``, ``"state"``, ``"dead_letters"``, ``"admin"``, or ``"driver"`` for connecting.
        operation: the call that failed, for example ``"commit"``. The text says it in words: "committing positions".
    """

    def __init__(self, problem: str, *, slot: str, operation: str) -> None:
        self.problem = problem
        self.slot = slot
        self.operation = operation
        super().__init__(f"{words_for(slot, operation)}: {problem}")


class TransientDriverError(DriverError):
    """The failure may pass. ``retry_after`` has the seconds to wait, where the backend has said so."""

    def __init__(self, problem: str, *, slot: str, operation: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(problem, slot=slot, operation=operation)


class PermanentDriverError(DriverError):
    """The failure will not pass by itself: somebody has to change something."""


class AuthenticationFailed(PermanentDriverError):
    """The backend does not accept the user or the password, or does not allow what was asked for."""


class UnknownTopic(PermanentDriverError):
    """The topic does not exist and this backend does not create topics by itself."""


class NotAllStored(PermanentDriverError):
    """Of the messages or letters that a slot was given together some will never be stored, and all others are.

    Raised by drivers, and given to nobody: the runtime tells each caller what became of its own.

    Args:
        refused: why, for each that is not stored, by its place among those given.
        sent: where the others are, a :class:`~rustmq_sdk.values.SentMessage` each, and None in the places of those that
            are not stored; empty for letters.
    """

    def __init__(
        self,
        refused: Mapping[int, Exception],
        sent: Sequence[Any] = (),
        *,
        slot: str,
        operation: str,
    ) -> None:
        self.refused = refused
        self.sent = sent
        first = min(refused)
        super().__init__(
            f"{len(refused)} of those given are refused, all others are stored; number {first}: {refused[first]}",
            slot=slot,
            operation=operation,
        )


class OutcomeUnknown(RustMQError):
    """The request was sent and its answer was lost, so nobody can know whether it had an effect."""


class CircuitOpen(RustMQError):
    """The backend has failed several times in a row, and is being left alone for a while.

    Args:
        circuit: the circuit's name, for example ``"source.fetch"``.
        retry_in: seconds until the next probe is allowed.
    """

    def __init__(self, circuit: str, retry_in: float) -> None:
        self.circuit = circuit
        self.retry_in = retry_in
        super().__init__(
            f"circuit {circuit} is open after repeated failures; the next probe is due in {retry_in:.1f} s. "
            "Try again after that, or look at health() for the cause"
        )


class StrayCancellation(RustMQError):
    """Something that a call awaited was cancelled, and not by the caller: nobody's task should end for that.

    asyncio-only clients do so when they close underneath a call. The ``CancelledError`` is ``__cause__``.
    """


class StalePartition(RustMQError):
    """The partition was lost, or the consumer closed, before this could be written: its next owner has it again."""


class PartitionStopped(RustMQError):
    """A message can be neither handled nor dead-lettered, so its partition waits until somebody resumes it.

    No position beyond ``offset`` is committed, and nothing is lost. ``fix`` says what to do, and
    ``consumer.resume_partitions([(topic, partition)])`` tries again.
    """

    def __init__(self, topic: str, partition: int | None, offset: int | None, *, reason: str, fix: str) -> None:
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.reason = reason
        self.fix = fix
        # A queue has neither partitions nor offsets: the number of the message is known to nobody else there.
        what = f"{topic} is stopped" if partition is None else f"{place(topic, partition, offset)} stops its partition"
        super().__init__(f"{what}: {reason}. {fix}")


class Retry(Exception):
    """Raise it in a handler to have the message tried again in ``delay`` seconds, whatever the retry policy says.

    That counts as an attempt, but the message is never given up for it. With ``delay=None`` the policy says when.

    Raises:
        TypeError: ``delay`` is no number.
        ConfigurationError: it is negative or not finite.
    """

    def __init__(self, delay: float | None = None, reason: str | None = None) -> None:
        if delay is not None and not isinstance(delay, int | float):
            raise TypeError(f"expected the delay in seconds, got {delay!r}. Write Retry(reason=…) for the reason alone")

        if delay is not None and not 0 <= delay < math.inf:  # which is false of NaN as well
            raise ConfigurationError(
                "expected seconds >= 0", field="delay", value=delay, fix="Write Retry(delay=0) for at once"
            )

        self.delay = delay
        self.reason = reason
        super().__init__(reason or "the handler asked for a retry")


class Reject(Exception):
    """Raise it in a handler to give the message up: it can never be handled, and goes to the dead letters at once."""

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason
        super().__init__(reason or "the handler rejected the message")
