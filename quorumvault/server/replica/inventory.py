"""The inventory of a replica's store: records counted into buckets, listed, fetched, and scrubbed one by one.

The inventory works on the store's thread, one slice at a time: requests wait only briefly, and no write interrupts a slice. A
slice is whole buckets, up to about ``slice_records`` records.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import structs

from quorumvault.crypto.keys import Keyring
from quorumvault.errors import StoreCorrupt
from quorumvault.model import Owner
from quorumvault.protocol import messages, records
from quorumvault.protocol.buckets import BUCKETS
from quorumvault.protocol.messages import RoundId, Survey, Surveyed
from quorumvault.protocol.views import ViewId
from quorumvault.server.replica.bucket_sums import BucketSums, encode_sums, total
from quorumvault.server.replica.copy import UnreadPart, read_around, read_piece
from quorumvault.server.replica.owners import OwnerNames, is_authentic
from quorumvault.server.replica.present_keys import PresentKeys
from quorumvault.server.storage import layout
from quorumvault.server.storage.gaps import Gap, Gaps, bucket_gap, records_around
from quorumvault.server.storage.leveldb import UNREADABLE
from quorumvault.server.storage.store import CORRUPT, Store

#: Most records in a slice. A slice takes about two milliseconds, for which a request may have to wait.
SLICE_RECORDS = 512
#: A record counts as one more record for each so many of its bytes: large records take longer.
_BYTES_A_RECORD = 1024
#: Buckets that count as one record: empty buckets take a little time too.
_BUCKETS_A_RECORD = 16

_Pairs = list[tuple[bytes, bytes]]
#: Round, view and disk of a reply.
Head = tuple[RoundId, ViewId, bytes]


@dataclass(slots=True)
class Findings:
    """The result of a slice of the scrub: buckets before ``next`` were scrubbed, and ``checked`` records in them.

    ``rotten`` has the places of records that are not authentic. ``damage`` says in words why the store cannot be trusted, because
    it has lost or hides records; None if there is no sign of that.
    """

    next: int
    checked: int = 0
    rotten: list[bytes] = field(default_factory=list)
    damage: str | None = None


@dataclass(slots=True)
class Collected:
    """Records by owner and place, from the first ``looked_at`` of the requested places."""

    looked_at: int
    records: dict[Owner, dict[bytes, bytes]] = field(repr=False)


@dataclass(eq=False)
class Inventory:
    """``slice_records`` bounds a slice, ``reply_bytes`` the records in one answer, ``copy_bytes`` one piece of a copy."""

    store: Store
    sums: BucketSums
    present: PresentKeys
    owners: OwnerNames
    keyring: Keyring
    reply_bytes: int
    copy_bytes: int
    gaps: Gaps = field(default_factory=Gaps)
    slice_records: int = SLICE_RECORDS

    # Requests of peers.

    def answer(self, request: Survey, disk: bytes, sequence: int) -> Surveyed | messages.NotCopied:
        """``sequence`` is the number of writes that the store has seen."""
        head = (request.round, request.view, disk)
        match request:
            case messages.AskSums():
                unknown = () if request.groups else tuple(sorted(self.gaps.buckets()))
                return messages.Sums(*head, self._encoded_sums(request.groups), sequence, unknown)
            case messages.AskListing():
                return self._list(head, request.first, request.end)
            case messages.Fetch():
                return messages.Fetched(*head, *self._fetch(request.places))
            case messages.AskRegisters():
                return self._registers(head, request.after)

    def _encoded_sums(self, groups: Sequence[int]) -> bytes | None:
        if not self.sums.complete:
            return None
        if not groups:
            return encode_sums(self.sums.of_groups())
        return b"".join(encode_sums(self.sums.of_group(group)) for group in groups)

    def _list(self, head: Head, first: int, end: int) -> messages.Listing:
        listing = messages.Listing(*head, first, [], [], [])
        for bucket, pairs in self._slice(first, min(end, BUCKETS)):
            first = bucket + 1
            if pairs is None:
                pairs = self._read_around(bucket)
                listing.unreadable.append(bucket)
            elif self.gaps.meets(bucket):
                listing.unreadable.append(bucket)
            listing.places.extend(key[1:] for key, _ in pairs)
            listing.hashes.extend(records.record_hash(record) for _, record in pairs)
        return structs.replace(listing, next=first)

    def _fetch(self, places: Sequence[bytes]) -> tuple[list[bytes | None], dict[bytes, str]]:
        found: list[bytes | None] = []
        names: dict[bytes, str] = {}
        size = 0
        for place in places[: self.slice_records]:
            (record,) = self.store.get([layout.RECORD + place])
            found.append(record if isinstance(record, bytes) else None)
            if isinstance(record, bytes):
                size += len(record)
                owner = self.owners.get(place[2:18])
                if owner is not None:
                    names[owner.id] = owner.name
            if size > self.reply_bytes:
                break
        return found, names

    def _registers(self, head: Head, after: bytes) -> messages.Registers | messages.NotCopied:
        try:
            return self._read_registers(head, after)
        except StoreCorrupt:
            return messages.NotCopied(*head)

    def _read_registers(self, head: Head, after: bytes) -> messages.Registers:
        found = messages.Registers(*head, [], [], [], [])
        for key, value in self.store.scan(layout.REGISTER, layout.register_key(after) + b"\0"):
            epoch, secret = layout.read_register(value)
            owner = self.owners.get(key[1:])
            found.owners.append(key[1:])
            found.names.append("" if owner is None else owner.name)
            found.epochs.append(epoch)
            found.secrets.append(secret)
            if len(found.owners) >= self.slice_records:
                break
        return found

    def copy(
        self, head: Head, after: bytes, *, only_read: bool = False, around: bool = False
    ) -> messages.Copied | messages.NotCopied:
        """The next piece of a copy of the store, for a joining disk. If ``only_read``, how far the store can be read; if
        ``around``, for a backup, a piece that skips what cannot be read."""
        if around:
            return self._copy_around(head, after)
        piece = read_piece(self.store, after, self.copy_bytes)
        if isinstance(piece, UnreadPart):
            # Let the copy go on with readable parts: stopping here would remove a second disk while the first is missing.
            return messages.NotCopied(*head, piece.after, piece.end)
        keys, values, last = piece
        if only_read:
            keys, values = keys[-1:], [b""] * len(keys[-1:])
        return messages.Copied(*head, keys, values, last)

    def _copy_around(self, head: Head, after: bytes) -> messages.Copied | messages.NotCopied:
        try:
            piece, gaps, until = read_around(self.store, self.gaps, after, self.copy_bytes)
        except StoreCorrupt:
            return messages.NotCopied(*head)
        return messages.Copied(*head, piece.keys, piece.values, piece.last, [*gaps], until)

    # Requests of this node itself.

    def count(self, first: int) -> int:
        """Count a slice of buckets, from ``first`` on. Returns the bucket at which the next slice begins; BUCKETS at the end."""
        for bucket, pairs in (counted := list(self._slice(first, BUCKETS))):
            first = bucket + 1
            if pairs is None:
                self.present.forget(bucket)
            if pairs is None or self.gaps.meets(bucket):
                self.sums.forget(bucket)
            else:
                # Nearly all buckets of a small store are empty.
                self.sums.learn(bucket, total(pairs) if pairs else 0, len(pairs))
        self.present.learn({bucket: [key for key, _ in pairs] for bucket, pairs in counted if pairs is not None})
        self.sums.complete = self.sums.complete or first == BUCKETS
        return first

    def inspect(self, first: int) -> Findings:
        """Check a slice of buckets, from ``first`` on: is each record authentic, can it be found, and is none missing?"""
        findings = Findings(first)
        for bucket, pairs in self._slice(first, BUCKETS):
            findings.next = bucket + 1
            if pairs is None:
                findings.damage = UNREADABLE
                continue
            if not pairs and not self.sums[bucket]:
                continue  # empty, as nearly all buckets of a small store are
            findings.checked += len(pairs)
            findings.rotten += [key[1:] for key, record in pairs if self.authentic(key[1:], record) is False]
            # Look-ups use filters, iterators do not: a filter that has gone bad in memory hides records. Each key is looked up
            # alone, because a batch of keys is looked up by an iterator too.
            if any(self.store.get([key])[0] in (None, CORRUPT) for key, _ in pairs):
                findings.damage = "its store holds records that a look-up does not find"
            elif self.sums.known(bucket) and self.sums[bucket] != total(pairs):
                findings.damage = "its store does not hold the records that were written to it"
        return findings

    def collect(self, places: Sequence[bytes]) -> Collected:
        """The authentic ones of the first of these records, as many as one message takes, for another replica."""
        collected = Collected(0, {})
        size = 0
        for place, record in zip(places, self.store.get([layout.RECORD + place for place in places]), strict=True):
            collected.looked_at += 1
            owner = self.owners.get(place[2:18])
            if isinstance(record, bytes) and records.holds_value(record) and owner and self.authentic(place, record):
                collected.records.setdefault(owner, {})[place] = record
                size += len(record)
            if size > self.reply_bytes // 8:
                break
        return collected

    def acceptable(self, offered: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Select those of another replica's records, by place, that are authentic and meet no unreadable record here."""
        present = self.store.get([layout.RECORD + place for place in offered])
        return {
            place: record
            for (place, record), here in zip(offered.items(), present, strict=True)
            if here is not CORRUPT and self.authentic(place, record)
        }

    def authentic_at(self, places: Sequence[bytes]) -> int:
        """Count the places that have an authentic record here."""
        held = self.store.get([layout.RECORD + place for place in places])
        return sum(
            isinstance(record, bytes) and self.authentic(place, record) is True
            for place, record in zip(places, held, strict=True)
        )

    def authentic(self, place: bytes, record: bytes) -> bool | None:
        """True if the record was sealed for this place, or is a conflict mark; None if its owner is not known here."""
        if record == records.CONFLICT_MARK:
            return True
        owner = self.owners.get(layout.parse_place(place)[0])
        return None if owner is None else is_authentic(self.keyring, owner, place, record)

    def _slice(self, first: int, end: int) -> Iterator[tuple[int, _Pairs | None]]:
        """Yield a slice of buckets from ``first`` on with their records, or None for a bucket that cannot be read.

        The first bucket is always whole, however large: a slice without a bucket would be requested again and again.
        """
        if not 0 <= first < end:
            return
        room = self.slice_records * _BUCKETS_A_RECORD
        bucket, pairs = first, list[tuple[bytes, bytes]]()
        try:
            for key, record in self.store.scan(layout.RECORD, layout.bucket_prefix(first)):
                while layout.bucket_of(key) != bucket:
                    yield bucket, pairs
                    bucket, pairs, room = bucket + 1, [], room - 1
                    if room <= 0 or bucket >= end:
                        return
                pairs.append((key, record))
                room -= _BUCKETS_A_RECORD * (1 + len(record) // _BYTES_A_RECORD)
            while bucket < end:
                yield bucket, pairs
                bucket, pairs, room = bucket + 1, [], room - 1
                if room <= 0:
                    return
        except StoreCorrupt:
            # The bad block may be in this bucket or in a later one, so each bucket is read by itself.
            while bucket < end:
                yield bucket, self._read_alone(bucket)
                bucket, room = bucket + 1, room - _BUCKETS_A_RECORD
                if room <= 0:
                    return

    def close_gaps(self, buckets: Collection[int]) -> None:
        """Close the gaps in these buckets: they are known in full from now on."""
        before = self.gaps.pairs()
        after = self.gaps.close(buckets)
        self.store.write(dict(after.items() - before.items()), before.keys() - after.keys())
        for bucket in buckets:
            pairs = self._read_alone(bucket)
            if self.sums.complete and pairs is not None and not self.gaps.meets(bucket):
                self.sums.learn(bucket, total(pairs), len(pairs))

    def _read_around(self, bucket: int) -> _Pairs:
        """The readable records of a bucket that cannot be read in full."""
        found: _Pairs = []
        for each in records_around(self.store, layout.bucket_prefix(bucket)):
            if isinstance(each, Gap):
                if each.end >= bucket_gap(bucket).end:
                    break
            elif layout.bucket_of(each[0]) > bucket:
                break
            else:
                found.append(each)
        return found

    def _read_alone(self, bucket: int) -> _Pairs | None:
        try:
            return list(self.store.scan(layout.bucket_prefix(bucket)))
        except StoreCorrupt:
            return None
