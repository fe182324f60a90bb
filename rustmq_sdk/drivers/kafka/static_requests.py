"""Requests that know static members; aiokafka has only older versions of them. Brokers have them since Kafka 2.4."""

from __future__ import annotations

from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String

_TEXT = String("utf-8")


class _HeartbeatResponse(Response):  # type: ignore[misc]  # aiokafka has no types for us to see
    API_KEY = 12
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class _HeartbeatStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponse
    SCHEMA = Schema(("group", _TEXT), ("generation_id", Int32), ("member_id", _TEXT), ("group_instance_id", _TEXT))


class StaticHeartbeat(Request[_HeartbeatStruct]):  # type: ignore[misc]
    """Is answered FENCED_INSTANCE_ID if another member has the name; without it a broker says that we are unknown."""

    API_KEY = 12

    def __init__(self, group: str, generation: int, member: str, instance: str) -> None:
        self._fields = group, generation, member, instance

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(*self._fields)


class _MembersResponse(Response):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 4
    _MEMBER = (
        ("member_id", _TEXT),
        ("group_instance_id", _TEXT),
        ("client_id", _TEXT),
        ("client_host", _TEXT),
        ("member_metadata", Bytes),
        ("member_assignment", Bytes),
    )
    _GROUP = (
        ("error_code", Int16),
        ("group", _TEXT),
        ("state", _TEXT),
        ("protocol_type", _TEXT),
        ("protocol", _TEXT),
        ("members", Array(*_MEMBER)),
        ("authorized_operations", Int32),
    )
    SCHEMA = Schema(("throttle_time_ms", Int32), ("groups", Array(*_GROUP)))


class _MembersStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 15
    API_VERSION = 4
    RESPONSE_TYPE = _MembersResponse
    SCHEMA = Schema(("groups", Array(_TEXT)), ("include_authorized_operations", Boolean))


class MembersRequest(Request[_MembersStruct]):  # type: ignore[misc]
    """Who is in a group (DescribeGroups), with the names of static members."""

    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([self._group], False)
