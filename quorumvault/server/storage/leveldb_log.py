"""Reads LevelDB's write-ahead log without LevelDB: where its last whole record ends, and whether what follows is a torn tail.

    block     32 KiB, the last one shorter: records one after the other; fewer than 7 bytes at its end are left empty
    record    0: CRC-32C over type and data, masked (u32)   4: length of the data (u16)   6: type (u8)   7: data
    type      1 FULL      a batch, whole
              2 FIRST, 3 MIDDLE, 4 LAST                     a batch in pieces, one a block
    batch     0: number of its first entry (u64)   8: entries (u32)   12: entries

Integers are little-endian. Source: doc/log_format.md and db/log_format.h of LevelDB; the batch: db/write_batch.cc.

A store writes batches one after the other, each synced before the next begins. So a crash leaves at most one incomplete batch,
and nothing after it. When the store is then opened:

    the log ends within that batch (a process was killed)     LevelDB opens it, without that batch
    zeros, or older contents of the disk, are in its place    LevelDB refuses: the node gives the disk up and rejoins or, if too
    (a power cut)                                             many disks were hit, ``quorumvault recover`` cuts the log here
    a later batch follows the damage                          ``scan_logs`` refuses, and nothing here repairs it: the damaged
                                                              batch had been synced, perhaps acknowledged, and was damaged since

Two cases look the same: a last batch that was torn, and one that was synced and has rotted (Alagappan et al., FAST '18).
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from google_crc32c import value as crc32c

from quorumvault.errors import StoreCorrupt

BLOCK_BYTES: Final = 32 * 1024
_HEADER = struct.Struct("<IHB")
_BATCH = struct.Struct("<QI")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
_MASK_DELTA = 0xA282EAD8
#: The sixth byte of the header of a record in which a batch begins.
_BEGINNING = re.compile(rb"[\x01\x02]")


class LogScan(NamedTuple):
    """The scan of one log: of its ``size`` bytes the first ``whole`` are whole batches, ``batches`` of them.

    ``first`` and ``last`` are the numbers of their first and last entry, 0 if there is no batch. ``torn_entries``: the number of
    entries of the batch after them, if its beginning is still there.
    """

    size: int
    whole: int
    batches: int
    first: int
    last: int
    torn_entries: int | None

    @property
    def torn(self) -> int:
        """The number of bytes after the last whole batch."""
        return self.size - self.whole


class _Record(NamedTuple):
    kind: int
    data: bytes
    end: int


class _Batch(NamedTuple):
    """A batch, or its remaining part: its first bytes, the end of its last valid record, and whether it is whole."""

    head: bytes
    end: int
    whole: bool

    @property
    def named(self) -> bool:
        """True if enough of the batch is there to know its numbers."""
        return len(self.head) == _BATCH.size

    @property
    def first_entry(self) -> int:
        """The number of its first entry, 0 if unknown; each further entry has the next number."""
        return _BATCH.unpack(self.head)[0] if self.named else 0

    @property
    def entries(self) -> int | None:
        return _BATCH.unpack(self.head)[1] if self.named else None


def scan_logs(store: Path) -> list[tuple[Path, LogScan]]:
    """All logs of a store, the oldest first. Raises StoreCorrupt for damage in the middle of all their batches, or OSError.

    There are two logs while LevelDB makes a table from the first one's batches. A log that a crash cut short may also still exist
    after its successor was written to: then the numbers go on without a gap, because no numbered entry was lost.
    """
    paths = sorted(store.glob("*.log"), key=lambda path: int(path.stem))
    scans = [(path, _scan_file(path)) for path in paths]
    last = 0
    for number, (path, scan) in enumerate(scans):
        last = scan.last or last
        following = next((later for _, later in scans[number + 1 :] if later.batches), None)
        if scan.torn and following is not None and (not last or following.first > last + 1):
            raise StoreCorrupt(f"{path}: what follows its first {scan.whole} bytes is damaged, and a later log goes on behind it")
    return scans


def _scan_file(path: Path) -> LogScan:
    try:
        return scan_log(path.read_bytes())
    except StoreCorrupt as error:
        raise StoreCorrupt(f"{path}: {error}") from None


def scan_log(log: bytes) -> LogScan:
    """Scan one log. Raises StoreCorrupt for damage in the middle."""
    whole = batches = first = last = 0
    # A batch that is not later than the previous one belongs to an older log, whose bytes were still in the disk's blocks.
    while (batch := _read_batch(log, whole)).whole and batch.first_entry > last:
        whole, batches, last = batch.end, batches + 1, batch.first_entry + (batch.entries or 0) - 1
        first = first or batch.first_entry
    rest = whole if batch.whole else batch.end
    if any(not later.named or later.first_entry > last for later in _batches_after(log, rest)):
        raise StoreCorrupt(
            f"a log is damaged in the middle, behind its first {whole} bytes: batches follow that were written later, so this "
            f"was no write that a crash cut short"
        )
    return LogScan(len(log), whole, batches, first, last, None if batch.whole else batch.entries)


def _read_batch(log: bytes, at: int) -> _Batch:
    """The batch that begins at ``at``, if one does."""
    record = _record_at(log, at)
    if record is None or record.kind not in (FULL, FIRST):
        return _Batch(b"", at, whole=False)
    head = record.data[: _BATCH.size]
    while record.kind not in (FULL, LAST):
        following = _record_at(log, record.end)
        if following is None or following.kind not in (MIDDLE, LAST):
            return _Batch(head, record.end, whole=False)
        record = following
        head += record.data[: _BATCH.size - len(head)]  # the first piece is short or empty if its block had little room left
    return _Batch(head, record.end, whole=True)


def _batches_after(log: bytes, at: int) -> Iterator[_Batch]:
    """The batches that begin after ``at``, wherever a record may start there."""
    for found in _BEGINNING.finditer(log, at + _HEADER.size):
        batch = _read_batch(log, found.start() - _HEADER.size + 1)
        if batch.head or batch.whole:
            yield batch


def _record_at(log: bytes, at: int) -> _Record | None:
    """The record at ``at``, or at the next block if no record fits there; None if there is no valid record."""
    if BLOCK_BYTES - at % BLOCK_BYTES < _HEADER.size:
        at += BLOCK_BYTES - at % BLOCK_BYTES
    if at + _HEADER.size > len(log):
        return None
    checksum, length, kind = _HEADER.unpack_from(log, at)
    end = at + _HEADER.size + length
    if not FULL <= kind <= LAST or end > len(log) or end - at > BLOCK_BYTES - at % BLOCK_BYTES:
        return None
    if checksum != mask(crc32c(log[at + _HEADER.size - 1 : end])):
        return None
    return _Record(kind, log[at + _HEADER.size : end], end)


def mask(checksum: int) -> int:
    """A checksum as LevelDB stores it: masked, because a CRC over data that contains CRCs would be weak (util/crc32c.h)."""
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFF_FFFF
