"""The replica: takes requests of coordinators, near and far, and is the only writer of its store.

A group of requests is handled at once and shares one synced write (group commit, rule 2): no reply of a group exists before
that write has returned. It runs alone, on the store's own thread, which makes the fence and the write one critical
section (rule 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from quorumvault.crypto.keys import Keyring
from quorumvault.disk import DiskIdentity
from quorumvault.errors import StorageFailed
from quorumvault.model import Owner
from quorumvault.protocol import messages, records
from quorumvault.protocol.epochs import Register, fenced
from quorumvault.protocol.messages import AnyReply, AnyRequest
from quorumvault.protocol.views import votes
from quorumvault.storage import layout
from quorumvault.storage.store import CORRUPT, Corrupt, Store

#: What a replica answers for a record that it holds but cannot read.
UNREADABLE = b""


@dataclass(frozen=True, slots=True)
class _Durable:
    """Becomes an Ack once the group is on disk."""

    request: AnyRequest
    refused: dict[int, bytes]


class Replica:
    """One disk's share of the protocol. ``reply_bytes`` bounds the records in one answer."""

    def __init__(self, store: Store, identity: DiskIdentity, keyring: Keyring, *, reply_bytes: int) -> None:
        self._store = store
        self._identity = identity
        self._keyring = keyring
        self._reply_bytes = reply_bytes
        self._votes = votes(identity.disk, identity.mode, identity.view)
        self._sequence = _read_sequence(store)

    @property
    def sequence(self) -> int:
        """How many writes its disk has seen. Of all that is here this alone may be read on another thread."""
        return self._sequence

    def handle(self, requests: Sequence[AnyRequest]) -> list[AnyReply]:
        """Replies in the order of the requests, all durable. Raises StorageFailed: then nothing may be answered any more."""
        staged: dict[bytes, bytes] = {}
        outcomes = [self._handle(request, staged) for request in requests]
        if staged:
            self._sequence += 1
            staged[layout.SEQUENCE_KEY] = layout.encode_sequence(self._sequence)
            self._store.write(staged)
        return [self._vote(outcome) for outcome in outcomes]

    def _vote(self, outcome: AnyReply | _Durable) -> AnyReply:
        if isinstance(outcome, messages.OtherView):
            return outcome
        request = outcome.request if isinstance(outcome, _Durable) else outcome
        if not self._votes:
            return messages.NotVoting(request.round, request.view, self._identity.disk)
        if isinstance(outcome, _Durable):
            disk, incarnation = self._identity.disk, self._identity.incarnation
            return messages.Ack(request.round, request.view, disk, incarnation, self._sequence, outcome.refused)
        return outcome

    def _handle(self, request: AnyRequest, staged: dict[bytes, bytes]) -> AnyReply | _Durable:
        view = self._identity.view
        if view is not None and request.view != view.id:
            return messages.OtherView(request.round, request.view, self._identity.disk, view)
        match request:
            case messages.Put():
                return self._put(request, staged)
            case messages.Get():
                return self._get(request, staged)
            case messages.WriteBack():
                return self._write_back(request, staged)
            case messages.ReadEpoch():
                register = self._register(request.owner, staged)
                return messages.EpochIs(request.round, request.view, self._identity.disk, register.epoch, register.secret)
            case messages.RaiseEpoch():
                self._raise(request.owner, Register(request.epoch, request.secret), staged)
                return _Durable(request, {})

    def _put(self, put: messages.Put, staged: dict[bytes, bytes]) -> AnyReply | _Durable:
        theirs = Register(put.epoch, put.secret)
        mine = self._register(put.owner, staged)
        if fenced(mine, theirs):
            return messages.Stale(put.round, put.view, self._identity.disk, mine.epoch, mine.secret)
        self._raise(put.owner, theirs, staged)
        keys = layout.record_keys(put.owner, [put.epoch] * len(put.digests), put.digests)
        header = put.header
        return _Durable(put, self._store_once(keys, [header + sealed for sealed in put.sealed], staged))

    def _write_back(self, repair: messages.WriteBack, staged: dict[bytes, bytes]) -> _Durable:
        """Read repair: only what is authentic for its key is taken in (trap 7); the fence does not apply to what is old."""
        owner = Owner(repair.owner_name)
        keys = layout.record_keys(owner.id, repair.epochs, repair.digests)
        forged = {
            index
            for index, (epoch, digest, record) in enumerate(zip(repair.epochs, repair.digests, repair.records, strict=True))
            if not records.holds_value(record)
            or self._keyring.epoch_keys(owner, epoch).sealer.open(records.sealed_of(record), digest) is None
        }
        taken = [index for index in range(len(keys)) if index not in forged]
        refused = self._store_once([keys[index] for index in taken], [repair.records[index] for index in taken], staged)
        answer = {taken[index]: record for index, record in refused.items()}
        return _Durable(repair, answer | dict.fromkeys(forged, UNREADABLE))

    def _store_once(self, keys: list[bytes], incoming: list[bytes], staged: dict[bytes, bytes]) -> dict[int, bytes]:
        """Write-once (rule 1): stage what is new, keep what is there, refuse other bytes. The refused items by index."""
        held = self._store.get(keys)
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
        return refused

    def _get(self, get: messages.Get, staged: dict[bytes, bytes]) -> AnyReply:
        keys = layout.record_keys(get.owner, get.epochs, get.digests)
        found = self._store.get(keys)
        if staged:
            found = [staged.get(key, stored) for key, stored in zip(keys, found, strict=True)]
        unknown = [index for index, record in enumerate(found) if record is CORRUPT] if CORRUPT in found else []
        held = [None if record is CORRUPT else record for record in found] if unknown else cast("list[bytes | None]", found)
        if sum(map(len, filter(None, held))) > self._reply_bytes:
            return messages.Overflow(get.round, get.view, self._identity.disk)
        return messages.Holds(get.round, get.view, self._identity.disk, held, unknown)

    def _register(self, owner: bytes, staged: dict[bytes, bytes]) -> Register:
        key = layout.register_key(owner)
        value: bytes | Corrupt | None = staged.get(key)
        if value is None:
            (value,) = self._store.get([key])
        if value is None:
            return Register(0, "")
        try:
            # Without a readable register the fence cannot hold, and no other answer is safe.
            if value is CORRUPT:
                raise ValueError("its block is corrupt")
            return Register(*layout.decode_register(value))
        except ValueError as error:
            raise StorageFailed(f"an epoch register cannot be read: {error}") from error

    def _raise(self, owner: bytes, register: Register, staged: dict[bytes, bytes]) -> None:
        if register.epoch > self._register(owner, staged).epoch:
            staged[layout.register_key(owner)] = layout.encode_register(register.epoch, register.secret)


def _read_sequence(store: Store) -> int:
    """The number of the last group that was written; 0 on a disk that has not taken any."""
    (value,) = store.get([layout.SEQUENCE_KEY])
    if value is None:
        return 0
    try:
        if value is CORRUPT:
            raise ValueError("its block is corrupt")
        return layout.decode_sequence(value)
    except ValueError as error:
        raise StorageFailed(f"the store's sequence number cannot be read: {error}") from error
