"""The replica: handles the requests of its own coordinator and of others, and is the only writer of its store.

A group of requests is handled together and shares one synced write (group_commit.py): no reply of a group exists before that
write has returned. The replica runs on the store's own thread, so the fence and the write are one critical section.

A disk that is nearly full refuses requests that need a write. It still answers all others: reads, batches that the fence refuses,
and writes of records that it already has.

Requests about the disk as a whole, its view and copies of it, are handled after the group's write. So everything acknowledged in
the old view is in the store before the new view is entered, and a piece of a copy has everything acknowledged before it.

Rules kept here: write-once; durable before acknowledged; read repair before the answer; the fence; view and mode are durable;
every request names its view; only active listed disks vote; active after both copies; what is not known is not absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from quorumvault.crypto.keys import Keyring
from quorumvault.model import Owner
from quorumvault.protocol import messages, records
from quorumvault.protocol.fence import Register, refuses
from quorumvault.protocol.messages import AnyReply, AnyRequest, RoundId
from quorumvault.protocol.rollback_marks import Mark, Marks
from quorumvault.protocol.views import Mode, View, ViewId, may_enter, votes
from quorumvault.server.replica.bucket_sums import BucketSums
from quorumvault.server.replica.copy import merge_piece
from quorumvault.server.replica.hints import HintStore
from quorumvault.server.replica.inventory import Inventory
from quorumvault.server.replica.owners import OwnerNames
from quorumvault.server.replica.present_keys import PresentKeys
from quorumvault.server.replica.reader import Reader
from quorumvault.server.replica.record_cache import RecordCache
from quorumvault.server.replica.revoked_keys import RevokedKeys, refusal_of
from quorumvault.server.replica.settled import SettledRecords
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import DiskIdentity
from quorumvault.server.storage.gaps import Gaps, as_unreadable, unknown_among
from quorumvault.server.storage.store import CORRUPT, Corrupt, Store

#: The answer for a record that the replica holds and cannot read.
UNREADABLE = b""
#: Requests that may need a write to disk, and that can be refused if there is no room.
_WRITES = (messages.Put, messages.WriteBack, messages.RaiseEpoch)


@dataclass(frozen=True, slots=True)
class _Durable:
    """Becomes an Ack once the group is on disk. ``keys``: the keys of a Put under which the disk has the Put's bytes."""

    request: AnyRequest
    refused: dict[int, bytes]
    keys: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class OwnWork:
    """Work of this node itself on its replica, queued with the requests. The reply is the work's result."""

    work: Callable[[Replica], object]


#: Handled after the group's write.
_AFTER_WRITE = (messages.AskView, messages.ProposeView, messages.Copy, messages.Settle, messages.RevokeKeys, OwnWork)
_AfterWrite = messages.AskView | messages.ProposeView | messages.Copy | messages.Settle | messages.RevokeKeys | OwnWork


class Replica:
    """One disk's share of the protocol. ``reply_bytes`` bounds the records in one answer, ``copy_bytes`` a piece of a copy,
    ``cache`` keeps settled records in memory; without one there are none.

    ``has_room`` is called before each group with writes, and is False for a nearly full disk. ``has_reserve`` is called before
    this node writes its own bookkeeping, which takes next to nothing (free_space.py). ``keep`` makes an identity durable
    before it returns, or raises StorageFailed.
    """

    def __init__(
        self,
        store: Store,
        identity: DiskIdentity,
        keyring: Keyring,
        *,
        reply_bytes: int,
        copy_bytes: int,
        cache: RecordCache | None = None,
        keep: Callable[[DiskIdentity], None],
        has_room: Callable[[], bool] = lambda: True,
        has_reserve: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._identity = identity
        self._keyring = keyring
        self.reader = Reader(store, reply_bytes, cache or RecordCache(0))
        self._keep = keep
        self._has_room = has_room
        self.has_reserve = has_reserve
        self._votes = votes(identity.disk, identity.mode, identity.view)
        #: The number of writes that the disk has seen. Other threads may read it.
        self.sequence = layout.read_sequence(store)
        #: The disk's own mark when this process began.
        self.start = Mark(identity.incarnation, self.sequence)
        #: The rollback marks of other disks that are durable on this disk.
        self.remembered = layout.read_marks(store)
        self._sums = BucketSums()
        self.present = PresentKeys()
        #: The store's records that the current group replaces, by key.
        self._replaced: dict[bytes, bytes] = {}
        #: The records that this replica may answer alone.
        self.settled = SettledRecords()
        self.owners = OwnerNames(store)
        #: The revoked API keys that this disk knows.
        self.revoked = RevokedKeys(store)
        #: This node's coordinator's hints about writes that peers have missed.
        self.hints = HintStore(store)
        self.gaps = Gaps.of(store)
        self.inventory = Inventory(store, self._sums, self.present, self.owners, keyring, reply_bytes, copy_bytes, self.gaps)

    @property
    def identity(self) -> DiskIdentity:
        """The durable identity. Other threads may read it."""
        return self._identity

    @property
    def corrupt_reads(self) -> int:
        """The number of the store's reads that met a block that fails its checksum."""
        return self._store.corrupt_reads

    def handle(self, requests: Sequence[AnyRequest | OwnWork]) -> list[Any]:
        """Handle a group. Returns the replies in the order of the requests: an AnyReply, or the result of an OwnWork.

        The group's writes are durable when this returns. Raises StorageFailed; after that nothing may be answered any more.
        """
        staged: dict[bytes, bytes] = {}
        self._replaced = {}
        full = any(isinstance(request, _WRITES) for request in requests) and not self._has_room()
        outcomes = [self._handle_full(request) if full else self._handle(request, staged) for request in requests]
        if staged:
            self._write(staged)
        return [self._handle_after_write(each) if isinstance(each, _AFTER_WRITE) else self._reply_for(each) for each in outcomes]

    # Work of this node itself, on an active or a joining disk (OwnWork).

    def enter(self, view: View) -> bool:
        """Enter ``view``, which lists this joining disk. Returns False if there is no room to write it down."""
        return self._become(replace(self._identity, view=view))

    def activate(self, view: View, marks: Marks) -> bool:
        """Vote in ``view`` from now on, as this disk has both copies, and remember ``marks`` of the other disks first.

        Returns False if there is no room to write them down.
        """
        return self.remember(marks) and self._become(replace(self._identity, mode=Mode.ACTIVE, view=view))

    def remember(self, marks: Marks) -> bool:
        """Replace the stored rollback marks. Returns False if there is no room to write them down.

        Does not raise ``sequence``: otherwise peers would note it, this disk would note theirs, and so on endlessly.
        """
        if marks == self.remembered:
            return True
        if not self.has_reserve():
            return False
        gone = [layout.mark_key(disk) for disk in self.remembered if disk not in marks]
        self._store.write({layout.mark_key(disk): layout.encode_mark(mark) for disk, mark in marks.items()}, gone)
        self.remembered = dict(marks)
        return True

    def learn(self, owners: Iterable[Owner]) -> None:
        """Store owner names that came with records or registers, if the store lacks them or cannot read them."""
        fresh: dict[bytes, bytes] = {}
        for owner in owners:
            self.owners.stage(owner.id, owner.name, fresh)
        if fresh and self._has_room():
            self._write(fresh)

    def merge(self, keys: list[bytes], values: list[bytes], *, into_gaps: bool = False) -> int | None:
        """Merge pairs of another disk's store into this one. Returns how many keys changed, or None if there is no room.

        On a joining disk two values become a conflict mark. An active disk keeps its value: two disks may have it, and it may
        have been returned; each read then settles it with all three disks. An active disk adds to a gap only if ``into_gaps``
        (fill_gaps.py).
        """
        if not self._has_room() or not self.revoked.takes(keys):
            return None
        joins = self._identity.mode is Mode.JOINING
        spared = Gaps() if joins or into_gaps else self.gaps
        merged = merge_piece(self._store, self.owners, self._keyring, keys, values, marks=joins, spared=spared)
        if merged:
            there = zip(merged, self._store.get(list(merged)), strict=True)
            self._replaced = {key: was for key, was in there if isinstance(was, bytes) and key.startswith(layout.RECORD)}
            self._write(dict(merged))
            self.revoked.learn(merged)
        return len(merged)

    def settle(self, view: ViewId, buckets: Iterable[range], sequence: int) -> None:
        """A peer had equal sums for these buckets, both disks active in ``view``, this disk after ``sequence`` writes."""
        if self.is_active_in(view):
            self.settled.compared(self._sums.among_known(buckets), sequence)

    def is_active_in(self, view: ViewId) -> bool:
        mine = self._identity.view
        return self._votes and mine is not None and mine.id == view

    def _write(self, staged: dict[bytes, bytes]) -> None:
        # Not later: between the store's write and this line a group could miss records that are there.
        stored = [key for key in staged if key[:1] == layout.RECORD]
        self.present.add(stored)
        sequence = self.sequence + 1
        staged[layout.SEQUENCE_KEY] = layout.encode_sequence(sequence)
        self._store.write(staged)
        self.sequence = sequence  # not earlier: peers hear of it, and remember it
        self._sums.wrote(staged, self._replaced)
        self.settled.wrote(stored, sequence)
        self._replaced = {}

    def _become(self, identity: DiskIdentity) -> bool:
        """Make ``identity`` durable. This counts as a write, because an older copy of the disk must not vote in a past view.

        Returns False if there is no room to write it down.
        """
        if not self.has_reserve():
            return False
        self._write({})
        self._keep(identity)
        self._identity = identity
        self._votes = votes(identity.disk, identity.mode, identity.view)
        self.settled.forget()
        self.reader.cache.clear()
        return True

    def _handle_after_write(self, request: _AfterWrite) -> object:
        match request:
            case OwnWork():
                return request.work(self)
            case messages.Settle(round=sender, counters=counters):
                self.settled.committed(RoundId(sender.disk, sender.boot, counter) for counter in counters)
            case messages.ProposeView(proposed=view):
                mine = self._identity
                if mine.mode is Mode.ACTIVE and mine.view is not None and may_enter(mine.disk, mine.view, view):
                    self._become(replace(mine, view=view))
            case messages.Copy():
                return self._copy(request)
            case messages.RevokeKeys():
                return self._revoke(request)
        mine = self._identity
        mark = Mark(mine.incarnation, self.sequence)
        return messages.ViewIs(request.round, request.view, mine.disk, mine.mode, mine.view, mark, self.remembered)

    def _copy(self, copy: messages.Copy) -> AnyReply:
        refusal = refusal_of(self._identity, copy)
        head = (copy.round, copy.view, self._identity.disk)
        return refusal or self.inventory.copy(head, copy.after, only_read=copy.only_read, around=copy.around)

    def _revoke(self, request: messages.RevokeKeys) -> AnyReply:
        refusal = self.revoked.store(request, self._identity, self._write, self.has_reserve)
        return refusal or self._reply_for(_Durable(request, {}))

    # Requests of coordinators.

    def _reply_for(self, outcome: AnyReply | _Durable) -> AnyReply:
        if isinstance(outcome, messages.OtherView):
            return outcome
        request = outcome.request if isinstance(outcome, _Durable) else outcome
        if not self._votes:
            return messages.NotVoting(request.round, request.view, self._identity.disk)
        if isinstance(outcome, _Durable):
            if outcome.keys:
                self.settled.stored(request.round, outcome.keys)
            disk, incarnation = self._identity.disk, self._identity.incarnation
            return messages.Ack(request.round, request.view, disk, incarnation, self.sequence, outcome.refused)
        return outcome

    def _handle_full(self, request: AnyRequest | OwnWork) -> AnyReply | _Durable | _AfterWrite:
        """Handle a request on a disk without room: refuse it if it needs a write."""
        unwritten: dict[bytes, bytes] = {}
        outcome = self._handle(request, unwritten)
        if not unwritten or isinstance(request, OwnWork):
            return outcome
        self._replaced = {}
        return messages.NotVoting(request.round, request.view, self._identity.disk, full=True)

    def _handle(self, request: AnyRequest | OwnWork, staged: dict[bytes, bytes]) -> AnyReply | _Durable | _AfterWrite:
        if isinstance(request, _AFTER_WRITE):
            return request
        view = self._identity.view
        if view is not None and request.view != view.id:
            return messages.OtherView(request.round, request.view, self._identity.disk, view)
        match request:
            case messages.Put():
                return self._put(request, staged)
            case messages.Get():
                return self._get(request, staged)
            case messages.GetSettled():
                return self._get_settled(request)
            case messages.WriteBack():
                return self._write_back(request, staged)
            case messages.ReadEpoch():
                register = self._register(request.owner, staged)
                return messages.EpochIs(request.round, request.view, self._identity.disk, register.epoch, register.secret)
            case messages.RaiseEpoch():
                self._advance(request.owner, Register(request.epoch, request.secret), staged)
                return _Durable(request, {})
            case messages.ReadRevoked():
                return self.revoked.answer(request, self._identity)
            case _:
                return self.inventory.answer(request, self._identity.disk, self.sequence)

    def _put(self, put: messages.Put, staged: dict[bytes, bytes]) -> AnyReply | _Durable:
        theirs = Register(put.epoch, put.secret)
        mine = self._register(put.owner, staged)
        if refuses(mine, theirs):
            return messages.Stale(put.round, put.view, self._identity.disk, mine.epoch, mine.secret)
        self._advance(put.owner, theirs, staged)
        self.owners.stage(put.owner, put.owner_name, staged)
        keys = layout.record_keys(put.owner, [put.epoch] * len(put.digests), put.digests)
        refused = self._store_once(keys, [put.header + sealed for sealed in put.sealed], staged)
        return _Durable(put, refused, [key for index, key in enumerate(keys) if index not in refused] if refused else keys)

    def _write_back(self, repair: messages.WriteBack, staged: dict[bytes, bytes]) -> _Durable:
        """Read repair: only records that are authentic for their keys are written. The fence does not apply to old records."""
        owner = Owner(repair.owner_name)
        self.owners.stage(owner.id, owner.name, staged)
        keys = layout.record_keys(owner.id, repair.epochs, repair.digests)
        forged = {
            index
            for index, (epoch, digest, record) in enumerate(zip(repair.epochs, repair.digests, repair.records, strict=True))
            if not records.authentic(record, digest, self._keyring.epoch_keys(owner, epoch).sealer)
        }
        taken = [index for index in range(len(keys)) if index not in forged]
        refused = self._store_once([keys[index] for index in taken], [repair.records[index] for index in taken], staged)
        answer = {taken[index]: record for index, record in refused.items()}
        return _Durable(repair, answer | dict.fromkeys(forged, UNREADABLE))

    def _store_once(self, keys: list[bytes], incoming: list[bytes], staged: dict[bytes, bytes]) -> dict[int, bytes]:
        """Write-once: stage new records, keep existing ones, refuse other bytes. Returns the refused items by index."""
        held = self._held(keys)
        if not staged.keys() & keys and held.count(None) == len(keys) == len(set(keys)):
            staged.update(zip(keys, incoming, strict=True))
            return {}
        refused: dict[int, bytes] = {}
        for index, (key, record, stored) in enumerate(zip(keys, incoming, held, strict=True)):
            present = staged.get(key, stored)
            if present is None:
                staged[key] = record
            elif present is CORRUPT:
                refused[index] = UNREADABLE
            elif present[records.HEADER_BYTES :] != record[records.HEADER_BYTES :]:
                refused[index] = present if records.is_record(present) else UNREADABLE
            elif record < present:
                staged[key] = records.merge(present, record)  # the same value by an earlier writer
                if isinstance(stored, bytes):
                    self._replaced[key] = stored
        return refused

    def _held(self, keys: list[bytes]) -> list[bytes | Corrupt | None]:
        """The store's records under these keys. Keys that the store certainly lacks are not looked up (present_keys.py)."""
        spared = frozenset(self.present.absent(keys))
        asked = [key for key in keys if key not in spared] if spared else keys
        found = dict(zip(asked, self._store.get(asked), strict=True)) if asked else {}
        return as_unreadable(keys, [found.get(key) for key in keys], self.gaps)

    def _get(self, get: messages.Get, staged: dict[bytes, bytes]) -> AnyReply:
        keys = layout.record_keys(get.owner, get.epochs, get.digests)
        stored = self.reader.read(keys)
        if stored is None:
            return messages.Overflow(get.round, get.view, self._identity.disk)
        found = [staged.get(key, stored[key]) for key in keys] if staged else [stored[key] for key in keys]
        unknown = unknown_among(keys, found, self.gaps)
        held = [None if record is CORRUPT else record for record in found] if unknown else cast("list[bytes | None]", found)
        return messages.Holds(get.round, get.view, self._identity.disk, held, unknown)

    def _get_settled(self, get: messages.GetSettled) -> AnyReply:
        """Answer from the store, or the reader's memory of it, so that every answer is durable: what is staged is not there."""
        current = get.epoch > 0 and self._register(get.owner, {}) == Register(get.epoch, get.secret)
        keys = layout.record_keys(get.owner, get.epochs, get.digests)
        settled = self.settled.select(keys)
        values = self.reader.read_values([keys[index] for index in settled])
        if values is None:
            return messages.Overflow(get.round, get.view, self._identity.disk)
        told: list[bytes | None] = [None] * len(keys)
        for index, value in zip(settled, values, strict=True):
            told[index] = value
        return messages.Settled(get.round, get.view, self._identity.disk, told, current)

    def _register(self, owner: bytes, staged: dict[bytes, bytes]) -> Register:
        value = staged.get(key := layout.register_key(owner)) or self._store.get([key])[0]
        return Register(0, "") if value is None else Register(*layout.read_register(value))

    def _advance(self, owner: bytes, register: Register, staged: dict[bytes, bytes]) -> None:
        if register.epoch > self._register(owner, staged).epoch:
            staged[layout.register_key(owner)] = layout.encode_register(register.epoch, register.secret)
