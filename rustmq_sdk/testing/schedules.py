"""Seeded schedules: the order in which ready tasks run, shuffled by a seed and the same on every run with it.

What else is left to chance, the jitter of backoff, repeats with it.

A race that shows itself once in a thousand runs shows itself at some seed, and then at that seed every time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

import anyio

from rustmq_sdk._runtime.seeding import seeds
from rustmq_sdk.testing.clock import Backend, virtual_time

T = TypeVar("T")

DAY = 86_400.0


def run(
    test: Callable[[], Awaitable[T]],
    *,
    backend: Backend = "asyncio",
    seed: int | None = None,
    virtual: bool = True,
    limit: float | None = None,
) -> T:
    """Runs ``test()`` to its end on a new loop and returns its result.

    Args:
        test: an async function without arguments.
        backend: ``"asyncio"`` or ``"trio"``.
        seed: decides the schedule, the jitter of consumers and producers that are made inside, and the module
            ``random``, from which tenacity's strategies draw. None leaves all of them to chance.
        virtual: whether time jumps (see :mod:`rustmq_sdk.testing.clock`).
        limit: seconds of the loop's time after which the test fails. Default: a day if time is virtual, so that a test
            in which everybody waits for ever fails at once; none in real time.

    Raises:
        TimeoutError: the limit was reached.
    """
    if limit is None and virtual:
        limit = DAY

    options = dict(virtual_time(backend)) if virtual else {}
    with _chance(seed), _schedule(backend, seed, options):
        return anyio.run(within, limit, test, backend=backend, backend_options=options)


async def within(limit: float | None, test: Callable[[], Awaitable[T]]) -> T:
    """Awaits ``test()``. Raises ``TimeoutError`` with an explanation if that takes longer than the limit."""
    with anyio.move_on_after(limit):
        return await test()

    raise TimeoutError(f"no end after {limit:g} s of the loop's time: every task waits for what none will do")


@contextmanager
def _chance(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return

    before, token = random.getstate(), seeds.set(random.Random(seed))
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        seeds.reset(token)


@contextmanager
def _schedule(backend: Backend, seed: int | None, options: dict[str, Any]) -> Iterator[None]:
    if seed is None:
        yield
    elif backend == "asyncio":
        base = options.get("loop_factory", asyncio.SelectorEventLoop)
        options["loop_factory"] = lambda: _shuffling(base, random.Random(seed))
        yield
    else:
        with _shuffled_trio(seed):
            yield


@contextmanager
def _shuffled_trio(seed: int) -> Iterator[None]:
    """Trio shuffles by itself; this seeds it. Its Hypothesis plugin sets the same two private names."""
    from trio._core import _run

    scheduler: ModuleType = _run
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()
    setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010  # declared Final
    scheduler._r.seed(seed)
    try:
        yield
    finally:
        setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", before[0])  # noqa: B010
        scheduler._r.setstate(before[1])


def _shuffling(base: type[asyncio.SelectorEventLoop], rng: random.Random) -> asyncio.SelectorEventLoop:
    class ShufflingLoop(base):  # type: ignore[misc,valid-type]  # real or virtual time
        """Shuffles the turns of tasks. Plain callbacks keep their places: asyncio promises their order."""

        def _run_once(self) -> None:
            ready = self._ready
            places = [place for place, handle in enumerate(ready) if _is_turn_of_a_task(handle)]
            if len(places) > 1:
                turns = [ready[place] for place in places]
                rng.shuffle(turns)
                for place, turn in zip(places, turns, strict=True):
                    ready[place] = turn

            super()._run_once()

    return ShufflingLoop()


def _is_turn_of_a_task(handle: asyncio.Handle) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)  # type: ignore[attr-defined]
