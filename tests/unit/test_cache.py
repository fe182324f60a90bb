from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk._runtime.cache import Body, MessageCache
from rustmq_sdk.values import Assignment, TopicPartition, size_of

HERE = Assignment(TopicPartition("quakes", 0), 1)
THERE = Assignment(TopicPartition("quakes", 1), 1)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Owner:
    """As a ledger is: compared by identity."""


class Jumping(Clock):
    """Far ahead after so many readings."""

    left = 1_000

    def __call__(self) -> float:
        self.left -= 1
        return self.now if self.left >= 0 else self.now + 100


def body(payload: bytes | None = b"12345678", key: bytes | None = b"k") -> Body:
    return Body(payload, key, (("n", b"v"), ("m", None)), 7)


SIZE = size_of(*body()[:3])


def cache(max_messages: int = 3, max_bytes: int = 1000, ttl: float = 10.0, clock: Clock | None = None) -> MessageCache:
    return MessageCache(max_messages, max_bytes, ttl, clock or Clock())


def taken(kept: MessageCache, owner: Hashable, offsets: Iterable[int]) -> list[int]:
    """The offsets whose bodies are found."""
    return [offset for offset in offsets if kept.take((owner, offset)) is not None]


def test_bytes_are_those_of_payload_key_and_headers() -> None:
    assert SIZE == 8 + 1 + 2 + 1
    assert size_of(None, None, ()) == 0


def test_a_body_is_given_away_once() -> None:
    kept = cache()
    kept.put((HERE, 1), body())
    assert kept.take((HERE, 1)) == body()
    assert kept.take((HERE, 1)) is None


def test_a_tombstone_is_a_body_and_not_a_miss() -> None:
    kept = cache()
    kept.put((HERE, 1), Body(None, None, (), 0))
    assert kept.take((HERE, 1)) == Body(None, None, (), 0)


def test_keys_are_told_apart_by_assignment_and_offset() -> None:
    kept = cache()
    kept.put((HERE, 1), body(b"here"))
    kept.put((THERE, 1), body(b"there"))
    kept.put((HERE, 2), body(b"next"))
    assert kept.take((THERE, 1)) == body(b"there")
    assert kept.take((Assignment(HERE.tp, 1), 1)) is None
    assert kept.take((HERE, 1)) == body(b"here")


def test_a_full_cache_forgets_the_longest_kept_body_and_says_so_by_none() -> None:
    kept = cache(max_messages=2)
    for offset in (1, 2, 3):
        kept.put((HERE, offset), body())

    assert kept.take((HERE, 1)) is None
    assert kept.take((HERE, 2)) is not None
    assert kept.take((HERE, 3)) is not None


def test_bytes_are_a_budget_of_their_own() -> None:
    kept = cache(max_messages=100, max_bytes=3 * SIZE)
    for offset in range(3):
        kept.put((HERE, offset), body())

    kept.put((HERE, 9), body(b"1" * (8 + SIZE)))
    assert taken(kept, HERE, range(10)) == [2, 9]


def test_a_body_larger_than_the_budget_is_not_kept_and_evicts_nobody() -> None:
    kept = cache(max_bytes=2 * SIZE)
    kept.put((HERE, 1), body())
    kept.put((HERE, 2), body(b"1" * 1000))
    assert taken(kept, HERE, range(3)) == [1]


@pytest.mark.parametrize(("max_messages", "max_bytes"), [(0, 1000), (1000, 0), (0, 0)])
def test_a_budget_of_nothing_turns_the_cache_off(max_messages: int, max_bytes: int) -> None:
    kept = cache(max_messages, max_bytes)
    kept.put((HERE, 1), Body(None, None, (), 0))
    kept.expire()
    kept.forget(HERE)
    assert kept.take((HERE, 1)) is None


def test_an_old_body_is_forgotten() -> None:
    clock = Clock()
    kept = cache(ttl=10, clock=clock)
    kept.put((HERE, 1), body())
    clock.now += 9.9
    kept.put((HERE, 2), body())
    clock.now += 0.2
    assert kept.take((HERE, 1)) is None
    assert kept.take((HERE, 2)) == body()


@pytest.mark.parametrize("how", ["take", "expire", "forget", "put"])
def test_what_is_forgotten_is_held_no_longer(how: str) -> None:
    clock = Clock()
    kept = cache(max_messages=1, ttl=10, clock=clock)
    owner = Owner()
    watched = weakref.ref(owner)
    kept.put((owner, 1), body())
    if how == "take":
        kept.take((owner, 1))
    elif how == "forget":
        kept.forget(owner)
    elif how == "put":
        kept.put((HERE, 1), body())
    else:
        clock.now += 11
        kept.expire()

    del owner
    assert watched() is None


def test_a_body_put_again_replaces_the_one_before_and_counts_once() -> None:
    clock = Clock()
    kept = cache(max_messages=2, ttl=10, clock=clock)
    kept.put((HERE, 1), body(b"old"))
    kept.put((HERE, 2), body())
    clock.now += 6
    kept.put((HERE, 1), body(b"new"))
    clock.now += 3
    assert kept.take((HERE, 2)) == body()
    clock.now += 6
    assert kept.take((HERE, 1)) == body(b"new")


def test_the_bodies_of_one_assignment_are_forgotten_together() -> None:
    kept = cache(max_messages=10)
    for offset in range(3):
        kept.put((HERE, offset), body())
        kept.put((THERE, offset), body())

    kept.forget(HERE)
    assert taken(kept, HERE, range(3)) == []
    assert taken(kept, THERE, range(3)) == [0, 1, 2]


@pytest.mark.parametrize("readings", range(12))
def test_bodies_that_grow_too_old_while_others_are_forgotten_do_no_harm(readings: int) -> None:
    clock = Jumping()
    kept = cache(max_messages=100, ttl=10, clock=clock)
    for offset in range(3):
        kept.put((HERE, offset), body())

    clock.left = readings
    kept.forget(HERE)
    assert taken(kept, HERE, range(3)) == []


@pytest.mark.parametrize("readings", range(12))
def test_bodies_that_grow_too_old_while_they_are_evicted_do_no_harm(readings: int) -> None:
    clock = Jumping()
    kept = cache(max_messages=1, ttl=10, clock=clock)
    kept.put((HERE, 1), body())
    clock.left = readings
    kept.put((HERE, 2), body(b"new"))
    assert kept.take((HERE, 2)) in (body(b"new"), None)


entries = st.tuples(st.sampled_from(["put", "take", "forget", "expire", "wait"]), st.integers(0, 8), st.integers(0, 40))


@given(st.lists(entries, max_size=80), st.integers(0, 4), st.integers(0, 60))
def test_what_is_found_is_what_was_put_and_the_budgets_hold(
    steps: list[tuple[str, int, int]], max_messages: int, max_bytes: int
) -> None:
    clock = Clock()
    kept = cache(max_messages, max_bytes, ttl=10, clock=clock)
    latest: dict[int, tuple[Body, float]] = {}
    for what, offset, number in steps:
        if what == "put":
            latest[offset] = Body(bytes(number), None, (), number), clock.now
            kept.put((HERE, offset), latest[offset][0])
        elif what == "take":
            found = kept.take((HERE, offset))
            if found is not None:
                put, since = latest.pop(offset)
                assert found == put
                assert clock.now - since < 10
        elif what == "forget":
            kept.forget(HERE)
            latest.clear()
        elif what == "expire":
            kept.expire()
        else:
            clock.now += number / 10

    left = [found for offset in range(9) if (found := kept.take((HERE, offset))) is not None]
    assert len(left) <= max_messages
    assert sum(len(found.payload or b"") for found in left) <= max_bytes
