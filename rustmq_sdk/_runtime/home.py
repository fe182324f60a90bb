"""Where something was entered: only there can anybody wait for it."""

from __future__ import annotations

from threading import get_ident
from typing import final

from anyio.lowlevel import current_token

from rustmq_sdk.errors import ConsumerStateError


@final
class Home:
    """The running event loop and its thread: from others nobody can wait here, and nothing here can be woken.

    An event that is set in one loop wakes nobody in another: such a wait has no end, whatever its time limit. Setting
    one from another thread fails on trio, in the middle of what was to be told, and on asyncio is seen later or never.

    Args:
        what: lives here, for errors.
    """

    __slots__ = ("_loop", "_thread", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop = current_token().native_token
        self._thread = get_ident()

    def require(self, call: str) -> None:
        """Raises ``ConsumerStateError`` in any other loop. Takes 1 us: for calls that are going to wait."""
        if current_token().native_token is not self._loop:
            raise self._refusal(call)

    def require_thread(self, call: str) -> None:
        """Raises ``ConsumerStateError`` in any other thread. Takes 0.05 us: for calls that tell others something."""
        if get_ident() != self._thread:
            raise self._refusal(call)

    def _refusal(self, call: str) -> ConsumerStateError:
        return ConsumerStateError(
            f"{call}: the {self._what} belongs to another event loop, for example that of another thread, and what is "
            f"waited for or told here would not cross over. Take token = anyio.lowlevel.current_token() where the "
            f"{self._what} was entered, and make the call from here by anyio.from_thread.run(…, token=token)"
        )
