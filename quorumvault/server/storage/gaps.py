"""Gaps: ranges of record keys for which a store knows that it has lost track of its records.

    a block of the store fails its checksum    its records may have been acknowledged, and no one can tell which they were
    the store is salvaged (salvage.py)         readable data is copied into a new store, in which each unreadable range is a gap
    a read of a key in a gap                   returns the record that the store has, or unknown: never absent
    a write of a record that it lacks          is refused, as for an unreadable block: another value may have been there
    both peers are read there, together        a record of one peer is taken, if the other has no other record. If both peers can
                                               be read in full, the gap is then closed: an acknowledged record was on two of the
                                               three disks (protocol/fill_gaps.py)
    another disk wants to copy this one        the gap cannot be read, as the block could not (replica/copy.py)

A gap is stored under its first place; its value is the first place behind it.

Rules kept here: what is not known is not absent.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from quorumvault.errors import StoreCorrupt
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.server.storage import layout
from quorumvault.server.storage.store import CORRUPT, Corrupt, Store

#: After the last possible place.
END_OF_PLACES: Final = b"\xff" * (layout.PLACE_BYTES + 1)
#: Most gaps of a store: if there are more, the gaps nearest to each other are joined. 400 KB, in memory too.
MOST_GAPS: Final = 4096
_END_OF_RECORDS: Final = bytes([layout.RECORD[0] + 1])


class Gap(NamedTuple):
    """Places from ``first`` on, before ``end``."""

    first: bytes
    end: bytes


class Gaps:
    """The gaps of one store, in order, disjoint. Used on the store's thread; other threads may read ``count``."""

    def __init__(self, gaps: Iterable[Gap] = ()) -> None:
        self._gaps = united(gaps)
        self._firsts = [gap.first for gap in self._gaps]

    @classmethod
    def of(cls, store: Store) -> Gaps:
        """The gaps that are in the store. Raises StoreCorrupt."""
        return cls(gap_of(key, value) for key, value in store.scan(layout.GAP))

    @property
    def count(self) -> int:
        return len(self._gaps)

    def __iter__(self) -> Iterator[Gap]:
        return iter(self._gaps)

    def covers(self, place: bytes) -> bool:
        index = bisect_right(self._firsts, place) - 1
        return index >= 0 and place < self._gaps[index].end

    def meets(self, bucket: int) -> bool:
        """True if part of this bucket is in a gap."""
        if not self._gaps:
            return False
        whole = bucket_gap(bucket)
        index = bisect_right(self._firsts, whole.end) - 1
        return index >= 0 and self._firsts[index] < whole.end and self._gaps[index].end > whole.first

    def buckets(self) -> set[int]:
        """The buckets for which ``meets`` is true."""
        return {
            bucket for gap in self._gaps for bucket in range(_bucket_of(gap.first), _bucket_of(gap.end) + 1) if self.meets(bucket)
        }

    def close(self, buckets: Iterable[int]) -> dict[bytes, bytes]:
        """Remove these buckets, which are known now, from the gaps. Returns the remaining gaps, as pairs of the store."""
        for known in map(bucket_gap, buckets):
            self._gaps = [part for gap in self._gaps for part in _cut(gap, known)]
        self._firsts = [gap.first for gap in self._gaps]
        return self.pairs()

    def between(self, within: Gap) -> list[Gap]:
        """The gaps that meet this range."""
        index = max(bisect_right(self._firsts, within.first) - 1, 0)
        end = bisect_left(self._firsts, within.end)
        return [gap for gap in self._gaps[index:end] if gap.end > within.first]

    def pairs(self) -> dict[bytes, bytes]:
        return {layout.GAP + gap.first: gap.end for gap in self._gaps}


def records_around(store: Store, first: bytes = layout.RECORD) -> Iterator[tuple[bytes, bytes] | Gap]:
    """Yield the records from the key ``first`` on, in the order of keys, and a Gap for each range that cannot be read.

    A gap comes after the records that could be read in it nevertheless. Such a record may be an older entry of a key whose newest
    entry is lost; since a record is written once, the older entry is the record too.
    """
    at = first
    while at < _END_OF_RECORDS:
        try:
            for pair in store.scan(layout.RECORD, at):
                yield pair
                at = pair[0] + b"\0"
        except StoreCorrupt:
            after, pairs = store.step_over(at, _END_OF_RECORDS)
            yield from pairs
            yield Gap(at[1:], min(after[1:] or END_OF_PLACES, END_OF_PLACES))
            at = after
        else:
            return


def unknown_among(keys: Sequence[bytes], found: Sequence[bytes | Corrupt | None], gaps: Gaps) -> list[int]:
    """The indices of the record keys for which a store can say neither the record nor that there is none."""
    unknown = [index for index, record in enumerate(found) if record is CORRUPT] if CORRUPT in found else []
    if gaps.count:
        unknown += [index for index, key in enumerate(keys) if found[index] is None and gaps.covers(key[1:])]
    return unknown


def as_unreadable(keys: Sequence[bytes], found: list[bytes | Corrupt | None], gaps: Gaps) -> list[bytes | Corrupt | None]:
    """What was found under the record keys, with CORRUPT for keys that are not known to be absent."""
    for index in unknown_among(keys, found, gaps) if gaps.count else ():
        found[index] = CORRUPT
    return found


def in_two(several: Sequence[Gaps]) -> list[Gap]:
    """The ranges that are in a gap of at least two of these stores."""
    return united(
        Gap(max(one.first, other.first), min(one.end, other.end))
        for index, gaps in enumerate(several)
        for one in gaps
        for others in several[index + 1 :]
        for other in others.between(one)
    )


def gap_of(key: bytes, value: bytes) -> Gap:
    return Gap(key.removeprefix(layout.GAP), value)


def bucket_gap(bucket: int) -> Gap:
    """All places of a bucket."""
    end = layout.bucket_prefix(bucket + 1)[1:] if bucket + 1 < BUCKETS else END_OF_PLACES
    return Gap(layout.bucket_prefix(bucket)[1:], end)


def united(gaps: Iterable[Gap], most: int = MOST_GAPS) -> list[Gap]:
    """The same places as ordered, disjoint gaps; if these would be more than ``most``, neighbours are joined and cover more."""
    found: list[Gap] = []
    for gap in sorted(gaps):
        if found and gap.first <= found[-1].end:
            found[-1] = Gap(found[-1].first, max(found[-1].end, gap.end))
        elif gap.first < gap.end:
            found.append(gap)
    if len(found) <= most:
        return found
    nearest = sorted(range(len(found) - 1), key=lambda index: _between(found[index], found[index + 1]))[: len(found) - most]
    bridges = [Gap(found[index].end, found[index + 1].first) for index in nearest]
    return united([*found, *bridges], most)


def _bucket_of(place: bytes) -> int:
    return int.from_bytes(place[: layout.BUCKET_BYTES].ljust(layout.BUCKET_BYTES, b"\0"), "big")


def _between(one: Gap, following: Gap) -> int:
    return _number(following.first) - _number(one.end)


def _number(place: bytes) -> int:
    return int.from_bytes(place.ljust(len(END_OF_PLACES), b"\0"), "big")


def _cut(gap: Gap, known: Gap) -> Iterator[Gap]:
    if gap.first < min(gap.end, known.first):
        yield Gap(gap.first, min(gap.end, known.first))
    if max(gap.first, known.end) < gap.end:
        yield Gap(max(gap.first, known.end), gap.end)
