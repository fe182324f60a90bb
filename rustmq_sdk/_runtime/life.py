"""A consumer's life: the TaskGroup that everything lives in, from entering to leaving."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

from rustmq_sdk._runtime.dead_letters import Route
from rustmq_sdk._runtime.health import explain
from rustmq_sdk._runtime.home import Home
from rustmq_sdk._runtime.scopes import Scopes, unwrapped
from rustmq_sdk._runtime.session import Session
from rustmq_sdk._runtime.shutdown import shut_down
from rustmq_sdk._runtime.wiring import Parts
from rustmq_sdk._threads import Mailbox
from rustmq_sdk.errors import ConsumerStateError, PermanentDriverError
from rustmq_sdk.slots import Source


class Life:
    """Owns the TaskGroup. Entered and left by the same task; closed by any.

    Args:
        source: subscribed to in a task of its own, so that leaving it can have a deadline.
        route: of dead letters; None where there is none.
    """

    def __init__(self, session: Session, source: Source, route: Route | None) -> None:
        self._session = session
        self._source = source
        self._route = route
        self._scopes = Scopes()
        self._group: anyio.abc.TaskGroup
        self._mailbox: Mailbox | None = None
        self._task_id: int | None = None
        self._closed: anyio.Event | None = None
        self._connected: anyio.Event
        self._refused: Exception | None = None
        self.parts: Parts | None = None

    async def begin(self) -> None:
        """Subscribes and starts the tasks."""
        session = self._session
        if session.state != "new":
            raise ConsumerStateError("a consumer is entered once. Make another one for another `async with`")

        session.state = "starting"
        self._task_id = anyio.get_current_task().id
        self._mailbox = Mailbox.current()
        session.home = Home("consumer")
        self._connected = anyio.Event()
        self.parts = parts = Parts(session, self._route, explain=lambda: explain(session))
        self._group = group = anyio.create_task_group()
        await group.__aenter__()
        group.start_soon(self._subscribe, parts, name="rustmq_sdk subscription")
        try:
            # Not group.start(): cancelled, that waits for the task to end, and the task, once it is connected and
            # shielded, waits to be told.
            await self._connected.wait()
        except BaseException:
            await self._give_up()
            raise

        if self._refused is not None:
            await self._give_up()
            error = unwrapped(self._refused)
            raise error from error.__cause__

        for name, task in parts.tasks():
            group.start_soon(self._guarded, task, name=f"rustmq_sdk {name}")

        session.state = "running"

    async def _give_up(self) -> None:
        self._session.state = "failed"
        self._scopes.cancel()
        await self._group.__aexit__(None, None, None)

    async def end(self) -> None:
        """Closes, and waits for all tasks."""
        try:
            await self.close(wait_for_receivers=False)
        finally:
            # Without the exception that ends the user's block: the group would wrap it.
            await self._group.__aexit__(None, None, None)

    async def close(self, *, wait_for_receivers: bool) -> None:
        """Ends within ``close_timeout``; whoever comes second waits for the first."""
        if self._closed is not None:
            if not wait_for_receivers and self.parts is not None:
                self._session.abandoned = True
                self.parts.settler.note_progress()

            await self._closed.wait()
            return

        session = self._session
        if self.parts is None:
            session.state = "closed"
            return

        self._closed = closed = anyio.Event()
        try:
            await shut_down(self.parts, wait_for_receivers=wait_for_receivers)
        finally:
            session.closing = True
            self._scopes.cancel()
            self.parts.partitions.close()
            session.state = "closed" if session.failure is None else "failed"
            session.wake_receivers()
            closed.set()

    def post_stop(self) -> None:
        """Has whoever waits look again; from any thread and from signal handlers."""
        if self._mailbox is not None:
            self._mailbox.post(self._stopped)

    def _stopped(self) -> None:
        self._session.wake_receivers()
        if self.parts is not None and not self._session.closing:
            self.parts.fetcher.kick()
            self.parts.redelivery.inspect_now()

    def refuse_other_task(self) -> None:
        """Raises ``ConsumerStateError`` in another task than the one that entered."""
        if anyio.get_current_task().id != self._task_id:
            raise ConsumerStateError(
                "the consumer is left in another task than the one that entered it, and its tasks cannot follow. "
                "Async-generator fixtures of pytest-asyncio do that: enter the consumer inside the test, or use "
                "anyio's pytest plugin"
            )

    def raise_unseen_failure(self) -> None:
        """Raises what ended the consumer, if no call has raised it yet: as itself, not in a group."""
        session = self._session
        if session.failure is not None and not session.failure_seen:
            session.failure_seen = True
            raise session.failure

    # Tasks

    async def _subscribe(self, parts: Parts) -> None:
        session = self._session
        try:
            # Not shielded while it connects: whoever gives up entering must not wait for a broker that never answers.
            with self._scopes.shielded(at_once=False) as scope:
                try:
                    async with self._source.subscribe(parts.partitions) as subscription:
                        scope.shield = True
                        session.subscription = subscription
                        self._connected.set()
                        await parts.leave.wait()
                except anyio.get_cancelled_exc_class() as error:
                    # Before it is connected there is no shield: then it may be for whoever enters, who knows as well.
                    if scope.cancel_called or not scope.shield:
                        self._refused = _stray(error)
                        raise

                    # Let through, it would have left the group in silence, and the fetcher without a subscription.
                    raise _stray(error) from error
        except Exception as error:
            if session.state == "starting":
                self._refused = error
            else:
                session.fail(unwrapped(error))
        finally:
            self._connected.set()
            parts.left.set()

    async def _guarded(self, task: Callable[[], Awaitable[None]]) -> None:
        """Runtime tasks let no exception escape: the first is kept for the user."""
        with self._scopes.shielded() as scope:
            try:
                await task()
            except anyio.get_cancelled_exc_class() as error:
                if scope.cancel_called:
                    raise

                # Not ours: something that was awaited had been cancelled (an asyncio task of a driver, of a route for
                # dead letters). Let through, it would end this task in silence and cancel the user's block.
                self._session.fail(_stray(error))
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:
                # While the subscription is being left its client may be closed already; all is settled and written.
                if not self._session.closing:
                    self._session.fail(unwrapped(error))


def _stray(error: BaseException) -> PermanentDriverError:
    failure = PermanentDriverError(
        "something it awaited was cancelled by somebody else, so a task of the consumer cannot go on",
        slot="source",
        operation="run",
    )
    failure.__cause__ = error
    return failure
