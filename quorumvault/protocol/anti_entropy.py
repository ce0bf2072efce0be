"""Anti-entropy: compares this node's replica with one peer's replica, and decides which records to copy in which direction.

    registers   all registers; the larger one of each pair counts               a page at a time
    groups      256 sums from each side; if all are equal, nothing differs      2 KiB
    buckets     the 256 sums of each group that differs                         2 KiB a group
    listings    place and hash of each record in a bucket that differs          56 bytes a record
    records     the records that one side lacks, or that differ

Records that this replica lacks are fetched and merged; records that the peer lacks are written back to the peer. Where both
replicas have a record and the two differ, the peer's record is merged here, and then ours is written back to the peer. Absence
never deletes, and a merge may be repeated, so concurrent writes do no harm: a record in flight shows up as a difference, and has
already arrived when anti-entropy writes it.

This module does no IO (steps.py); server/healing/anti_entropy.py schedules comparisons and carries out the steps.

When both replicas have the same sums for some buckets, this replica learns that the records in these buckets are on two disks.

A bucket that one of the two replicas cannot read in full counts as different whatever the sums say; its readable records are
exchanged as in any other bucket. A bucket with a gap, where a replica does not know all that it had (server/storage/gaps.py),
needs both other replicas to fill it (fill_gaps.py), so anti-entropy copies nothing into it.

Rules kept here: anti-entropy; settled records.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from dataclasses import astuple, dataclass, field

from quorumvault.protocol.buckets import BUCKETS, GROUP_SIZE, SUM_BYTES, between, bucket_of, differing, ranges
from quorumvault.protocol.messages import (
    UNSENT,
    AskListing,
    AskRegisters,
    AskSums,
    Fetch,
    Fetched,
    Listing,
    Registers,
    Sums,
    Survey,
)
from quorumvault.protocol.views import ViewId

#: The number of groups whose bucket sums one request asks for: 32 KiB of sums.
_GROUPS_AT_ONCE = 16
#: The number of records that are fetched, merged or written back at once: some milliseconds of the storage thread.
BATCH_RECORDS = 512


class CannotCompare(Exception):
    """The comparison cannot be made now; the message says why."""


@dataclass(frozen=True, slots=True)
class AskOne:
    """Ask this node's own replica, or the peer's. Sent: the replica's answer, of the kind that matches the request."""

    of_peer: bool
    request: Survey


@dataclass(frozen=True, slots=True)
class MergeRegisters:
    """Merge the peer's registers into this node's. Sent: the number of registers raised."""

    registers: Registers


@dataclass(frozen=True, slots=True)
class GiveRegister:
    """Raise the peer's register of this owner to this node's register."""

    owner: bytes


@dataclass(frozen=True, slots=True)
class MergeRecords:
    """Merge those of the peer's ``records``, by place, that are authentic into this node's. Sent: how many changed this store."""

    names: dict[bytes, str]
    records: dict[bytes, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class WriteBackRecords:
    """Write this node's records at these places to the peer, if they are authentic. Sent: how many records the peer took."""

    places: list[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SettleBuckets:
    """Both replicas, active in ``view``, had equal sums for these buckets; this replica after ``sequence`` writes. Sent: None."""

    view: ViewId
    sequence: int
    buckets: Sequence[range]


Step = AskOne | MergeRegisters | GiveRegister | MergeRecords | WriteBackRecords | SettleBuckets


@dataclass(slots=True)
class Compared:
    """The result of a comparison: records ``given`` to the peer and ``taken`` from it; registers ``raised`` on either side.

    ``buckets`` counts the buckets that differed, ``unreadable`` the buckets that either replica could not read in full.
    """

    buckets: int = 0
    taken: int = 0
    given: int = 0
    raised: int = 0
    unreadable: int = 0

    def __add__(self, other: Compared) -> Compared:
        """The result of two comparisons in a row: repairs add up, and differences are those that the second one found."""
        mended = (self.taken + other.taken, self.given + other.given, self.raised + other.raised)
        return Compared(other.buckets, *mended, other.unreadable)


#: Yields steps, is sent their outcomes, returns the result. Raises CannotCompare.
Comparing = Generator[Step, object, Compared]


def compare() -> Comparing:
    """Compare both replicas, from registers down to records, and mend what differs."""
    compared = Compared()
    yield from _compare_registers(compared)
    unknown = Unknown()
    buckets = yield from _differing_buckets(unknown)
    compared.buckets = len(buckets)
    for first, end in ranges(buckets):
        yield from _compare_listings(first, end, compared, unknown)
    return compared


def _compare_registers(compared: Compared) -> Generator[Step, object, None]:
    theirs: dict[bytes, int] = {}
    for of_peer in (True, False):
        page = yield from _registers(of_peer, b"")
        while page.owners:
            epochs = dict(zip(page.owners, page.epochs, strict=True))
            if of_peer:
                theirs |= epochs
                raised = yield MergeRegisters(page)
                compared.raised += raised if isinstance(raised, int) else 0
            for owner in () if of_peer else [owner for owner, epoch in epochs.items() if epoch > theirs.get(owner, 0)]:
                yield GiveRegister(owner)
                compared.raised += 1
            page = yield from _registers(of_peer, page.owners[-1])


def _registers(of_peer: bool, after: bytes) -> Generator[Step, object, Registers]:
    page = yield AskOne(of_peer, AskRegisters(*UNSENT, after))
    if not isinstance(page, Registers) or (page.owners and page.owners[-1] <= after):
        raise CannotCompare("registers that cannot be used")
    return page


@dataclass(slots=True)
class Unknown:
    """The buckets with gaps: of the peer (``theirs``) and of this replica (``mine``)."""

    theirs: frozenset[int] = frozenset()
    mine: frozenset[int] = frozenset()


def _differing_buckets(unknown: Unknown) -> Generator[Step, object, list[int]]:
    buckets = set[int]()
    groups = yield from _differing_sums([], unknown)
    for at in range(0, len(groups), _GROUPS_AT_ONCE):
        buckets.update((yield from _differing_sums(groups[at : at + _GROUPS_AT_ONCE])))
    return sorted(buckets)


def _differing_sums(groups: list[int], unknown: Unknown | None = None) -> Generator[Step, object, list[int]]:
    """The groups that differ if ``groups`` is empty, else the differing buckets in ``groups``. All other buckets are settled.

    ``unknown``, if given, receives the buckets in which either replica has a gap.
    """
    answers = []
    for of_peer in (True, False):
        answer = yield AskOne(of_peer, AskSums(*UNSENT, groups))
        if not isinstance(answer, Sums) or answer.sums is None:
            raise CannotCompare("the peer is still counting" if of_peer else "this node is still counting")
        answers.append(answer)
    theirs, mine = answers
    try:
        unequal = differing(theirs.sums or b"", mine.sums or b"")
    except ValueError as error:
        raise CannotCompare(str(error)) from None
    if theirs.view == mine.view:
        compared = len(mine.sums or b"") // SUM_BYTES
        yield SettleBuckets(mine.view, mine.sequence, _settled(groups, unequal, compared))
    if unknown is not None:
        unknown.theirs, unknown.mine = frozenset(theirs.unknown), frozenset(mine.unknown)
    return sorted(groups[index // GROUP_SIZE] * GROUP_SIZE + index % GROUP_SIZE for index in unequal) if groups else unequal


def _settled(groups: list[int], unequal: list[int], compared: int) -> list[range]:
    """The buckets whose sums are equal: all of the ``compared`` ones except those at the indices in ``unequal``.

    Nearly all buckets are equal, so the cost grows with the number of unequal ones only.
    """
    if not groups:
        return [range(some.start * GROUP_SIZE, some.stop * GROUP_SIZE) for some in between(0, unequal, compared)]
    settled: list[range] = []
    for at, group in enumerate(groups):
        first, end = at * GROUP_SIZE, min((at + 1) * GROUP_SIZE, compared)
        inside = unequal[bisect_left(unequal, first) : bisect_left(unequal, end)]
        to_bucket = group * GROUP_SIZE - first
        settled += [range(some.start + to_bucket, some.stop + to_bucket) for some in between(first, inside, end)]
    return settled


def _compare_listings(first: int, end: int, compared: Compared, unknown: Unknown) -> Generator[Step, object, None]:
    while first < end:
        following, (theirs, mine) = yield from list_both(first, end)
        compared.unreadable += len(theirs.unreadable | mine.unreadable)
        differing = [place for place, seen in theirs.records.items() if mine.records.get(place) != seen]
        yield from _fetch(_known(differing, unknown.mine), compared)
        wanted = [place for place, seen in mine.records.items() if theirs.records.get(place) != seen]
        for batch in batches(_known(wanted, unknown.theirs)):
            given = yield WriteBackRecords(batch)
            compared.given += given if isinstance(given, int) else 0
        first = following


def _known(places: list[bytes], unknown: frozenset[int]) -> list[bytes]:
    return [place for place in places if bucket_of(place) not in unknown] if unknown else places


@dataclass(slots=True)
class Listed:
    """What one replica can read of some buckets: hashes by place, and the buckets that it cannot read in full."""

    records: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    unreadable: set[int] = field(default_factory=set)


def list_both(first: int, end: int) -> Generator[Step, object, tuple[int, tuple[Listed, Listed]]]:
    """List both replicas. The peer's answer decides how far the slice goes.

    Returns (the bucket at which the next slice begins, (the peer's listing, this node's listing)).
    """
    answer = yield AskOne(True, AskListing(*UNSENT, first, end))
    if not isinstance(answer, Listing) or not first < answer.next <= end:
        raise CannotCompare("a listing that cannot be used")
    theirs = Listed()
    _take(answer, theirs)
    mine = yield from _list(first, answer.next)
    return answer.next, (theirs, mine)


def _list(first: int, end: int) -> Generator[Step, object, Listed]:
    """List this node's replica in the buckets that the peer's listing covers."""
    listed = Listed()
    while first < end:
        answer = yield AskOne(False, AskListing(*UNSENT, first, end))
        if not isinstance(answer, Listing) or not first < answer.next <= end:
            raise CannotCompare("a listing that cannot be used")
        _take(answer, listed)
        first = answer.next
    return listed


def _take(answer: Listing, listed: Listed) -> None:
    listed.records.update(zip(answer.places, answer.hashes, strict=True))
    listed.unreadable.update(answer.unreadable)


def _fetch(places: list[bytes], compared: Compared) -> Generator[Step, object, None]:
    while places:
        asked = places[:BATCH_RECORDS]
        fetched = yield AskOne(True, Fetch(*UNSENT, asked))
        if not isinstance(fetched, Fetched) or not 0 < len(fetched.records) <= len(asked):
            raise CannotCompare("records that were not asked for")
        found = {place: record for place, record in zip(asked, fetched.records, strict=False) if record is not None}
        taken = yield MergeRecords(fetched.names, found)
        compared.taken += taken if isinstance(taken, int) else 0
        places = places[len(fetched.records) :]


def batches(places: Sequence[bytes]) -> Iterator[list[bytes]]:
    for at in range(0, len(places), BATCH_RECORDS):
        yield list(places[at : at + BATCH_RECORDS])


@dataclass(slots=True)
class Differences:
    """The differences that a comparison of all records found between this node and a peer."""

    records: int = 0
    only_here: int = 0
    only_there: int = 0
    unequal: int = 0
    registers: int = 0
    unreadable: int = 0

    def __add__(self, other: Differences) -> Differences:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Differences(*(one + another for one, another in pairs))

    def __bool__(self) -> bool:
        return any(astuple(self)[1:])


def verify(first: int, end: int = BUCKETS) -> Generator[Step, object, tuple[int, Differences]]:
    """Compare a slice of buckets by the bytes on disk, whatever the sums say, and repair nothing.

    Returns (the bucket at which the next slice begins, the differences).
    """
    following, listed = yield from list_both(first, end)
    unreadable = listed[0].unreadable | listed[1].unreadable
    theirs, mine = (_without(unreadable, each.records) for each in listed)
    both = theirs.keys() & mine.keys()
    unequal = sum(theirs[place] != mine[place] for place in both)
    only_here, only_there = len(mine) - len(both), len(theirs) - len(both)
    return following, Differences(len(both) + only_here + only_there, only_here, only_there, unequal, 0, len(unreadable))


def _without(buckets: set[int], records: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {place: seen for place, seen in records.items() if bucket_of(place) not in buckets}


def verify_registers() -> Generator[Step, object, Differences]:
    """Count the registers that differ. There is one for each owner."""
    found: list[set[tuple[bytes, int, str]]] = [set(), set()]
    for registers, of_peer in zip(found, (True, False), strict=True):
        page = yield from _registers(of_peer, b"")
        while page.owners:
            registers.update(zip(page.owners, page.epochs, page.secrets, strict=True))
            page = yield from _registers(of_peer, page.owners[-1])
    return Differences(registers=len({owner for owner, *_ in found[0] ^ found[1]}))
