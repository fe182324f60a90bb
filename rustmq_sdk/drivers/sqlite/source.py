"""A source: topics and a group, not yet subscribed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import anyio

from rustmq_sdk._bell import Bell, FetchBell
from rustmq_sdk._task_groups import raised_as_itself
from rustmq_sdk._threads import Mailbox
from rustmq_sdk.drivers.sqlite.broadcast import MEMBERS, TOPICS, Changed, LoopListener, group_key
from rustmq_sdk.drivers.sqlite.fetching import Fetching
from rustmq_sdk.drivers.sqlite.file import LogFile
from rustmq_sdk.drivers.sqlite.holdings import Holdings
from rustmq_sdk.drivers.sqlite.membership import Membership
from rustmq_sdk.drivers.sqlite.membership_task import MembershipTask
from rustmq_sdk.drivers.sqlite.solo import Solo
from rustmq_sdk.drivers.sqlite.subscription import SqliteSubscription
from rustmq_sdk.slots import AssignmentListener, Capabilities, SourceRequest

APPEND_MESSAGES = 2000
"""A sync costs as much as storing 500 messages: those that waited for one go together with the next. More than this
gains little, and whoever is first in an append waits for its last."""

CAPABILITIES = Capabilities(
    kind="log",
    checkpoint_room=None,
    seek=True,
    offsets_at=True,
    read=True,
    dense_offsets=True,
    idempotent_append=True,
    append_messages=APPEND_MESSAGES,
    fences=True,
)

LEAVE_SECONDS = 2.0
"""How long leaving the group may take; after that the others wait for the lease instead."""


class SqliteSource:
    """Fills :class:`rustmq_sdk.slots.Source`.

    Without a group it has all partitions of its topics; ``commit`` raises ``Unsupported`` and ``committed`` knows
    nothing. A topic that does not exist is waited for.
    """

    def __init__(self, file: LogFile, request: SourceRequest) -> None:
        self._file = file
        self._request = request

    @property
    def capabilities(self) -> Capabilities:
        """The driver's."""
        return CAPABILITIES

    def subscribe(self, listener: AssignmentListener) -> AbstractAsyncContextManager[SqliteSubscription]:
        return self._subscribed(listener)

    @asynccontextmanager
    async def _subscribed(self, listener: AssignmentListener) -> AsyncIterator[SqliteSubscription]:
        request, fetch_bell, look_bell = self._request, FetchBell(), Bell()
        holdings = Holdings(check_crcs=self._file.options.check_crcs)
        ours: Membership | Solo
        keys: frozenset[Hashable]
        if request.group is None:
            ours, keys = Solo(self._file, request, listener, holdings, fetch_bell), frozenset({TOPICS})
        else:
            missed = partial(Mailbox.current().post, look_bell.ring)
            ours = Membership(self._file, request, listener, holdings, fetch_bell, missed)
            keys = frozenset({TOPICS, MEMBERS, group_key(request.group)})

        membership = MembershipTask(ours, keys, fetch_bell, look_bell)
        fetching = Fetching(self._file, holdings, membership, fetch_bell)
        subscription = SqliteSubscription(self._file, request.group, holdings, fetching, membership)
        with raised_as_itself() as body:
            async with _listening(self._file, fetching, membership), anyio.create_task_group() as tasks:
                # Its first step comes after this generator has yielded: the listener has its subscription by then.
                tasks.start_soon(membership.run)
                with body:
                    yield subscription

                tasks.cancel_scope.cancel()


@asynccontextmanager
async def _listening(file: LogFile, fetching: Fetching, membership: MembershipTask) -> AsyncIterator[None]:
    """Hears broadcasts meanwhile, and leaves the group at the end, also when cancelled."""

    def tell(changed: Changed) -> None:
        fetching.heard(changed)
        membership.heard(changed)

    loop_listener = LoopListener(tell)
    file.watcher.listen(loop_listener.hear)
    try:
        yield
    finally:
        file.watcher.unlisten(loop_listener.hear)
        with anyio.move_on_after(LEAVE_SECONDS, shield=True):
            await membership.leave()
