"""A member with a name looks whether the name is still its own, before it joins and when it is not let in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("aiokafka")

from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaError,
    UnknownError,
)
from aiokafka.protocol.group import LeaveGroupRequest

from rustmq_sdk.drivers.kafka import static_members
from rustmq_sdk.drivers.kafka.failures import FencedInstanceId
from rustmq_sdk.drivers.kafka.static_members import StaticMembership
from rustmq_sdk.drivers.kafka.static_requests import MembersRequest, StaticHeartbeat

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

TOPICS = SimpleNamespace(topics={"orders"})


class Group:
    """A group, and aiokafka's coordinator, as far as a static member asks them.

    Attributes:
        joins: what comes of each attempt to join; a number is an error that the broker answers.
        name_is: the error that a heartbeat under the name gets, 0 if the name is still ours.
        members: topics that each one reads, by its name; its id is the name and "-id".
        asked: the requests, in order.
    """

    def __init__(self, *joins: bool | int | KafkaError) -> None:
        self.joins = list(joins)
        self.name_is = 0
        self.members: dict[str, Sequence[str]] = {}
        self.asked: list[Any] = []
        self.unreachable = 0
        self.group_id, self.generation, self.member_id, self.coordinator_id = "g", 3, "", 1
        self._coordinator = self._client = self
        self._do_rejoin_group: Any = self._join
        self._on_join_complete: Any = self._complete
        self._send_req: Any = self._answer
        self.while_completing: Callable[[], object] = lambda: None

    async def _join(self, _: Any) -> bool:
        result = self.joins.pop(0)
        if isinstance(result, KafkaError):
            raise result

        if not isinstance(result, bool):
            assert (await self._send_req(result)).error_code == result
            raise KafkaError(repr(UnknownError()))  # as aiokafka does for what it does not know

        self.member_id = "me" if result else ""
        if result:
            await self._on_join_complete(self.generation, self.member_id, "roundrobin", b"")

        return result

    async def _complete(self, *_: Any) -> None:
        self.while_completing()

    async def _answer(self, code: int) -> Any:
        return SimpleNamespace(error_code=code)

    async def send(self, node: int, request: Any, *, group: int) -> Any:
        self.asked.append(request)
        if self.unreachable:
            self.unreachable -= 1
            raise GroupCoordinatorNotAvailableError

        if isinstance(request, MembersRequest):
            members = [
                (f"{name}-id", name, "", "", ConsumerProtocolMemberMetadata(0, list(topics), b"").encode(), b"")
                for name, topics in self.members.items()
            ]
            return SimpleNamespace(groups=[(0, "g", "Stable", "consumer", "roundrobin", members, 0)])

        return SimpleNamespace(error_code=self.name_is)


def member_of(group: Group) -> Any:
    """aiokafka's call, as it is replaced."""
    consumer: Any = group
    StaticMembership(consumer, "one")
    return group._do_rejoin_group


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_members, "RETRY_PAUSE", 0.001)


@pytest.mark.parametrize("joined", [True, False], ids=["joined before", "never joined"])
async def test_a_name_that_is_taken_while_the_member_joins_is_found_out(joined: bool) -> None:
    group = Group(*([True] if joined else []), FencedInstanceId.errno)
    join = member_of(group)
    if joined:
        assert await join(TOPICS)

    with pytest.raises(FencedInstanceId, match="group_instance_id='one'"):
        await join(TOPICS)


@pytest.mark.parametrize("joined", [True, False], ids=["expired", "never joined"])
async def test_a_member_whose_name_is_taken_does_not_join_again_until_it_is_closed(joined: bool) -> None:
    group = Group(*([True] if joined else [FencedInstanceId.errno]), True)
    join = member_of(group)
    if joined:
        assert await join(TOPICS)
        group.member_id, group.name_is = "", FencedInstanceId.errno

    for _ in range(3):
        with pytest.raises(FencedInstanceId):
            await join(TOPICS)

        group.name_is = 0

    assert group.joins == [True]


async def test_a_name_that_is_taken_while_partitions_are_assigned_is_found_out_before_it_joins_again() -> None:
    group = Group(True, True)
    join = member_of(group)

    def expire() -> None:
        group.generation, group.member_id = -1, ""

    group.while_completing = expire
    assert await join(TOPICS)
    group.name_is = FencedInstanceId.errno
    with pytest.raises(FencedInstanceId):
        await join(TOPICS)

    assert [
        (request._fields[1], request._fields[2]) for request in group.asked if isinstance(request, StaticHeartbeat)
    ] == [(3, "me")]


async def test_a_member_asks_by_what_it_joined_as_last() -> None:
    group = Group(True, True, True)
    join = member_of(group)
    for generation in (3, 4):
        group.generation = generation
        assert await join(TOPICS)

    group.member_id = ""
    assert await join(TOPICS)
    assert [request._fields[1] for request in group.asked if isinstance(request, StaticHeartbeat)] == [4]


@pytest.mark.parametrize("joined", [True, False], ids=["joined before", "never joined"])
async def test_a_join_that_fails_under_a_name_that_is_ours_fails_as_it_did(joined: bool) -> None:
    refused = GroupAuthorizationFailedError()
    group = Group(*([True] if joined else []), refused)
    join = member_of(group)
    if joined:
        assert await join(TOPICS)

    with pytest.raises(GroupAuthorizationFailedError) as error:
        await join(TOPICS)

    assert error.value is refused


async def test_a_member_that_was_expired_looks_whether_its_name_is_taken_before_it_joins() -> None:
    group = Group(True, True)
    join = member_of(group)
    assert await join(TOPICS)
    group.member_id, group.name_is = "", FencedInstanceId.errno
    with pytest.raises(FencedInstanceId):
        await join(TOPICS)

    assert group.joins == [True], "to join would take the name back"


async def test_a_question_that_is_not_answered_is_asked_again_before_it_joins() -> None:
    group = Group(True)
    join = member_of(group)
    group.unreachable = 1
    assert not await join(TOPICS), "which has aiokafka call again"
    assert group.joins == [True]
    assert await join(TOPICS)


@pytest.mark.parametrize(
    ("name", "topics", "gone"),
    [
        ("one", ["refunds"], True),
        ("one", ["orders", "refunds"], True),
        ("one", ["orders"], False),
        ("two", ["refunds"], False),
    ],
    ids=["read others", "read more", "read the same", "somebody else"],
)
async def test_the_member_before_is_taken_out_of_the_group_where_it_read_other_topics(
    name: str, topics: list[str], gone: bool
) -> None:
    group = Group(True)
    group.members = {name: topics}
    assert await member_of(group)(TOPICS)
    left = [request._member_id for request in group.asked if isinstance(request, LeaveGroupRequest)]
    assert left == (["one-id"] if gone else [])
