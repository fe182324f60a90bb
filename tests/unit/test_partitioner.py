"""Keys go to the partitions that Kafka's Java client sends them to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustmq_sdk._core.partitioner import murmur2, partition_for


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_the_one_of_kafkas_own_tests(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected


def java_murmur2(data: bytes) -> int:
    """Utils.murmur2 of Apache Kafka, line by line, with Java's 32-bit arithmetic spelt out."""

    def wrap(value: int) -> int:
        return value & 0xFFFFFFFF

    m = 0x5BD1E995
    h = wrap(0x9747B28C ^ len(data))
    for i in range(len(data) // 4):
        k = data[i * 4] + (data[i * 4 + 1] << 8) + (data[i * 4 + 2] << 16) + (data[i * 4 + 3] << 24)
        k = wrap(k * m)
        k ^= k >> 24
        k = wrap(k * m)
        h = wrap(h * m)
        h ^= k

    tail = len(data) & ~3
    if len(data) % 4 == 3:
        h ^= data[tail + 2] << 16
    if len(data) % 4 >= 2:
        h ^= data[tail + 1] << 8
    if len(data) % 4 >= 1:
        h ^= data[tail]
        h = wrap(h * m)

    h ^= h >> 13
    h = wrap(h * m)
    h ^= h >> 15
    return h - (1 << 32) if h >= 1 << 31 else h


@given(st.binary(max_size=40))
def test_the_hash_is_javas_for_every_length(data: bytes) -> None:
    assert murmur2(data) == java_murmur2(data)


@given(st.binary(max_size=12), st.integers(1, 1000))
def test_a_negative_hash_loses_its_sign_bit_and_not_its_sign(data: bytes, partitions: int) -> None:
    assert partition_for(data, partitions) == (java_murmur2(data) & 0x7FFFFFFF) % partitions


def test_a_key_goes_to_the_same_partition_when_its_hash_was_kept() -> None:
    assert [partition_for(b"user-7", 12) for _ in range(3)] == [partition_for(b"user-7", 12)] * 3
