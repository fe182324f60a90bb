"""The order of closing, on one screen.

``close_timeout`` is split: handlers in flight at most 60 %, dead letters and the last commit 30 %, leaving 10 %. No
phase eats another's share, so the broker gets the last position even if a handler never ends, and the process ends even
if the broker never answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from rustmq_sdk._runtime.wiring import Parts

IN_FLIGHT = 0.6
SETTLE = 0.3
LEAVE = 0.1


async def shut_down(parts: Parts, *, wait_for_receivers: bool) -> None:
    """Stop fetching, let in-flight finish, settle, commit, leave.

    Args:
        parts: of the running consumer.
        wait_for_receivers: also wait for messages that ``receive()`` handed out (``close()`` from another task does;
            leaving the context cannot, it is where they would be settled).
    """
    session = parts.session
    timeout = session.config.close_timeout
    session.state = "stopping"
    session.stopping = True
    session.wake_receivers()
    # A fetch that waits would still take in what comes meanwhile, and hold the leases of it until we leave.
    parts.fetcher.kick()

    with anyio.CancelScope(shield=True):
        with anyio.move_on_after(timeout * IN_FLIGHT):
            if parts.workers is not None:
                await parts.workers.finished.wait()

            if wait_for_receivers:
                await parts.partitions.drained(list(session.lanes))

        if parts.workers is not None:
            # Out of time: the handlers are cancelled and their messages released.
            parts.workers.cancel()

        with anyio.move_on_after(timeout * SETTLE):
            if parts.letters is not None:
                # Half of it: a dead-letter route that is down must not cost the last commit.
                with anyio.move_on_after(timeout * SETTLE / 2):
                    await parts.letters.written()

            await parts.finish_settling()

        session.closing = True
        parts.partitions.hurry()
        parts.leave.set()
        with anyio.move_on_after(timeout * LEAVE):
            await parts.left.wait()
