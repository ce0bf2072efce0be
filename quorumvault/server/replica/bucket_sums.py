"""Fingerprints of the buckets of a store's records: equal fingerprints mean equal records.

A bucket's fingerprint is the sum, modulo 2^64, of the fingerprints of its records. So a write updates it by adding and
subtracting, in whatever order writes come (Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", EUROCRYPT '97).
A group is 256 consecutive buckets, and its fingerprint is the sum of theirs.

A record's own fingerprint (protocol/records.py) combines its SIV tag and its version, so the sum is a random linear function of
the versions. A missing record goes unnoticed once in 2^64 times, a version that differs only by milliseconds once in 2^39. The
sums do not cover the bytes after the tag: authentication (healing/scrub.py) and the hashes in listings verify those.

The sums follow each write and are never stored. A bucket's sum is known from the bucket's first scan after the start, until one
of its blocks cannot be read.
"""

import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from quorumvault.protocol.buckets import BUCKETS, GROUP_SIZE, GROUPS
from quorumvault.protocol.records import fingerprint
from quorumvault.server.storage import layout

_MASK: Final = 2**64 - 1
_RECORD: Final = layout.RECORD[0]


def total(pairs: Iterable[tuple[bytes, bytes]]) -> int:
    """The fingerprint of a bucket with these records."""
    return sum(fingerprint(key, record) for key, record in pairs) & _MASK


def encode_sums(sums: Sequence[int]) -> bytes:
    return struct.pack(f">{len(sums)}Q", *sums)


class BucketSums:
    """The fingerprints of all buckets of one store. Used on the store's thread only.

    Invariants: ``_sums``, ``_records`` and ``_known`` are empty, or have an entry for each bucket. For a known bucket ``_sums``
    has the sum of its records in the store, below 2^64, and ``_records`` their number; for any other bucket both are 0.
    ``_groups`` is empty, or has the sums of the groups; any change to ``_sums`` empties it.
    """

    def __init__(self) -> None:
        #: Empty until the first bucket is counted; replicas in models are never counted.
        self._sums: list[int] = []
        self._records = array("I")
        self._known = bytearray()
        self._groups: list[int] = []
        #: True once all buckets have been counted since the start, except those that cannot be read.
        self.complete = False

    def known(self, bucket: int) -> bool:
        return bool(self._known) and bool(self._known[bucket])

    def among_known(self, buckets: Iterable[range]) -> Iterator[range]:
        """The same buckets without the unknown ones, whose sums say nothing."""
        if not self._known:
            yield from buckets
            return
        for some in buckets:
            first = self._known.find(1, some.start, some.stop)
            while first >= 0:
                end = self._known.find(0, first, some.stop)
                yield range(first, end if end >= 0 else some.stop)
                first = self._known.find(1, end, some.stop) if end >= 0 else -1

    def __getitem__(self, bucket: int) -> int:
        """0 for a bucket that is not known."""
        return self._sums[bucket] if self._sums else 0

    @property
    def records(self) -> int:
        """The number of records in all known buckets. Another thread may read it, and may get the number of a moment ago."""
        return sum(self._records)

    def learn(self, bucket: int, value: int, records: int) -> None:
        """Take the result of a scan: the bucket has this sum, over so many records."""
        assert 0 <= value <= _MASK
        if not self._sums:
            self._sums, self._records, self._known = [0] * BUCKETS, array("I", bytes(4 * BUCKETS)), bytearray(BUCKETS)
        self._groups = []
        self._sums[bucket] = value
        self._records[bucket] = records
        self._known[bucket] = True

    def forget(self, bucket: int) -> None:
        """Note that the bucket cannot be read, and so is no longer known."""
        if not self._sums:
            return
        self._groups = []
        self._sums[bucket] = self._records[bucket] = 0
        self._known[bucket] = False

    def wrote(self, written: Mapping[bytes, bytes], replaced: Mapping[bytes, bytes]) -> None:
        """Take note of a batch that is in the store: all its pairs, records or not, and the records that it replaced."""
        sums, counts, known = self._sums, self._records, self._known
        assert len(sums) == len(known)
        if not known:
            return
        self._groups = []
        for key, record in written.items():
            if key[0] == _RECORD and known[bucket := key[1] << 8 | key[2]]:
                sums[bucket] = sums[bucket] + fingerprint(key, record) & _MASK
                counts[bucket] += 1
        for key, record in replaced.items():
            if known[bucket := layout.bucket_of(key)]:
                sums[bucket] = sums[bucket] - fingerprint(key, record) & _MASK
                counts[bucket] -= 1

    def of_groups(self) -> list[int]:
        """The fingerprints of all groups. They are computed again only if a sum has changed since the last call."""
        if not self._groups:
            self._groups = [sum(self.of_group(group)) & _MASK for group in range(GROUPS)]
        return self._groups

    def of_group(self, group: int) -> list[int]:
        """The fingerprints of the group's GROUP_SIZE buckets."""
        return self._sums[group * GROUP_SIZE : (group + 1) * GROUP_SIZE]
