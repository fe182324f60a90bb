"""What happened to every message, written down outside of the consumers, and compared with what was promised.

Nothing here asks the runtime: it sees what users see (deliveries, and what settling answered) and what the broker
sees (commits, settlements, letters).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import anyio

from rustmq_sdk import AckResult, Message, TopicPartition
from rustmq_sdk._core.checkpoint import decode
from rustmq_sdk.drivers.memory.broker import MemoryBroker
from rustmq_sdk.drivers.memory.groups import Claim
from rustmq_sdk.message import FREE, WATCH
from rustmq_sdk.values import Checkpoint
from tests.faults.records import Owner, Partition, Sought

SETTLED = (AckResult.RECORDED, AckResult.DURABLE, AckResult.PENDING)


class Journal:
    """The record of one simulation.

    Args:
        broker: where the truth is.
        group: whose positions are watched.
        is_queue: messages are settled one by one.
        max_attempts: of the retry policy.
    """

    def __init__(self, broker: MemoryBroker, group: str, topic: str, *, is_queue: bool, max_attempts: int) -> None:
        self.broker = broker
        self.topic = topic
        self.is_queue = is_queue
        self.max_attempts = max_attempts
        self.group = broker.group(group)
        self.partitions: dict[int, Partition] = defaultdict(Partition)
        self.violations: list[str] = []
        self.trace: list[str] = []
        self._slots: set[tuple[object, int]] = set()
        self._opened: set[tuple[object, int]] = set()
        self._decoded: dict[Checkpoint, list[tuple[int, int]]] = {}
        self._letters_read = 0
        self._lettered: set[tuple[int, int]] = set()
        self._commit = self.group.commit
        self.group.commit = self._watch_commit  # type: ignore[method-assign]  # the broker's own word

    # What users see

    def delivered(self, owner: Owner, message: Message) -> None:
        """A message reached a user."""
        tp, offset = self.place(message)
        self.note(f"{owner.name} got {tp}@{offset} attempt {message.attempt}")
        owner.counts["delivered"] += 1
        if tp in owner.paused or message._piece.assignment.tp in owner.paused:
            self.broken(f"{owner.name} was handed {tp}@{offset}, which is paused")

        self._check_body(message, tp, offset)
        if self.is_queue:
            return

        partition = self._of(tp)
        if message.attempt > self.max_attempts + partition.starts:
            self.broken(f"{tp}@{offset} came as attempt {message.attempt} of {self.max_attempts}")

        self._check_order(owner, message, tp, offset)
        covered = self._live_checkpoint(owner, tp)
        if covered is not None and not partition.sought and self._covers(covered, offset):
            self.broken(f"{owner.name} was handed {tp}@{offset} again, which the committed {covered} covers")

    def settling(self, owner: Owner, message: Message) -> tuple[Partition, int]:
        """An ack is on its way: from here on a commit may carry it."""
        tp, offset = self.place(message)
        partition = self._of(tp)
        if message._piece[message._index] in (FREE, WATCH):
            self._opened.add((message._piece, message._index))
            if offset not in partition.handled and not owner.dead:
                # Now, not when a durable ack returns: from here on the next message of the key may run.
                partition.finished.append((offset, message.key))

        partition.settled.add(offset)
        partition.under_way[offset] += 1
        if partition.sought is not None:
            partition.sought.since.add(offset)

        return partition, offset

    def acked(self, owner: Owner, message: Message, result: AckResult | None) -> None:
        """What an ack answered; None where it raised ``StalePartition`` or was cancelled while it waited."""
        tp, offset = self.place(message)
        partition = self._of(tp)
        partition.under_way[offset] -= 1
        slot = (message._piece, message._index)
        self.note(f"{owner.name} acked {tp}@{offset} attempt {message.attempt}: {result and result.value}")
        if result is None and slot in self._opened:
            # Settled, and nobody heard whether the broker has it.
            result = AckResult.PENDING

        if result not in SETTLED:
            if offset not in partition.handled and not partition.under_way[offset]:
                partition.settled.discard(offset)
                if partition.sought is not None:
                    partition.sought.since.discard(offset)

            return

        if result is AckResult.DURABLE:
            self._check_durable(owner, tp, offset)

        if slot in self._slots and result is AckResult.RECORDED:
            self.broken(f"{owner.name}: {tp}@{offset} attempt {message.attempt} was settled before, and acked again")

        # A durable ack of what a dead letter has settled meanwhile is answered as well, and was no ack.
        if slot not in self._slots and slot in self._opened:
            owner.counts["acked"] += 1

        self._slots.add(slot)
        partition.handled.add(offset)

    def given_back(self, owner: Owner, message: Message, verb: str, result: AckResult) -> None:
        """What a nack or reject answered."""
        tp, offset = self.place(message)
        slot = (message._piece, message._index)
        self.note(f"{owner.name} {verb}ed {tp}@{offset} attempt {message.attempt}: {result.value}")
        if result is not AckResult.RECORDED:
            return

        if slot in self._slots:
            self.broken(f"{owner.name}: {tp}@{offset} was settled before, and could be {verb}ed")

        owner.counts[f"{verb}ed"] += 1
        self._slots.add(slot)
        if verb == "nack":
            partition = self._of(tp)
            partition.nacks[offset] += 1
            if not self.is_queue and partition.nacks[offset] > self.max_attempts * (1 + partition.starts):
                self.broken(f"{tp}@{offset} failed {partition.nacks[offset]} times of {self.max_attempts}")

    def begins(self, owner: Owner, message: Message, *, whole_partition: bool) -> tuple[TopicPartition, bytes | None]:
        """A handler of an ordered ``run()`` begins."""
        tp, offset = self.place(message)
        key = (tp, b"" if whole_partition else message.key)
        other = owner.running.get(key)
        if other is not None and other._piece[other._index] in (FREE, WATCH) and key[1] is not None:
            self.broken(f"{owner.name} handles {tp}@{offset} beside {tp}@{other.offset}, which has the same key")

        owner.running[key] = message
        return key

    def ends(self, owner: Owner, key: tuple[TopicPartition, bytes | None], message: Message) -> None:
        """It has ended."""
        if owner.running.get(key) is message:
            del owner.running[key]

    def seeks(self, owner: Owner, tp: TopicPartition, offset: int) -> None:
        """The user moves a position, now."""
        claim = self._claim(owner, tp)
        partition = self._of(tp)
        partition.was_sought = True
        partition.excused = max(partition.excused, offset)
        self.note(f"{owner.name} seeks {tp} to {offset}")
        if claim is not None:
            partition.sought = Sought(claim, offset)

    # What the broker sees

    def _watch_commit(self, claim: Claim, checkpoint: Checkpoint) -> bool:
        written = self._commit(claim, checkpoint)
        self.note(f"commit of {claim.tp} at {checkpoint.offset}: {'written' if written else 'fenced'}")
        if written:
            self._check_commit(claim, checkpoint)

        return written

    def _check_commit(self, claim: Claim, checkpoint: Checkpoint) -> None:
        partition = self._of(claim.tp)
        sought, partition.sought = partition.sought, None
        if sought is not None and sought.claim is claim:
            partition.settled = {offset for offset in partition.settled if offset < sought.offset} | sought.since
            partition.checked = min(partition.checked, sought.offset)

        for offset in range(partition.checked, checkpoint.offset):
            self._must_be_settled(claim.tp, offset, f"the position {checkpoint.offset}")

        partition.checked = checkpoint.offset
        for first, end in self._runs(checkpoint):
            for offset in range(first, end):
                self._must_be_settled(claim.tp, offset, f"what {checkpoint.offset} remembers")

    def _must_be_settled(self, tp: TopicPartition, offset: int, by: str) -> None:
        partition = self._of(tp)
        if offset in partition.settled or offset < partition.excused or self.is_lettered(tp, offset):
            return

        cut = self.broker.log(tp, operation="read").read([offset])
        if cut.records or cut.broken:
            self.broken(f"{tp}@{offset} is covered by {by}, and nobody settled it")

    def settled_at_broker(self, offset: int, *, dead: bool) -> None:
        """Queues: the broker is told that a message need not come again."""
        tp = TopicPartition(self.topic, 0)
        self.note(f"settles {offset}{' as dead' if dead else ''}")
        if dead and not self.is_lettered(tp, offset):
            self.broken(f"{offset} is terminated, and there is no letter")

        if not dead and offset not in self._of(tp).settled:
            self.broken(f"{offset} is settled at the broker, and nobody acked it")

    def is_lettered(self, tp: TopicPartition, offset: int) -> bool:
        """Whether the dead letters have it."""
        letters = self.broker.letters["dlq"].letters
        for letter in letters[self._letters_read :]:
            at = letter.offset if letter.offset is not None else int(letter.id.partition("@")[0].rpartition(":")[2])
            self._lettered.add((letter.tp.partition or 0, at))

        self._letters_read = len(letters)
        return (tp.partition or 0, offset) in self._lettered

    # In the end

    def unhandled(self) -> Iterator[str]:
        """Messages that nobody handled, and no dead letter tells of."""
        for tp, log in self._logs():
            partition = self._of(tp)
            for offset in range(log.end):
                done = offset in partition.handled or offset < partition.excused or self.is_lettered(tp, offset)
                if not done:
                    cut = log.read([offset])
                    if cut.records or cut.broken:
                        yield f"{tp}@{offset}"

    def check_key_order(self) -> None:
        """First successes came in the order in which messages were written, key by key; seeks apart."""
        for number, partition in self.partitions.items():
            last: dict[bytes, int] = {}
            for offset, key in () if partition.was_sought else partition.finished:
                if self.is_lettered(TopicPartition(self.topic, number), offset):
                    continue

                if key is not None and last.get(key, -1) > offset:
                    self.broken(f"[{number}] key {key!r}: {last[key]} was handled before {offset}")

                if key is not None:
                    last[key] = max(last.get(key, -1), offset)

    def check_positions(self) -> None:
        """After the last consumer has closed, every position is at the end of its log."""
        for tp, log in self._logs():
            committed = self.group.committed.get(tp)
            if log.end and (committed is None or committed.offset < log.end):
                self.broken(f"{tp} ends at {log.end}, all of it is settled, and {committed} is committed")

    # Tools

    def place(self, message: Message) -> tuple[TopicPartition, int]:
        """Where the message is in the broker's log, on queues too."""
        tp = message._piece.assignment.tp
        offset = int(message.id.rpartition(":")[2]) if message.offset is None else message.offset
        return TopicPartition(tp.topic, tp.partition or 0), offset

    def note(self, event: str) -> None:
        """For failure messages, and to see that a seed repeats itself."""
        self.trace.append(f"{anyio.current_time():10.4f} {event}")

    def events(self, most: int) -> list[str]:
        """What led to the first violation, or the last events where time ran out."""
        first = next((i for i, event in enumerate(self.trace) if "VIOLATION" in event), len(self.trace))
        return self.trace[max(0, first + 1 - most) : first + 1]

    def broken(self, problem: str) -> None:
        """Keeps the violation; the simulation ends and tells."""
        self.note(f"VIOLATION {problem}")
        self.violations.append(problem)

    def assigned(self, owner: Owner, tp: TopicPartition) -> None:
        """A driver gave a partition to a consumer."""
        self._of(tp).starts += 1
        owner.assignments += 1
        self.note(f"{owner.name} is assigned {tp}")

    def _check_durable(self, owner: Owner, tp: TopicPartition, offset: int) -> None:
        """Durable means that the broker has it, now."""
        if self.is_queue or self._claim(owner, tp) is None or self._of(tp).was_sought:
            return

        checkpoint = self.group.committed.get(tp)
        if checkpoint is None or not self._covers(checkpoint, offset):
            self.broken(f"{tp}@{offset} was said to be durable, and the broker has {checkpoint}")

    def _check_body(self, message: Message, tp: TopicPartition, offset: int) -> None:
        records = self.broker.log(tp, operation="read").read([offset]).records
        if records and (records[0][0], records[0][1]) != (message.payload, message.key):
            self.broken(f"{tp}@{offset} attempt {message.attempt} came as {message!r}, and is {records[0]}")

    def _check_order(self, owner: Owner, message: Message, tp: TopicPartition, offset: int) -> None:
        ledger = message._piece.ledger  # type: ignore[attr-defined]
        if owner.in_offset_order and (ledger, offset) not in owner.seen:
            if owner.highest.get(ledger, -1) > offset:
                self.broken(f"{owner.name} was handed {tp}@{offset} after {owner.highest[ledger]}")

            self._check_gap(owner, tp, owner.highest.get(ledger, offset) + 1, offset)
            owner.highest[ledger] = offset

        owner.seen.add((ledger, offset))

    def _check_gap(self, owner: Owner, tp: TopicPartition, first: int, end: int) -> None:
        """What an owner did not get although it got later ones must have been settled before."""
        for offset in range(first, end):
            settled = offset in self._of(tp).settled or self.is_lettered(tp, offset)
            if not settled and self.broker.log(tp, operation="read").read([offset]).records:
                self.broken(f"{owner.name} was handed {tp}@{end}, and never {offset} before it")

    def _live_checkpoint(self, owner: Owner, tp: TopicPartition) -> Checkpoint | None:
        claim = self._claim(owner, tp)
        return self.group.committed.get(tp) if claim is not None else None

    def _claim(self, owner: Owner, tp: TopicPartition) -> Claim | None:
        for membership in owner.memberships:
            for assignment, claim in membership.held.items():
                if assignment.tp == tp and claim.live:
                    found: Claim = claim
                    return found

        return None

    def _covers(self, checkpoint: Checkpoint, offset: int) -> bool:
        return offset < checkpoint.offset or any(first <= offset < end for first, end in self._runs(checkpoint))

    def _runs(self, checkpoint: Checkpoint) -> list[tuple[int, int]]:
        if not checkpoint.extra:
            return []

        if checkpoint not in self._decoded:
            self._decoded[checkpoint] = decode(checkpoint.offset, checkpoint.extra).settled

        return self._decoded[checkpoint]

    def _logs(self) -> Iterator[tuple[TopicPartition, Any]]:
        for number in range(self.broker.topics().get(self.topic, 0)):
            tp = TopicPartition(self.topic, number)
            yield tp, self.broker.log(tp, operation="read")

    def _of(self, tp: TopicPartition) -> Partition:
        return self.partitions[tp.partition or 0]
