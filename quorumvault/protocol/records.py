"""The record under (owner, epoch, token), as bytes: the same on disk and between nodes.

     0       1      2               10     11
    +-------+------+---------------+------+------------------
    | format| kind | clock (u64 BE)| node | sealed …
    +-------+------+---------------+------+------------------
      0x01    'v'    version: who wrote first   AES-SIV, see crypto/sealing.py
    +-------+------+
    | 0x01  | 'c'  |                      conflict mark: two values met here; holds neither, and is not absent
    +-------+------+

Sealed records compare by header as their versions do, since format and kind are equal and numbers are big-endian.
"""

from __future__ import annotations

import struct

from quorumvault.model import Version

FORMAT = 1
_VALUE = b"\x01v"
CONFLICT_MARK = b"\x01c"
HEADER_BYTES = 11
_VERSION = struct.Struct(">QB")


def header(version: Version) -> bytes:
    """The first HEADER_BYTES of a record that holds a value; the sealed bytes follow."""
    return _VALUE + _VERSION.pack(*version)


def holds_value(record: bytes) -> bool:
    return record.startswith(_VALUE) and len(record) > HEADER_BYTES


def is_record(record: bytes) -> bool:
    """Whether these bytes are a record of a format that is known here."""
    return holds_value(record) or record == CONFLICT_MARK


def version_of(record: bytes) -> Version:
    return Version(*_VERSION.unpack_from(record, len(_VALUE)))


def sealed_of(record: bytes) -> bytes:
    return record[HEADER_BYTES:]


def merge(one: bytes, other: bytes) -> bytes:
    """What two replicas' records for one key become when they are brought together: commutative, associative, idempotent.

    Same sealed bytes: the lower version, the first writer. Anything else: a conflict mark, for good (rule 10).
    """
    if holds_value(one) and holds_value(other) and sealed_of(one) == sealed_of(other):
        return min(one, other)
    return CONFLICT_MARK
