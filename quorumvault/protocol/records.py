"""The bytes of the record under (owner, epoch, token): the same on disk and between nodes.

     0       1      2               10     11
    +-------+------+---------------+------+------------------
    | format| kind | clock (u64 BE)| node | sealed …
    +-------+------+---------------+------+------------------
      0x01    'v'    version: who wrote first   AES-SIV, see crypto/sealing.py
    +-------+------+
    | 0x01  | 'c'  |                      conflict mark: two values met here; holds neither, and is not absent
    +-------+------+

The headers of sealed records sort as their versions do, because format and kind are equal and numbers are big-endian.

Rules kept here: a conflict never overwrites.
"""

import hashlib
import struct
from typing import Final

from quorumvault.crypto.sealing import Sealer
from quorumvault.model import Version

FORMAT = 1
_VALUE = b"\x01v"
CONFLICT_MARK = b"\x01c"
HEADER_BYTES = 11
_VERSION = struct.Struct(">QB")
#: After format and kind: clock and node of the version, then the first half of the SIV tag.
_VERSION_AND_TAG = struct.Struct(">xxQBQ").unpack_from
_MASK: Final = 2**64 - 1
_HASH_BYTES = 16


def header(version: Version) -> bytes:
    """The first HEADER_BYTES of a record that holds a value; the sealed bytes follow."""
    return _VALUE + _VERSION.pack(*version)


def is_value_header(header: bytes) -> bool:
    return header.startswith(_VALUE) and len(header) >= HEADER_BYTES


def holds_value(record: bytes) -> bool:
    return record.startswith(_VALUE) and len(record) > HEADER_BYTES


def is_record(record: bytes) -> bool:
    """True if the bytes are a record in a known format."""
    return holds_value(record) or record == CONFLICT_MARK


def version_of(record: bytes) -> Version:
    return Version(*_VERSION.unpack_from(record, len(_VALUE)))


def sealed_of(record: bytes) -> bytes:
    return record[HEADER_BYTES:]


def authentic(record: bytes, digest: bytes, sealer: Sealer) -> bool:
    """True if the record's value was sealed under this digest, for the sealer's owner and epoch."""
    return holds_value(record) and sealer.open(sealed_of(record), digest) is not None


def merge(one: bytes, other: bytes) -> bytes:
    """Merge two replicas' records for one key. Commutative, associative and idempotent.

    If the sealed bytes are equal, the record with the lower version (the first writer's) remains; otherwise a conflict mark
    takes its place for good.
    """
    if holds_value(one) and holds_value(other) and sealed_of(one) == sealed_of(other):
        return min(one, other)
    return CONFLICT_MARK


def fingerprint(key: bytes, record: bytes) -> int:
    """64 bits that are equal for two replicas' copies of a record if they hold the same value by the same writer.

    The fingerprint is t (2v + 1) modulo 2^64, where v is the version and t the first half of the SIV tag. The tag is a
    pseudo-random function of owner, epoch, digest and value, so a second hash is not needed. For bytes too short to be a sealed
    value, such as a conflict mark, the fingerprint is a hash over key and bytes.
    """
    try:
        clock, node, tag = _VERSION_AND_TAG(record)
    except struct.error:
        return int.from_bytes(hashlib.blake2b(key + record, digest_size=8).digest(), "big")
    return int(tag * (clock << 9 | node << 1 | 1) & _MASK)


def record_hash(record: bytes) -> bytes:
    """The hash over all bytes of a record that goes into a listing."""
    return hashlib.blake2b(record, digest_size=_HASH_BYTES).digest()
