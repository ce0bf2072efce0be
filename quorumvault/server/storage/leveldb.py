"""LevelDB under the store's contract.

    <data>/nX/store/   CURRENT, MANIFEST-n   which files make up the store
                       n.log                 the write-ahead log: a batch is acknowledged once it is synced here
                       n.ldb                 sorted tables: data blocks, each with its CRC-32C, an index, a Bloom filter
                       LOCK, LOG             held by the process that has the store open; LevelDB's own log messages

LevelDB trusts its disk unless it is told not to. The options used here, and why:

- ``sync`` on every write: without it an acknowledged batch may be only in the operating system's memory.
- ``verify_checksums`` on every read: without it a rotten block returns wrong bytes, or hides records.
- ``paranoid_checks``: without it a rotten Bloom filter hides records, and a log that is damaged in the middle opens as if the
  batches after the damage had never existed.
- A failed write is the last one. LevelDB would continue after the torn record, acknowledge batches appended there, and not find
  them at its next start (Pillai et al., ALICE, OSDI '14).
- RepairDB is never used: it drops unreadable data, which makes it absent.

These options miss one case. LevelDB opens a log that ends within a batch, as a crash may leave it (leveldb_log.py has the table
of torn logs). A flipped bit in the length of one of the last records (within 32 KiB of the end) looks the same, and LevelDB opens
the log without the batches from there on. So this module reads the logs once before LevelDB does, and finds the batches that
follow. What remains is a flipped bit in the very last batch, which no log can tell from a crash (Alagappan et al., FAST '18, call
it the entanglement of crash and corruption); only the sequence that peers remember can.

Rules kept here: durable before acknowledged; a distrusted store stops.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from quorumvault.durable import sync_directory
from quorumvault.errors import ConfigError, NoRoom, StorageFailed, StoreCorrupt, StoreMissing
from quorumvault.server.storage import layout
from quorumvault.server.storage.binding import plyvel
from quorumvault.server.storage.leveldb_log import scan_logs
from quorumvault.server.storage.leveldb_tables import Tables
from quorumvault.server.storage.store import CORRUPT, Corrupt

KiB, MiB = 1 << 10, 1 << 20

_OPTIONS = {
    "paranoid_checks": True,
    # Sealed values and keyed hashes do not compress. Trying doubled the CPU time of bulk loads, and made writes wait seconds for
    # compactions.
    "compression": None,
    # Writes gather in memory up to this size, in at most two buffers, then become a table. With half of it, tables come twice as
    # often, and a store that grows fivefold under load loses a sixth more of its throughput to compactions. With twice of it,
    # each compaction is so long that requests wait for it after the load is gone. A start reads the rest back from the log.
    "write_buffer_size": 16 * MiB,
    # The amount that is read and checked for one record. LevelDB's default of 4 KiB makes a read a quarter slower; 1 KiB gains
    # little more, and the index has an entry for each block.
    "block_size": 2 * KiB,
    # Tables held open, 2 MiB each: 8 GiB, some 90 million records. Opening a table again costs as much as several reads of a
    # record. The first thousand are mapped, and the kernel may reclaim their pages; the others cost a descriptor each.
    "max_open_files": 4096,
    # For blocks of tables that are not mapped; mapped tables need no second copy.
    "lru_cache_size": 8 * MiB,
    # Per key: 1 in 100 keys that a table does not have costs a read in vain.
    "bloom_filter_bits": 10,
}
#: Up to this many look-ups, an iterator, which costs 5 microseconds to make, is not worth it.
_FEW: Final = 8
#: LevelDB charges a ``get`` that touches two tables to the first of them, and merges a table into the next level after one charge
#: for each 16 KiB of it. In a store of two million records, a charge costs 400 microseconds of compaction, while one more table
#: costs a look-up one or two. So batches are looked up by iterators, which are not charged, and one key of this many also by
#: ``get``: tables are then merged when look-ups have lost about as much time to them as the merge costs. The number is a prime,
#: since otherwise batches of one size would always charge the same keys.
#: docs/decisions/0035-look-ups-that-leveldb-does-not-charge.md
_CHARGED_EACH: Final = 257
#: Blocks that are stepped over at a time, 2 KiB each: the readable pairs among them are in memory at once.
_STEPPED_OVER: Final = 32
_FORMAT = bytes([layout.STORE_FORMAT])
#: The words for a store that LevelDB refuses: it is damaged, or its log has other bytes where the last batch was torn
#: (leveldb_log.py), which server/offline/recover.py can cut off.
CANNOT_BE_OPENED = "the store cannot be opened"
#: The words for a store that opens but has an unreadable block: it can be salvaged (salvage.py).
UNREADABLE = "a block of its store fails its checksum"
_LOCK_REFUSED = "IO error: lock "
#: Errors that keep a store from opening without damage to it: the operator must fix them.
_SURROUNDINGS = tuple(os.strerror(code) for code in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE))
#: Errors of this kind that may pass by themselves: the process should be started again.
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


class LevelDBStore:
    """The store of one disk. ``create`` makes it, ``open`` opens it: looking for a store never creates one."""

    def __init__(self, db: plyvel.DB, path: Path) -> None:
        self.corrupt_reads = 0
        #: Called on the store's thread after each successful write, with the seconds that the write and its sync took.
        self.on_write: Callable[[float], None] = lambda seconds: None
        self._db = db
        self._path = path
        self._place = _place(path)
        self._tables = Tables(path)
        #: The number of keys looked up in batches, which decides which keys are charged.
        self._looked_up = 0
        self._write_failure: str | None = None

    @classmethod
    def create(cls, path: Path, disk: bytes) -> LevelDBStore:
        """Make a durable new store for the disk with this id. Raises ConfigError if there is anything at ``path``."""
        _check_name(path)
        try:
            path.mkdir(mode=0o700)
        except OSError as error:
            raise ConfigError(path, "", f"expected to make a new store here: {error.strerror}") from None
        store = cls(_connect(path, create=True), path)
        store.write({layout.FORMAT_KEY: _FORMAT, layout.DISK_KEY: disk})
        sync_directory(path.parent)
        return store

    @classmethod
    def open(cls, path: Path, disk: bytes) -> LevelDBStore:
        """The store that ``create`` made at ``path`` for the disk with this id.

        Raises StoreMissing if nothing is there; StorageFailed if it is damaged, incomplete or another disk's; ConfigError if
        another process has it open, another version wrote it, or its surroundings prevent it (permissions, descriptors).
        """
        _check_name(path)
        _check_directory(path)
        _check_logs(path)
        store = cls(_connect(path, create=False), path)
        try:
            store._check_description(disk)
        except BaseException:
            store.close()
            raise
        return store

    def get(self, keys: Sequence[bytes]) -> list[bytes | Corrupt | None]:
        """See Store. Three to ten microseconds a key: the loops are the hot path of every request."""
        self._check_open()
        try:
            if len(keys) < _FEW:
                return [self._db.get(key, None, verify_checksums=True) for key in keys]
            # In the order of keys, because their blocks lie side by side: an eighth faster, a third in a store of millions.
            order = sorted(range(len(keys)), key=keys.__getitem__)
            for place in order[-self._looked_up % _CHARGED_EACH :: _CHARGED_EACH]:
                self._db.get(keys[place], None, verify_checksums=True)
            self._looked_up += len(keys)
            return self._get_in_order(keys, order)
        except plyvel.CorruptionError:
            return [self._get(key) for key in keys]
        except plyvel.Error as error:
            raise self._failure("cannot be read", error) from None

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        self._check_open()
        if self._write_failure is not None:
            raise StorageFailed(self._write_failure)
        self.require_place()
        began = time.perf_counter()
        batch = self._db.write_batch(sync=True)
        for key in deletes:
            batch.delete(key)
        put = batch.put
        for key, value in puts.items():
            put(key, value)
        try:
            batch.write()
        except plyvel.Error as error:
            failure = self._failure("cannot be written", error)
            self._write_failure = f"{failure}; nothing more is written"
            raise failure from None
        self.on_write(time.perf_counter() - began)

    def require_place(self) -> None:
        """Raises StorageFailed if other files, or none, are where this store's files were when it was opened.

        LevelDB goes on writing to files that have been removed, and what it then acknowledges is on no disk. So each group of
        writes begins with this, which takes some two microseconds.
        """
        try:
            kept = _place(self._path) == self._place
        except OSError:  # nobody can tell just now; if the disk has failed, LevelDB will say so
            return
        if not kept:
            raise StorageFailed(f"{self._path}: its files were removed, or replaced, while this process had them open")

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """See Store."""
        self._check_open()
        try:
            iterator = self._db.iterator(verify_checksums=True, fill_cache=False)
        except plyvel.Error as error:
            raise self._failure("cannot be scanned", error) from None
        return self._pairs(iterator, prefix, max(prefix, start))

    def step_over(self, start: bytes, end: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """See Store."""
        self._check_open()
        starts = self._tables.starts_after(start, _STEPPED_OVER)
        after = next(filter(self._can_be_read_from, starts), starts[-1] if starts else end)
        after = min(after, end)
        return after, self._tables.pairs(start, after)

    def close(self) -> None:
        """Close the store. Waits for a running compaction. Closing twice is fine."""
        self._db.close()

    def _pairs(self, iterator: plyvel.Iterator, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Walk from ``start`` on, without plyvel's own bounds. plyvel checks the iterator's state only while there is a next key:
        a corrupt block at the very end would end the walk early, and silently."""
        try:
            iterator.seek(start)
            for pair in iterator:
                if not pair[0].startswith(prefix):
                    return
                yield pair
            # No key follows. An iterator keeps its first error, and a step back to the last readable key raises it.
            iterator.prev()
        except StopIteration:
            self.corrupt_reads += 1
            raise StoreCorrupt(f"{self._path}: cannot be scanned: no key in it can be read") from None
        except plyvel.Error as error:
            raise self._failure("cannot be scanned", error) from None
        finally:
            iterator.close()

    def _can_be_read_from(self, key: bytes) -> bool:
        try:
            with self._db.iterator(verify_checksums=True, fill_cache=False) as iterator:
                iterator.seek(key)
                if next(iterator, None) is None:
                    iterator.prev()  # as in _pairs
        except (StopIteration, plyvel.Error):
            return False
        return True

    def _get_in_order(self, keys: Sequence[bytes], order: Iterable[int]) -> list[bytes | Corrupt | None]:
        """The values, read by an iterator, which LevelDB does not charge to its tables. Raises plyvel.Error.

        A seek raises if a block that it needed, in any table, could not be read. So the entry that it finds is the newest for its
        key, and a key that it passes over is absent. An iterator keeps its first error, so a batch with an error gets no answer.
        """
        iterator = self._db.iterator(verify_checksums=True)
        seek, get = iterator.seek, self._db.get
        values: list[bytes | Corrupt | None] = [None] * len(keys)
        try:
            for place in order:
                seek(keys[place])
                # plyvel reports no error if no key follows.
                found = next(iterator, None) or (keys[place], get(keys[place], None, verify_checksums=True))
                if found[0] == keys[place]:
                    values[place] = found[1]
        finally:
            iterator.close()
        return values

    def _get(self, key: bytes) -> bytes | Corrupt | None:
        try:
            value: bytes | None = self._db.get(key, None, verify_checksums=True)
        except plyvel.CorruptionError:
            self.corrupt_reads += 1
            return CORRUPT
        except plyvel.Error as error:
            raise self._failure("cannot be read", error) from None
        return value

    def _check_open(self) -> None:
        if self._db.closed:
            raise StorageFailed(f"{self._path}: the store is closed")

    def _check_description(self, disk: bytes) -> None:
        """Check the store's disk and format, as ``create`` wrote them."""
        form, owner = self.get([layout.FORMAT_KEY, layout.DISK_KEY])
        if form is CORRUPT or owner is CORRUPT:
            raise StorageFailed(f"{self._path}: the store's description is corrupt")
        if form is None or owner is None:
            raise StorageFailed(f"{self._path}: the store has no description: its creation was interrupted")
        if form != _FORMAT:
            expected = f"expected a store of format {_FORMAT.hex()}, found {form.hex()}; run the version that wrote it"
            raise ConfigError(self._path, "", expected)
        if owner != disk:
            raise StorageFailed(f"{self._path}: expected the store of disk {disk.hex()}, found that of disk {owner.hex()}")

    def _failure(self, what: str, error: plyvel.Error) -> StorageFailed:
        corrupt = isinstance(error, plyvel.CorruptionError)
        self.corrupt_reads += corrupt
        words = f"{self._path}: {what}: {_words(error)}"
        if corrupt:
            return StoreCorrupt(f"{words} ({UNREADABLE})")
        return NoRoom(words) if words.endswith(_FULL) else StorageFailed(words)


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ConfigError(path, "", "expected a path that is text in UTF-8: LevelDB's binding takes no other") from None


def _check_directory(path: Path) -> None:
    """Refuse a directory without a whole store. LevelDB would create a missing store, and report a damaged one as missing."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise ConfigError(path, "", f"expected the directory of a store: {error.strerror}") from None
    if not names:
        raise StoreMissing(f"{path}: there is no store")
    if "CURRENT" not in names:
        raise StorageFailed(f"{path}: the store is damaged, or its creation was interrupted: the file CURRENT is missing")
    # A store that was opened always has a log. Without it LevelDB opens the tables only, without the last acknowledged batches.
    if not any(name.endswith(".log") for name in names):
        raise StorageFailed(f"{path}: the store is damaged: its log is missing")


def _place(path: Path) -> tuple[int, int] | None:
    """Which file is the store's lock: LevelDB makes it once and never replaces it. None if there is none. Raises OSError."""
    try:
        status = os.stat(path / "LOCK")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _check_logs(path: Path) -> None:
    try:
        scan_logs(path)
    except OSError as error:
        raise ConfigError(error.filename, "", f"expected a log that can be read: {error.strerror}") from None


def _connect(path: Path, *, create: bool) -> plyvel.DB:
    try:
        return plyvel.DB(str(path), create_if_missing=create, error_if_exists=create, **_OPTIONS)
    except plyvel.Error as error:
        words = _words(error)
    if words.startswith(_LOCK_REFUSED):
        raise ConfigError(path, "", "expected to be the only process with this store open; another one has it")
    if words.endswith(_SURROUNDINGS):
        raise ConfigError(path, "", f"the store cannot be opened: {words}")
    if words.endswith(_FULL):
        raise NoRoom(f"{path}: {CANNOT_BE_OPENED}: {words}")
    raise StorageFailed(f"{path}: {CANNOT_BE_OPENED}: {words}")


def _words(error: plyvel.Error) -> str:
    """LevelDB's message, which names a file but never a key: only a read of a single key could, and that becomes CORRUPT."""
    (message,) = error.args
    return message.decode(errors="replace") if isinstance(message, bytes) else str(message)
