"""The keys of a replica's store.

    r | digest[0:2] | owner id (16) | epoch (u32 BE) | digest[2:20]    record of (owner, epoch, token)      -> protocol/records.py
    e | owner id (16)                                                  the owner's epoch register           -> REGISTER below
    k | key id (ASCII)                                                 that API key is revoked; holds 0x01
    h | disk (16) | number (u64 BE)                                    a hint: what that disk missed -> protocol/hinted_handoff.py
    m | name                                                           facts about this store ("sequence", "format", "disk"),
                                                                       the names of owners, by their id, and the marks of
                                                                       other disks -> MARK below
    u | place (40)                                                     a gap from this place up to the place in the value
                                                                       -> gaps.py

A digest is a keyed hash of the value, so its first two bytes spread records evenly over 65,536 **buckets**. A bucket is one range
scan: r | bucket. Every record's key includes its owner. A record's **place** is its key without the r.

    REGISTER  0x01 | epoch (u32 BE) | id of the master secret that the epoch uses (ASCII)
    MARK      incarnation (u64 BE) | sequence (u64 BE), under "mark/" and the disk (16)   -> protocol/rollback_marks.py

Rules kept here: owner isolation.
"""

import struct
from collections.abc import Sequence

import msgspec

from quorumvault.errors import StoreCorrupt
from quorumvault.protocol.messages import KeyId
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.server.storage.store import CORRUPT, Corrupt, Store

STORE_FORMAT = 1
RECORD = b"r"
REGISTER = b"e"
REVOKED = b"k"
HINT = b"h"
META = b"m"
#: The last prefix of all, so that a copy gets the gaps of its source after the records.
GAP = b"u"
BUCKET_BYTES = 2
#: Length of a place: bucket, owner id, epoch, rest of the digest.
PLACE_BYTES = 40

FORMAT_KEY = META + b"format"
DISK_KEY = META + b"disk"
SEQUENCE_KEY = META + b"sequence"
OWNER = META + b"owner/"
MARK = META + b"mark/"

#: The value under a revoked key's id: the key alone says everything.
REVOKED_VALUE = b"\x01"

_REGISTER_FORMAT = b"\x01"
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_MARK = struct.Struct(">QQ")


def record_keys(owner: bytes, epochs: Sequence[int], digests: Sequence[bytes]) -> list[bytes]:
    """Keys for parallel columns of epochs and digests of one owner."""
    scopes = {epoch: owner + _U32.pack(epoch) for epoch in set(epochs)}
    return [b"r" + digest[:2] + scopes[epoch] + digest[2:] for epoch, digest in zip(epochs, digests, strict=True)]


def parse_place(place: bytes) -> tuple[bytes, int, bytes]:
    """(owner id, epoch, digest) of a record's place. Raises ValueError for bytes that are not a place."""
    if len(place) != PLACE_BYTES:
        raise ValueError("not the place of a record")
    return place[2:18], _U32.unpack_from(place, 18)[0], place[:2] + place[22:]


def bucket_prefix(bucket: int) -> bytes:
    """The first bytes of the keys of a bucket's records. The prefix of bucket 0 sorts before all records."""
    return RECORD + bucket.to_bytes(BUCKET_BYTES, "big")


def bucket_of(key: bytes) -> int:
    """The bucket of a record's key."""
    return key[1] << 8 | key[2]


def register_key(owner: bytes) -> bytes:
    return REGISTER + owner


def owner_key(owner: bytes) -> bytes:
    """The key of the name of the owner with this id."""
    return OWNER + owner


def hint_key(disk: bytes, number: int) -> bytes:
    return HINT + disk + _U64.pack(number)


def parse_hint_key(key: bytes) -> tuple[bytes, int]:
    """(disk, number) of a hint."""
    return key[1:-8], int(_U64.unpack(key[-8:])[0])


def encode_register(epoch: int, secret: str) -> bytes:
    return _REGISTER_FORMAT + _U32.pack(epoch) + secret.encode()


def decode_register(value: bytes) -> tuple[int, str]:
    """(epoch, secret id). Raises ValueError for bytes that are not a register."""
    if value[:1] != _REGISTER_FORMAT or len(value) < 1 + _U32.size:
        raise ValueError("not a register of a known format")
    return _U32.unpack_from(value, 1)[0], value[5:].decode()


def read_register(value: bytes | Corrupt) -> tuple[int, str]:
    """As decode_register, for a value from a store. Raises StoreCorrupt: without a readable register the fence cannot hold."""
    if value is CORRUPT:
        raise StoreCorrupt("an epoch register cannot be read: its block is corrupt")
    try:
        return decode_register(value)
    except ValueError as error:
        raise StoreCorrupt(f"an epoch register cannot be read: {error}") from error


def revoked_key(key_id: str) -> bytes:
    """The store's key for the fact that an API key is revoked."""
    return REVOKED + key_id.encode()


def parse_revoked_key(key: bytes) -> str:
    """The API key's id in such a key of the store (``revoked_key``). Raises ValueError if it is not a valid id."""
    key_id = key.removeprefix(REVOKED).decode()
    msgspec.convert(key_id, KeyId)
    return key_id


def encode_sequence(sequence: int) -> bytes:
    return _U64.pack(sequence)


def decode_sequence(value: bytes) -> int:
    """Raises ValueError for bytes that are not a sequence number."""
    if len(value) != _U64.size:
        raise ValueError("not a sequence number")
    return int(_U64.unpack(value)[0])


def read_sequence(store: Store) -> int:
    """The number of the last group that was written; 0 on a disk without writes. Raises StoreCorrupt."""
    (value,) = store.get([SEQUENCE_KEY])
    try:
        return 0 if value is None else decode_sequence(b"" if value is CORRUPT else value)
    except ValueError as error:
        raise StoreCorrupt(f"the store's sequence number cannot be read: {error}") from error


def mark_key(disk: bytes) -> bytes:
    """The key of the rollback mark of another disk."""
    return MARK + disk


def encode_mark(mark: Mark) -> bytes:
    return _MARK.pack(*mark)


def read_marks(store: Store) -> dict[bytes, Mark]:
    """The marks of other disks, by disk id. Raises StorageFailed."""
    try:
        return {key.removeprefix(MARK): Mark(*_MARK.unpack(value)) for key, value in store.scan(MARK)}
    except struct.error as error:
        raise StoreCorrupt(f"what the store remembers of other disks cannot be read: {error}") from error


def secret_key(secret: str) -> bytes:
    """The key of the fingerprint of the master secret with this id."""
    return META + b"secret/" + secret.encode()
