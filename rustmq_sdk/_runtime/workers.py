"""``run()``: a fixed number of tasks that take a message, hand it to the handler, and settle it by how that ended."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeAlias

import anyio

from rustmq_sdk._core.order import KeyOrder, unpark_all
from rustmq_sdk._core.piece import piece_of
from rustmq_sdk._error_text import name_and_text
from rustmq_sdk._log import log
from rustmq_sdk._runtime.arguments import check_handler, check_seconds, check_whole, function_behind
from rustmq_sdk._runtime.delivery import Delivery, popping
from rustmq_sdk._runtime.session import Session
from rustmq_sdk._runtime.shutdown import IN_FLIGHT
from rustmq_sdk._threads import run_in_daemon_thread
from rustmq_sdk.config import Ordering
from rustmq_sdk.errors import ConfigurationError, ConsumerClosed, PartitionStopped, Reject, Retry
from rustmq_sdk.message import DONE, FREE, Message, settle_after

Handler: TypeAlias = Callable[[Any], Awaitable[object] | object]
"""Async or plain; takes a ``Message``, or ``Messages`` where ``batch_size`` is given."""

TRACEBACK_EVERY = 60.0
"""Seconds between two tracebacks of the same fingerprint; the failures between are one line each."""
FINGERPRINTS = 1000
"""Different failures remembered for that."""

in_handler: ContextVar[frozenset[Session]] = ContextVar("rustmq_sdk_in_handler", default=frozenset())
"""The consumers whose ``run()`` called the handler that this code belongs to: closing them from there only asks."""


class Workers:
    """One ``run()``.

    Args:
        handler: called for every message (or batch); see :data:`Handler`.
        concurrency: handlers at work at the same time.
        ordering: which messages wait for which.
        batch_size: messages a batch holds at most; None hands them out one by one.
        batch_wait: seconds a batch waits for more after its first message.
    """

    def __init__(
        self,
        session: Session,
        delivery: Delivery,
        handler: Handler,
        *,
        concurrency: int,
        ordering: Ordering,
        batch_size: int | None,
        batch_wait: float,
    ) -> None:
        self._session = session
        self._delivery = delivery
        self._call = as_async(handler)
        self._in_threads = self._call is not handler
        self._concurrency = concurrency
        self._order = None if ordering == "none" else KeyOrder(session.buffer, whole_partition=ordering == "partition")
        self._pop = popping(session, session.buffer.ready.pop if self._order is None else self._order.pop)
        self._take_batch = session.buffer.take_batch if self._order is None else self._order.take_batch
        self._batch_size = batch_size
        self._batch_wait = batch_wait
        self._reports = FailureReports(session)
        self._error: BaseException | None = None
        self._scope: anyio.CancelScope | None = None
        self._deadline = math.inf
        self._cut_off = 0
        self.finished = anyio.Event()

    async def run(self) -> None:
        """Works until the consumer is stopped; raises what ended it otherwise."""
        try:
            async with anyio.create_task_group() as group:
                self._scope = group.cancel_scope
                for number in range(self._concurrency):
                    group.start_soon(self._work, name=f"rustmq_sdk worker {number}")
        finally:
            self._scope = None
            self._session.over = self._session.stopping
            unpark_all(self._session.buffer)
            if self._cut_off and self._session.clock() >= self._deadline:
                self._say_who_was_cut_off()

            self.finished.set()

        if self._error is not None:
            raise self._error

    def end_by(self, deadline: float) -> None:
        """The consumer was stopped: handlers have until then (loop time), and then their messages are released."""
        if self._scope is not None and deadline < self._deadline:
            self._deadline = self._scope.deadline = deadline

    def cancel(self) -> None:
        """Handlers had their time: their messages are released."""
        self._deadline = min(self._deadline, self._session.clock())
        self._end_all()

    def _end_all(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def _say_who_was_cut_off(self) -> None:
        close_timeout = self._session.config.close_timeout
        log(
            logging.WARNING,
            "handlers_cut_off",
            "handlers still at work after the %g s that close_timeout=%g leaves them: %d. They %s, and their messages "
            "come again",
            close_timeout * IN_FLIGHT,
            close_timeout,
            self._cut_off,
            "go on in their threads, unheard" if self._in_threads else "are cancelled",
        )

    async def _work(self) -> None:
        in_handler.set(in_handler.get() | {self._session})
        try:
            if self._batch_size is None:
                await self._work_singly()
            else:
                await self._work_in_batches(self._batch_size)
        except ConsumerClosed:
            return
        except (GeneratorExit, anyio.get_cancelled_exc_class()):
            raise
        except BaseException as error:
            # What ends the consumer ends all workers, and reaches the caller of run() as itself, not in a group.
            self._error = self._error or error
            self._end(error)

    def _end(self, error: BaseException) -> None:
        known_to_all = error is self._session.failure or isinstance(error, PartitionStopped)
        if known_to_all:
            # The other workers meet it themselves when they ask for their next message; what they handle may end.
            self._session.wake_receivers()
        else:
            self._end_all()

    async def _work_singly(self) -> None:
        session, pop, call = self._session, self._pop, self._call
        while not self._session.stopping:
            message = await self._delivery.next(pop)
            while True:
                try:
                    await call(message)
                except BaseException as error:
                    await self._failed([message], as_failure(error))
                else:
                    # The quick path of ack(), without its coroutine: 60 ns a message.
                    piece, index = message._piece, message._index
                    if piece[index] == FREE:
                        piece[index] = DONE
                    else:
                        await message.ack()

                if session.stopping:
                    return

                try:
                    message = pop()
                except IndexError:
                    # Left before the wait: whatever ends that would be shown as raised while this one was handled.
                    break

    async def _work_in_batches(self, size: int) -> None:
        while not self._session.stopping:
            batch = await self._delivery.next_batch(self._take_batch, size, self._batch_wait)
            received = list(batch)
            try:
                await self._call(batch)
            except BaseException as error:
                await self._failed(received, as_failure(error))
            else:
                await batch.ack()

    async def _failed(self, messages: list[Message], error: BaseException) -> None:
        for message in messages:
            if isinstance(error, Exception):
                self._reports.report(message, error)

            await settle_after(message, error)

        if not isinstance(error, Exception):
            self._cut_off += isinstance(error, anyio.get_cancelled_exc_class())
            raise error


def as_failure(error: BaseException) -> BaseException:
    """A cancellation that was not meant for the worker is a failure of its handler, which awaited what was cancelled.

    Let through, it would end the worker as if it had been asked to, and ``run()`` with the last of them.
    """
    if not isinstance(error, anyio.get_cancelled_exc_class()) or anyio.current_effective_deadline() == -math.inf:
        return error

    failure = RuntimeError("something that the handler waited for was cancelled, and not the handler itself")
    failure.__cause__ = error
    return failure.with_traceback(error.__traceback__)


def stopped_before(session: Session) -> bool:
    """Whether a ``run()`` that begins now has nothing to do.

    ``stop()`` may come from a signal just before the first ``run()``, and that is a normal end. Another ``run()`` after
    one that was stopped is a mistake: in a loop that starts over whatever happens it would spin for ever.

    Raises:
        ConsumerClosed: an earlier ``run()`` was stopped, before or after it began, or the context was left.
        Exception: what ended the consumer.
    """
    if not session.stopping:
        return False

    session.check_failure()
    if session.over:
        raise ConsumerClosed("the consumer was stopped or closed and does not run again. Make another one to go on")

    session.over = True
    return True


class FailureReports:
    """One WARNING a failure; a traceback once a minute for failures that look alike."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen: dict[tuple[str, str, int], float] = {}

    def report(self, message: Message, error: Exception) -> None:
        """Logs, unless the handler asked for what happened."""
        if isinstance(error, Retry | Reject):
            return

        now = self._session.clock()
        mark = fingerprint(error)
        last = self._seen.get(mark)
        fresh = last is None or now - last >= TRACEBACK_EVERY
        if fresh:
            if len(self._seen) >= FINGERPRINTS:
                self._seen.clear()

            self._seen[mark] = now

        log(
            logging.WARNING,
            "handler_failed",
            "handler failed on %s, attempt %d: %s",
            _place(message),
            message.attempt,
            name_and_text(error),
            exc_info=error if fresh else None,
        )


def _place(message: Message) -> str:
    return piece_of(message).place_at(message._index)


def fingerprint(error: Exception) -> tuple[str, str, int]:
    """The class of a failure and the line that raised it: what makes two failures look alike."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next

    if trace is None:
        return type(error).__qualname__, "", 0

    return type(error).__qualname__, trace.tb_frame.f_code.co_filename, trace.tb_lineno


def as_async(handler: Handler) -> Callable[[Any], Awaitable[object]]:
    """An async handler as it is; a plain one in a daemon thread, with the caller's context variables."""
    check_handler(handler)
    if inspect.iscoroutinefunction(inspect.unwrap(function_behind(handler))):
        return handler  # type: ignore[return-value]

    async def in_thread(messages: Any) -> object:
        result = await run_in_daemon_thread(handler, messages)
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise TypeError(f"the handler answered with a generator, of which nothing has run: {result!r}")

        # A plain function may still answer with something to await, as functools.partial and decorators do.
        return await result if inspect.isawaitable(result) else result

    return in_thread


def check_run(
    session: Session, *, concurrency: int, ordering: Ordering | None, batch_size: int | None, batch_wait: float
) -> Ordering:
    """Refuses arguments that cannot work; answers the ordering to use."""
    is_log = session.capabilities.kind == "log"
    if ordering is None:
        ordering = "key" if is_log else "none"

    check_whole("concurrency", concurrency, least=1, fix="Give the number of handlers at work")
    check_seconds("batch_wait", batch_wait, fix="0 takes what is there")
    if batch_size is not None:
        check_whole("batch_size", batch_size, least=1, fix="Give the size of a full batch, or None for single messages")

    refusals = (
        (
            ordering not in ("key", "partition", "none"),
            "ordering",
            ordering,
            "there is no such ordering",
            'Use "key", "partition" or "none"',
        ),
        (
            not is_log and ordering != "none",
            "ordering",
            ordering,
            "a queue hands out its messages in no particular order",
            'Use ordering="none", or a source with partitions',
        ),
        (
            batch_size is not None and batch_size > session.config.max_in_flight,
            "batch_size",
            batch_size,
            f"expected 1 to max_in_flight ({session.config.max_in_flight})",
            "Lower batch_size or raise max_in_flight",
        ),
    )
    for wrong, field, value, problem, fix in refusals:
        if wrong:
            raise ConfigurationError(problem, field=field, value=value, fix=fix)

    return ordering
