"""Which outcomes say something about a backend's health, and who may call it meanwhile.

``closed``: everybody may. ``open``: nobody, until the open period is over. ``half-open``: one call at a time, the
probe, whose outcome closes or opens the circuit. Counting failures and choosing the state is not done here.
"""

from __future__ import annotations

from math import inf

from rustmq_sdk.errors import OutcomeUnknown, TransientDriverError

CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half-open"

PROBE_PAUSE = 0.25
"""Seconds between probes that had no outcome: an idle topic answers a probe with nothing again and again."""
UNCOUNTED = -1
"""The ticket of a call whose outcome counts for nothing, whatever it is."""


def is_failure(error: BaseException) -> bool:
    """Whether the backend is to blame: it answered transiently wrong, too late, or not at all.

    All else says nothing about its health, neither good nor bad. A fenced commit, a wrong password, an unknown topic or
    something it cannot do is answered by a backend in the best of health; a cancelled call was not answered; and any
    other exception is a bug on our side, which leaving the backend alone would only hide.
    """
    return isinstance(error, TransientDriverError | TimeoutError | OutcomeUnknown)


class Gate:
    """Who may call now. Told the time and the state; each admission is a ticket, shown again with the outcome.

    Promises:
        1. Half-open, one ticket that counts is out at a time.
        2. A ticket counts only in the state in which it was given out: what a call says that was admitted before the
           state last changed is old news.
        3. A ticket that is given back without an outcome frees its place.

    Attributes:
        state: the present one.
        quiet: closed, and no failure is counted: whoever sees it may call with the ticket ``epoch``, and need not
            report a success.
        epoch: the ticket that counts.
        probing: half-open, and a probe is out.
    """

    __slots__ = ("_not_before", "epoch", "probing", "quiet", "state")

    def __init__(self) -> None:
        self.state = CLOSED
        self.quiet = True
        self.epoch = 0
        self.probing = False
        self._not_before = -inf

    def admits(self, now: float) -> bool:
        """Whether somebody may enter, if it is to go by the rules; an open gate has to be moved to half-open before."""
        return not self.probing and now >= self._not_before

    def enter(self) -> int:
        """A ticket for one call."""
        if self.probing:
            return UNCOUNTED

        if self.state == HALF_OPEN:
            self.probing = True
            self.epoch += 1

        return self.epoch

    def counts(self, ticket: int) -> bool:
        """Whether the outcome of the call with this ticket says something about now."""
        return ticket == self.epoch

    def give_back(self, ticket: int, not_before: float) -> None:
        """The call had no outcome. If it was the probe, the next one may come at ``not_before``."""
        if self.probing and self.counts(ticket):
            self.probing = False
            self._not_before = max(self._not_before, not_before)

    def admits_in(self, now: float) -> float | None:
        """Seconds until somebody may enter, if nothing happens before; None while a probe is out."""
        return None if self.probing else max(0.0, self._not_before - now)

    def move(self, state: str) -> None:
        """The state changed: no ticket given out before counts any more."""
        self.state = state
        self.epoch += 1
        self.probing = False
        if state == CLOSED:
            self.calm()

    def trouble(self, not_before: float = -inf) -> None:
        """A failure was counted, and nobody is to enter before that time."""
        self.quiet = False
        self._not_before = max(self._not_before, not_before)

    def calm(self) -> None:
        """Closed, and no failure is counted any more."""
        self.quiet = True
        self._not_before = -inf
