"""Fingerprints of the buckets of a store's records: two replicas that have the same ones hold the same records there.

A bucket's fingerprint is the sum, modulo 2^64, of the fingerprints of its records, so that a write changes it by what it adds and
takes away, in whatever order writes come (Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", EUROCRYPT '97).
A group is 256 buckets that follow each other, and its fingerprint the sum of theirs.

A record's own fingerprint (protocol/records.py) is made of its SIV tag and its version, so the sum is a random linear function of
the versions. A missing record goes unseen once in 2^64 times, a version that differs by milliseconds and in nothing else once in
2^39. What it does not cover are the bytes behind the tag: whether those are what was written is for their authentication to tell
(healing/scrub.py), and for the hash in a listing.

The sums are kept up with each write and never stored. A bucket counts from when it was scanned after the start; until then, and
when a block of it cannot be read, it is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from quorumvault.protocol.buckets import BUCKETS, GROUP_SIZE, GROUPS
from quorumvault.protocol.records import fingerprint
from quorumvault.server.storage import layout

_MASK: Final = 2**64 - 1
_RECORD: Final = layout.RECORD[0]


def total(pairs: Iterable[tuple[bytes, bytes]]) -> int:
    """The fingerprint of a bucket with these records."""
    return sum(fingerprint(key, record) for key, record in pairs) & _MASK


def encode_sums(sums: Iterable[int]) -> bytes:
    return b"".join(value.to_bytes(8, "big") for value in sums)


class BucketSums:
    """The fingerprints of all buckets of one store. Belongs to the store's thread."""

    def __init__(self) -> None:
        #: Made when the first bucket becomes known: a replica that is never counted, as in a model, has no use for them.
        self._sums: list[int] = []
        self._known = bytearray()
        #: Whether all buckets have been counted since the start, but for those that cannot be read.
        self.complete = False

    def known(self, bucket: int) -> bool:
        return bool(self._known) and bool(self._known[bucket])

    def __getitem__(self, bucket: int) -> int:
        """0 for a bucket that is not known."""
        return self._sums[bucket] if self._sums else 0

    def learn(self, bucket: int, value: int) -> None:
        """What a scan of the bucket came to."""
        if not self._sums:
            self._sums, self._known = [0] * BUCKETS, bytearray(BUCKETS)
        self._sums[bucket] = value
        self._known[bucket] = True

    def forget(self, bucket: int) -> None:
        """It cannot be read."""
        if not self._sums:
            return
        self._sums[bucket] = 0
        self._known[bucket] = False

    def wrote(self, written: Mapping[bytes, bytes], replaced: Mapping[bytes, bytes]) -> None:
        """A batch is in the store: all pairs of it, records or not, and the records that were under some of its keys before."""
        sums, known = self._sums, self._known
        if not known:
            return
        for key, record in written.items():
            if key[0] == _RECORD and known[bucket := key[1] << 8 | key[2]]:
                sums[bucket] = sums[bucket] + fingerprint(key, record) & _MASK
        for key, record in replaced.items():
            if known[bucket := layout.bucket_of(key)]:
                sums[bucket] = sums[bucket] - fingerprint(key, record) & _MASK

    def of_groups(self) -> list[int]:
        return [sum(self.of_group(group)) & _MASK for group in range(GROUPS)]

    def of_group(self, group: int) -> list[int]:
        """Of its GROUP_SIZE buckets."""
        return self._sums[group * GROUP_SIZE : (group + 1) * GROUP_SIZE]
