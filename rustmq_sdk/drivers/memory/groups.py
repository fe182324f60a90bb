"""The coordinator of one group: members, claims on partitions, committed positions. Synchronous: nobody waits here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from rustmq_sdk._balance import balance
from rustmq_sdk.values import Checkpoint, TopicPartition


class Claim:
    """One member's hold on one partition, compared by identity; dead for good once ``live`` is False.

    ``reason``: why the partition was free, in the words of ``Observer.on_rebalanced``.
    """

    __slots__ = ("generation", "live", "member", "reason", "tp")

    def __init__(self, tp: TopicPartition, member: Member, generation: int, reason: str) -> None:
        self.tp = tp
        self.member = member
        self.generation = generation
        self.reason = reason
        self.live = True


class Member:
    """One subscription in a group. ``notify`` is called whenever the group may have something new for it."""

    def __init__(self, topics: Collection[str], notify: Callable[[], None]) -> None:
        self.topics = frozenset(topics)
        self.notify = notify


class Group:
    """Who owns what, and who should.

    Partitions move in two steps: the owner sees that it has one too many, drains and releases it; then the new owner
    claims it. So at no time do two members own one partition, and members keep what need not move (KIP-429).
    """

    def __init__(self, name: str, partitions: Callable[[Collection[str]], Sequence[TopicPartition]]) -> None:
        self.name = name
        self.generation = 0
        """Grows with every rebalance; never falls, also while the group is empty."""
        self.committed: dict[TopicPartition, Checkpoint] = {}
        self._partitions = partitions
        self._members: dict[Member, Collection[str]] = {}
        self._target: dict[TopicPartition, Member] = {}
        self._claims: dict[TopicPartition, Claim] = {}
        self._to_release: set[Claim] = set()
        self._freed: dict[TopicPartition, str] = {}

    @property
    def members(self) -> Sequence[Member]:
        """In the order in which they joined."""
        return list(self._members)

    @property
    def is_settled(self) -> bool:
        """False while an eager rebalance waits for somebody to give up what they have."""
        return not self._to_release

    def has(self, member: Member) -> bool:
        """Whether it is in the group; false before it joined and after it was expired."""
        return member in self._members

    def owner(self, tp: TopicPartition) -> Member | None:
        """Who has the partition now."""
        claim = self._claims.get(tp)
        return claim.member if claim else None

    def join(self, member: Member) -> None:
        """Adds a member and rebalances."""
        self._members[member] = member.topics
        self.rebalance()

    def leave(self, member: Member, reason: str = "left") -> None:
        """Removes a member; what it had is free at once."""
        self._members.pop(member, None)
        self._drop([claim for claim in self._claims.values() if claim.member is member], reason)
        self.rebalance()

    def expire(self, member: Member) -> None:
        """Takes everything from a member without asking, as a broker does with a silent one. It may join again."""
        self.leave(member, "expired")
        member.notify()

    def rebalance(self) -> None:
        """Computes who should have what, moving as little as possible, and tells everybody if that changed."""
        partitions = self._partitions(frozenset[str]().union(*self._members.values()))
        target = balance({tp: tp.topic for tp in partitions}, self._members, self._target)
        if target != self._target:
            self.generation += 1
            self._target = target

        self._notify()

    def rebalance_eagerly(self) -> None:
        """Makes every member give up everything before anybody gets it back: the same owners, the next generation."""
        self.generation += 1
        self._to_release = {claim for claim in self._claims.values() if claim.member in self._members}
        self._notify()

    def forget(self, topic: str) -> None:
        """Drops a deleted topic: its claims are lost and its positions are gone."""
        self._drop([claim for claim in self._claims.values() if claim.tp.topic == topic], "topics_changed")
        self.committed = {tp: checkpoint for tp, checkpoint in self.committed.items() if tp.topic != topic}
        self.rebalance()

    def surplus(self, member: Member) -> Collection[Claim]:
        """What the member has and should give up."""
        return {
            claim
            for tp, claim in self._claims.items()
            if claim.member is member and (claim in self._to_release or self._target.get(tp) is not member)
        }

    def release(self, claims: Collection[Claim]) -> None:
        """Gives partitions back; claims that are dead already are passed over."""
        self._drop([claim for claim in claims if claim.live], "moved")
        self._notify()

    def claim(self, member: Member) -> Sequence[Claim]:
        """Takes what the member should have and nobody holds. Nothing during an eager rebalance."""
        if self._to_release:
            return ()

        free = [tp for tp, taker in self._target.items() if taker is member and tp not in self._claims]
        claims = [Claim(tp, member, self.generation, self._freed.pop(tp, "topics_changed")) for tp in free]
        self._claims.update((claim.tp, claim) for claim in claims)
        return claims

    def commit(self, claim: Claim, checkpoint: Checkpoint) -> bool:
        """Writes a position; False if the claim is dead."""
        if claim.live:
            self.committed[claim.tp] = checkpoint

        return claim.live

    def state(self) -> Mapping[TopicPartition, Member]:
        """Who owns what, for tests and administration."""
        return {tp: claim.member for tp, claim in self._claims.items()}

    def _drop(self, claims: Collection[Claim], reason: str) -> None:
        for claim in claims:
            claim.live = False
            self._to_release.discard(claim)
            if self._claims.get(claim.tp) is claim:
                del self._claims[claim.tp]
                self._freed[claim.tp] = reason

    def _notify(self) -> None:
        for member in self._members:
            member.notify()
