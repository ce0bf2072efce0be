"""Filling a gap: a disk that does not know what it had in some buckets reads both other disks there, and takes what is certain.

    own sums     say which buckets have gaps
    listings     of these buckets, from all three replicas, in one view
    records      that this disk lacks, from the peers that have them
    relisting    of this disk: a bucket is known from now on if both peers could read it in full, and this disk has all of their
                 records in it

An acknowledged record is on two of the three disks, so at least one of the two peers has it. But a record on one peer need not
have been acknowledged: it may be left over from a failed write, while this disk and the other peer had another value under that
key. So this disk takes nothing before both peers are listed, and no record on which they contradict each other; there the gap
stays. If one peer cannot tell, because it has a gap there too or its bytes are not authentic, this disk takes the record of the
other peer, and the gap stays as well: two disks have lost the record, and waiting risks the third copy.

A round that counted this disk's acknowledgement before the disk lost the record must end before the gap is filled.
server/healing/fill_gaps.py waits for such rounds, and carries out the steps.

Rules kept here: what is not known is not absent; write-once.
"""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from quorumvault.protocol import records
from quorumvault.protocol.anti_entropy import BATCH_RECORDS, CannotCompare
from quorumvault.protocol.buckets import bucket_of, ranges
from quorumvault.protocol.messages import UNSENT, AskListing, AskSums, Fetch, Fetched, Listing, Sums, Survey
from quorumvault.protocol.views import ViewId

#: The replicas that are asked: this node's own replica, and those of both peers.
OWN: Final = 0
PEERS: Final = (1, 2)


@dataclass(frozen=True, slots=True)
class AskReplica:
    """Ask the replica OWN, or one of PEERS. Sent: the replica's answer, of the kind that matches the request."""

    of: int
    request: Survey


@dataclass(frozen=True, slots=True)
class TakeRecords:
    """Of both peers' authentic records, by place, take those that are certain. Sent: how many changed this store."""

    names: dict[bytes, str]
    one: dict[bytes, bytes] = field(repr=False)
    other: dict[bytes, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CloseBuckets:
    """Both peers, active in ``view``, could read these buckets in full, and this replica has all their records. Sent: None."""

    view: ViewId
    buckets: frozenset[int]


Step = AskReplica | TakeRecords | CloseBuckets


@dataclass(slots=True)
class Filled:
    """The result: the number of records ``taken``, and of buckets ``closed``, which are known now."""

    taken: int = 0
    closed: int = 0


#: Yields steps, is sent their outcomes, returns the result. Raises CannotCompare.
Filling = Generator[Step, object, Filled]


def fill_gaps() -> Filling:
    """Read both peers wherever this replica does not know what it had."""
    filled = Filled()
    sums = yield AskReplica(OWN, AskSums(*UNSENT, []))
    if not isinstance(sums, Sums):
        raise CannotCompare("this node's sums cannot be used")
    for first, end in ranges(sorted(sums.unknown)):
        while first < end:
            first = yield from fill_slice(first, end, filled)
    return filled


def fill_slice(first: int, end: int, filled: Filled) -> Generator[Step, object, int]:
    """Fill as many of the first buckets as fit into one answer. Returns the bucket at which the next slice begins."""
    own = yield from _list(OWN, first, end)
    theirs = [(yield from _list(PEERS[0], first, end)), (yield from _list(PEERS[1], first, end))]
    if any(listing.view != own.view for listing in theirs):
        raise CannotCompare("the view has changed meanwhile")
    following = min(listing.next for listing in (own, *theirs))
    mine, one, other = (_by_place(listing, following) for listing in (own, *theirs))
    lacking = sorted((one.keys() | other.keys()) - mine.keys())
    while lacking:
        lacking = yield from _take(lacking, one, other, filled)
    again = yield from _list(OWN, first, following)
    if again.next == following and again.view == own.view:
        absent = {bucket_of(place) for place in (one.keys() | other.keys()) - set(again.places)}
        unreadable = {bucket for listing in theirs for bucket in listing.unreadable}
        closed = frozenset(range(first, following)) - absent - unreadable
        filled.closed += len(closed)
        yield CloseBuckets(again.view, closed)
    return following


def _list(of: int, first: int, end: int) -> Generator[Step, object, Listing]:
    answer = yield AskReplica(of, AskListing(*UNSENT, first, end))
    if not isinstance(answer, Listing) or not first < answer.next <= end:
        raise CannotCompare("a listing that cannot be used")
    return answer


def _by_place(listing: Listing, end: int) -> dict[bytes, bytes]:
    """The hashes in a listing by place, for buckets before ``end``."""
    return {place: seen for place, seen in zip(listing.places, listing.hashes, strict=True) if bucket_of(place) < end}


def _take(
    places: list[bytes], one: Mapping[bytes, bytes], other: Mapping[bytes, bytes], filled: Filled
) -> Generator[Step, object, list[bytes]]:
    """Fetch and take the records at as many of the first places as fit into one answer. Returns the other places."""
    batch = places[:BATCH_RECORDS]
    alike = {place for place in batch if one.get(place) == other.get(place)}
    asked = [place for place in batch if place in one], [place for place in batch if place in other and place not in alike]
    names: dict[bytes, str] = {}
    found: list[dict[bytes, bytes]] = []
    until = len(batch)
    for of, some in zip(PEERS, asked, strict=True):
        got: dict[bytes, bytes] = {}
        if some:
            fetched = yield AskReplica(of, Fetch(*UNSENT, some))
            if not isinstance(fetched, Fetched) or not 0 < len(fetched.records) <= len(some):
                raise CannotCompare("records that were not asked for")
            names |= fetched.names
            got = {place: record for place, record in zip(some, fetched.records, strict=False) if record is not None}
            if len(fetched.records) < len(some):
                until = min(until, batch.index(some[len(fetched.records)]))
        found.append(got)
    # Nothing is certain about a place where the peers' records differ and one peer could not send its record.
    missing = {place for got, some in zip(found, asked, strict=True) for place in some if place not in got}
    usable = [place for place in batch[:until] if place not in missing]
    from_one = {place: found[0][place] for place in usable if place in found[0]}
    from_other = {place: found[place not in alike][place] for place in usable if place in other}
    taken = yield TakeRecords(names, from_one, from_other)
    filled.taken += taken if isinstance(taken, int) else 0
    return places[until:]


def certain(one: Mapping[bytes, bytes], other: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Those of both peers' authentic records on which the peers do not contradict each other."""
    places: Iterable[bytes] = one.keys() | other.keys()
    merged = {place: _merge(one.get(place), other.get(place)) for place in places}
    return {place: record for place, record in merged.items() if record is not None}


def _merge(one: bytes | None, other: bytes | None) -> bytes | None:
    """Merge two records of one place. Returns None for two different values, and for a conflict mark that one peer alone has."""
    if one == other:
        return one
    merged = one or other if one is None or other is None else records.merge(one, other)
    return merged if merged is not None and records.holds_value(merged) else None
