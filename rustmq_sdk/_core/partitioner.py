"""Which partition a key belongs to: the murmur2 of Kafka's Java client, so that all producers of a topic agree."""

from __future__ import annotations

from functools import lru_cache
from struct import iter_unpack

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit hash of ``org.apache.kafka.common.utils.Utils.murmur2``, as a signed number like Java's."""
    size = len(data)
    whole = size & ~3
    h = _SEED ^ size
    for (k,) in iter_unpack("<I", data[:whole]):
        k = k * _M & _MASK  # noqa: PLW2901 - the algorithm's own step; a second name would cost a tenth of the time
        h = h * _M & _MASK ^ (k ^ k >> 24) * _M & _MASK

    if size > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK

    h = (h ^ h >> 13) * _M & _MASK
    h ^= h >> 15
    return h - 0x1_0000_0000 if h & 0x8000_0000 else h


# Keys repeat, and hashing one in Python costs microseconds where finding it again costs a tenth of one. 16,384 keys of
# usual length are about 2 MiB.
@lru_cache(maxsize=16_384)
def _positive_hash(key: bytes) -> int:
    return murmur2(key) & 0x7FFFFFFF


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of ``key`` among ``partitions``: Kafka's ``toPositive(murmur2(key)) % partitions``."""
    return _positive_hash(key) % partitions
