"""Buckets: the first two bytes of a digest divide the key space into 65,536 parts, so that replicas compare part by part.

This module is pure arithmetic on the replicas' answers (messages.Sums, messages.Listing). server/replica/bucket_sums.py computes
the sums.
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

BUCKETS: Final = 1 << 16
GROUPS: Final = 256
GROUP_SIZE: Final = BUCKETS // GROUPS
SUM_BYTES: Final = 8


def bucket_of(place: bytes) -> int:
    """The bucket of a record's place: the first two bytes."""
    return place[0] << 8 | place[1]


def differing(one: bytes, other: bytes) -> list[int]:
    """The indices at which two answers with sums differ. Raises ValueError if they are not of equal length."""
    if len(one) != len(other) or len(one) % SUM_BYTES:
        raise ValueError("not the sums of the same buckets")
    if one == other:
        return []
    columns = f"{len(one) // SUM_BYTES}Q"
    sums = zip(struct.unpack(columns, one), struct.unpack(columns, other), strict=True)
    return [at for at, (mine, theirs) in enumerate(sums) if mine != theirs]


def between(first: int, indices: Iterable[int], end: int) -> Iterator[range]:
    """The parts of ``range(first, end)`` that are left when ``indices``, which ascend, are taken out."""
    for index in indices:
        if first < index:
            yield range(first, index)
        first = index + 1
    if first < end:
        yield range(first, end)


def ranges(buckets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending buckets as ranges (first, end) of consecutive ones; ``end`` is not included."""
    # Consecutive buckets have the same distance to their positions in the list.
    for _, run in groupby(enumerate(buckets), lambda placed: placed[1] - placed[0]):
        (_, first), *rest = run
        yield first, first + len(rest) + 1
