"""A contract is worth what it catches: the in-memory driver, broken in one place, fails the test of that promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from anyio.lowlevel import checkpoint

from rustmq_sdk._bell import FetchBell
from rustmq_sdk.drivers.memory import MemoryDriver, log_source
from rustmq_sdk.drivers.memory import open as open_memory
from rustmq_sdk.drivers.memory.groups import Group
from rustmq_sdk.drivers.memory.letters import LetterBox
from rustmq_sdk.drivers.memory.log import PartitionLog
from rustmq_sdk.drivers.memory.log_source import MemoryLogSubscription
from rustmq_sdk.drivers.memory.membership import Membership
from rustmq_sdk.drivers.memory.queues import Queue
from rustmq_sdk.drivers.memory.remembered_appends import RememberedAppends
from rustmq_sdk.drivers.memory.stores import MemoryStateStore
from rustmq_sdk.slots import Driver, SettleOutcome
from rustmq_sdk.testing import BACKENDS, run
from rustmq_sdk.testing.clock import Backend
from rustmq_sdk.testing.contracts import (
    DeadLetterQueueContract,
    LogSourceContract,
    QueueSourceContract,
    SinkContract,
    StateStoreContract,
)
from rustmq_sdk.testing.contracts.base import Contract
from rustmq_sdk.values import Checkpoint, CommitOutcome, DeadLetter, TopicPartition, Version, Versioned

Original = Callable[..., Any]
Break = Callable[[Original], Original]


class Log(LogSourceContract):
    cooperative = True

    def truncate(self, driver: Driver, tp: TopicPartition, before: int) -> None:
        assert isinstance(driver, MemoryDriver)
        driver.broker.truncate(tp.topic, tp.partition or 0, before)


class Letters(DeadLetterQueueContract):
    async def stored(self, driver: Driver, topic: str) -> list[DeadLetter]:
        assert isinstance(driver, MemoryDriver)
        return driver.broker.letters[topic].letters


class Mutant(NamedTuple):
    """One place broken.

    Attributes:
        owner, name: the function that is replaced.
        broken: makes the broken one of the sound one.
        suite, test: what has to notice.
    """

    owner: object
    name: str
    broken: Break
    suite: type[Contract]
    test: str


def nothing(_: Original) -> Original:
    return lambda *_, **__: None


def changed(**changes: Any) -> Break:
    """The same function with other arguments."""
    return lambda sound: lambda *args, **kwargs: sound(*args, **{**kwargs, **changes})


def no_message_limit(sound: Original) -> Original:
    return lambda log, position, _, size, **kwargs: sound(log, position, 10**9, size, **kwargs)


def no_byte_limit(sound: Original) -> Original:
    return lambda log, position, count, _, **kwargs: sound(log, position, count, 10**9, **kwargs)


def one_too_far(sound: Original) -> Original:
    return lambda *args, **kwargs: (cut := sound(*args, **kwargs))._replace(next_offset=cut.next_offset + 1)


def not_far_enough(sound: Original) -> Original:
    def cut(log: PartitionLog, position: int, *args: Any, **kwargs: Any) -> Any:
        found = sound(log, position, *args, **kwargs)
        return found._replace(next_offset=max(position + 1, found.next_offset - 1))

    return cut


def without_gone(sound: Original) -> Original:
    return lambda *args, **kwargs: sound(*args, **kwargs)._replace(gone=())


def taken_before_a_checkpoint(sound: Original) -> Original:
    async def fetch(*args: Any, **kwargs: Any) -> Any:
        pieces = await sound(*args, **kwargs)
        await checkpoint()
        return pieces

    return fetch


def without_null_headers(sound: Original) -> Original:
    def append(log: PartitionLog, payload: Any, key: Any, headers: Any, timestamp: int) -> Any:
        return sound(log, payload, key, tuple((name, value or b"") for name, value in headers), timestamp)

    return append


def without_tombstones(sound: Original) -> Original:
    return lambda log, payload, *rest: sound(log, payload or b"", *rest)


def without_extra(sound: Original) -> Original:
    return lambda group, claim, position: sound(group, claim, Checkpoint(position.offset))


def always_committed(sound: Original) -> Original:
    def write(subscription: MemoryLogSubscription, assignment: Any, position: Checkpoint) -> CommitOutcome:
        subscription._group.committed[assignment.tp] = position
        return CommitOutcome.COMMITTED

    return write


def released_before_it_is_drained(sound: Original) -> Original:
    async def give_up(membership: Membership, surplus: Any) -> None:
        membership._group.release(surplus)
        await sound(membership, surplus)

    return give_up


def only_what_is_held(_: Original) -> Original:
    return lambda membership, assignment: membership.held.get(assignment)


async def not_reported(*_: Any) -> None: ...


def old_stays_alive(_: Original) -> Original:
    def rename(membership: Membership, old: Any, new: Any) -> None:
        membership.held[new] = membership.held[old]

    return rename


def never_stale(_: Original) -> Original:
    async def put(store: MemoryStateStore, key: str, value: bytes, *, if_version: Version | None) -> Version:
        store._writes += 1
        store._values[key] = Versioned(value, Version(store._writes))
        return Version(store._writes)

    return put


def checked_too_early(_: Original) -> Original:
    async def put(store: MemoryStateStore, key: str, value: bytes, *, if_version: Version | None) -> Version | None:
        current = store._values.get(key)
        if (current.version if current else None) != if_version:
            return None

        await checkpoint()
        store._writes += 1
        store._values[key] = Versioned(value, Version(store._writes))
        return Version(store._writes)

    return put


def backwards(sound: Original) -> Original:
    return lambda broker, tp, messages: sound(broker, tp, list(messages)[::-1])


def settled_anyhow(_: Original) -> Original:
    return lambda *_: SettleOutcome.SETTLED


def at_once(sound: Original) -> Original:
    return lambda queue, lease, now, delay, **kwargs: sound(queue, lease, now, 0.0, **kwargs)


def all_counted(sound: Original) -> Original:
    return lambda queue, lease, at, **_: sound(queue, lease, at)


def leased_for_ever(sound: Original) -> Original:
    return lambda queue, now, _, *rest, **kwargs: sound(queue, now, 1e9, *rest, **kwargs)


def forgotten(_: Original) -> Original:
    return lambda queue, lease, *_, **__: SettleOutcome.SETTLED


MUTANTS = [
    Mutant(PartitionLog, "cut", one_too_far, Log, "a_fetch_in_small_pieces_returns_the_same"),
    Mutant(PartitionLog, "cut", not_far_enough, Log, "every_record_arrives_once_and_in_order"),
    Mutant(PartitionLog, "cut", no_message_limit, Log, "a_fetch_brings_no_more_messages_than_asked"),
    Mutant(PartitionLog, "cut", no_byte_limit, Log, "a_fetch_brings_no_more_bytes_than_asked"),
    Mutant(PartitionLog, "cut", changed(at_least_one=False), Log, "one_message_larger_than_the_limit_gets_through"),
    Mutant(PartitionLog, "cut", without_gone, Log, "what_retention_took_is_named"),
    Mutant(PartitionLog, "read", without_gone, Log, "reading_what_is_gone_says_so"),
    Mutant(PartitionLog, "announce", nothing, Log, "a_waiting_fetch_returns_when_a_record_arrives"),
    Mutant(PartitionLog, "append", without_null_headers, Log, "a_record_comes_back_as_it_was_sent"),
    Mutant(PartitionLog, "append", without_tombstones, Log, "an_empty_payload_is_not_a_missing_one"),
    Mutant(log_source, "_served", lambda _: lambda _: 0, Log, "every_partition_is_served_within_one_round"),
    Mutant(MemoryLogSubscription, "fetch", taken_before_a_checkpoint, Log, "a_cancelled_fetch_loses_nothing"),
    Mutant(MemoryLogSubscription, "wake", nothing, Log, "wake_ends_a_waiting_fetch"),
    Mutant(FetchBell, "end", lambda _: FetchBell.ring, Log, "wake_before_a_fetch_ends_the_next_one"),
    Mutant(MemoryLogSubscription, "_changed", nothing, Log, "a_change_of_assignment_ends_a_waiting_fetch"),
    Mutant(Group, "commit", without_extra, Log, "a_checkpoint_comes_back_as_it_was_written"),
    Mutant(MemoryLogSubscription, "_write", always_committed, Log, "a_moved_partition_is_fenced"),
    Mutant(MemoryLogSubscription, "_write", always_committed, Log, "a_commit_under_an_unknown_assignment_is_fenced"),
    Mutant(Membership, "rename", old_stays_alive, Log, "a_seek_moves_the_fetch_position"),
    Mutant(Membership, "claim_of", only_what_is_held, Log, "commits_count_until_revoking_returns"),
    Mutant(
        Membership,
        "_give_up",
        released_before_it_is_drained,
        Log,
        "a_partition_moves_only_after_revoking_returned",
    ),
    Mutant(Membership, "_part_with", lambda _: not_reported, Log, "what_was_revoked_is_lost_or_comes_back"),
    Mutant(Group, "leave", nothing, Log, "a_leaving_member_gives_everything_back"),
    Mutant(RememberedAppends, "recall", nothing, SinkContract, "a_repeated_sequence_is_stored_once"),
    Mutant(MemoryStateStore, "put", never_stale, StateStoreContract, "a_put_with_an_older_version_changes_nothing"),
    Mutant(MemoryStateStore, "put", checked_too_early, StateStoreContract, "of_racing_writers_exactly_one_wins"),
    Mutant(MemoryStateStore, "put", checked_too_early, StateStoreContract, "a_counter_loses_no_increment"),
    Mutant(
        LetterBox,
        "add",
        changed(dedup=False),
        Letters,
        "a_repeated_letter_is_kept_at_least_once_and_at_most_once_where_claimed",
    ),
    Mutant(Queue, "take", leased_for_ever, QueueSourceContract, "an_unsettled_message_comes_again_after_its_lease"),
    Mutant(Queue, "settle", settled_anyhow, QueueSourceContract, "an_unsettled_message_comes_again_after_its_lease"),
    Mutant(Queue, "extend", lambda _: lambda *_: True, QueueSourceContract, "an_extended_lease_lasts"),
    Mutant(Queue, "give_back", at_once, QueueSourceContract, "each_nack_has_its_own_delay"),
    Mutant(Queue, "give_back", forgotten, QueueSourceContract, "a_nacked_message_comes_again_and_the_attempt_counts"),
    Mutant(Queue, "_again", all_counted, QueueSourceContract, "giving_back_uncounted_counts_no_attempt"),
    Mutant(FetchBell, "end", nothing, QueueSourceContract, "wake_ends_a_fetch"),
]


def run_test(suite: type[Contract], name: str, backend: Backend) -> None:
    async def test() -> None:
        kind = "queue" if suite is QueueSourceContract else "log"
        async with open_memory(f"memory://?kind={kind}") as driver:
            wanted = getattr(suite, f"test_{name}").__code__.co_varnames
            offered: Mapping[str, Any] = {
                "driver": driver,
                "topic": "topic",
                "group": "group",
                "store": driver.state_store("store"),
                "target": 1,
            }
            arguments = {argument: value for argument, value in offered.items() if argument in wanted}
            await getattr(suite(), f"test_{name}")(**arguments)

    run(test, backend=backend, limit=1e5)


def failing(error: BaseException) -> bool:
    """Whether a test framework would call this a failure of the test."""
    if isinstance(error, BaseExceptionGroup):
        return any(failing(inner) for inner in error.exceptions)

    return isinstance(error, Exception)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.name}-{mutant.broken.__name__}-{mutant.test}")
def test_a_broken_promise_is_noticed(mutant: Mutant, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    run_test(mutant.suite, mutant.test, backend)
    monkeypatch.setattr(mutant.owner, mutant.name, mutant.broken(getattr(mutant.owner, mutant.name)))
    with pytest.raises(BaseException) as noticed:  # noqa: PT011  # a group of either kind, or one of many errors
        run_test(mutant.suite, mutant.test, backend)

    assert failing(noticed.value), noticed.value
