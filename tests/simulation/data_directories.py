"""A simulated disk that is a data directory: a real LevelDB store and a real disk.json, in memory (tmpfs).

A write goes to the files at once, and counts as synced when the simulated sync ends. A crash before that cuts the log at some
byte between the synced end and the written end, or leaves the previous identity; a torn log has other bytes after the cut.
Synced content is also kept beside the files, as a dict: each start has to find it.

LevelDB works in the background, at times of its own choice. Here it never gets to do so: its write buffer is larger than any
run, and the simulated disk has tables made and merged before LevelDB would, and waits for the result.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from chaos.testbed.violation import Violation
from quorumvault.config.cluster import NodeConfig
from quorumvault.errors import StorageFailed, StoreCorrupt
from quorumvault.protocol.records import sealed_of
from quorumvault.server.storage import layout
from quorumvault.server.storage.binding import plyvel
from quorumvault.server.storage.data_directory import IDENTITY_FILE, STORE_DIRECTORY, mark_untrusted
from quorumvault.server.storage.disk_identity import DiskIdentity, write_identity
from quorumvault.server.storage.gaps import Gaps
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.server.storage.leveldb_tables import _Block, _entries_of, _index_of
from quorumvault.server.storage.store import CORRUPT, Corrupt
from tests.simulation.disks import Disk

#: The log size in bytes at which the log becomes a table, on some disks.
_BUFFERS: Final = (700, 1_500, 5_000)
#: The simulated disk merges its tables beyond this many first-level tables (LevelDB does at four), and beyond this many key
#: look-ups (LevelDB merges a table after a hundred that are charged to it).
_TABLES, _LOOK_UPS = 2, 50
#: The share of new tables that are merged at once with all others.
_MERGED: Final = 0.3
#: The share of rotting blocks that are neither the first nor the last block with records in their table.
_BETWEEN: Final = 0.85
#: A range after all keys: compacting it makes a table of the log.
_NOTHING: Final = b"\xff", b"\xff\xff"
#: The number of a table, in LevelDB's list of the tables that it uses.
_NUMBER: Final = re.compile(rb"^ (\d+):", re.MULTILINE)


@dataclass(frozen=True)
class _Batch:
    """A batch, written to the log up to ``end``."""

    changes: Mapping[bytes, bytes | None]
    end: int


@dataclass(frozen=True)
class _Replaced:
    """The identity file had the bytes ``before``. ``in_place``: the file was overwritten instead of replaced."""

    identity: DiskIdentity
    before: bytes
    in_place: bool


class FilesDisk(Disk):
    """``config`` names the data directory. ``tears`` is asked at each crash in the middle of a batch whether the log tears."""

    def __init__(self, config: NodeConfig, identity: DiskIdentity, rng: Random) -> None:
        self._store: LevelDBStore | None = None
        super().__init__(identity)
        self.config = config
        self.tears: Callable[[], bool] = lambda: False
        #: Whether the next crash tears the log in any case.
        self.tears_next = False
        #: Called at each write, for whatever has to happen before the write is synced.
        self.wrote: Callable[[], object] = lambda: None
        #: Called when the disk's process ends because a block cannot be read.
        self.refused: Callable[[], object] = lambda: None
        #: The harm done to the disk's files, in words; None if nothing happened beyond what a crash may do.
        self.harm: str | None = None
        #: Whether the store has a block that cannot be read.
        self._rots = False
        self._rng = rng
        self._buffer = rng.choice(_BUFFERS)
        self._synced_identity = identity
        self._pending: list[_Batch | _Replaced] = []
        self._log, self._synced_bytes, self._looked_up = Path(), 0, 0

    # The interface of a simulated process's disk.

    @property
    def there(self) -> bool:
        return self._store is not None

    @property
    def store(self) -> LevelDBStore:
        assert self._store is not None
        return self._store

    @property
    def corrupt_reads(self) -> int:
        return 0 if self._store is None else self._store.corrupt_reads

    @corrupt_reads.setter
    def corrupt_reads(self, count: int) -> None:
        """Does nothing: the store counts these reads."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | Corrupt | None]:
        self._looked_up += len(keys)
        if self._looked_up > _LOOK_UPS and not self._pending:
            self._make_table(merged=True)
        return self.store.get(keys)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return self.store.scan(prefix, start)

    def step_over(self, start: bytes, end: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        return self.store.step_over(start, end)

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        changes: dict[bytes, bytes | None] = {**dict.fromkeys(deletes), **puts}
        self.store.write(puts, [key for key, value in changes.items() if value is None])
        self._cached.update(changes)
        self._pending.append(_Batch(changes, self._log.stat().st_size))
        self.wrote()
        if self.full:
            raise StorageFailed("the simulated disk is full")  # a crash cuts off what did not fit

    def keep(self, identity: DiskIdentity) -> None:
        path = self.directory / IDENTITY_FILE
        before, inode = path.read_bytes(), path.stat().st_ino
        write_identity(path, identity)
        self._pending.append(_Replaced(self.identity, before, path.stat().st_ino == inode))
        self.identity = identity

    def failed(self, failure: StorageFailed) -> None:
        if isinstance(failure, StoreCorrupt):
            mark_untrusted(self.directory, str(failure))
            self.refused()

    def sync(self) -> None:
        super().sync()
        self._pending.clear()
        self._synced_identity = self.identity
        self._synced_bytes = self._log.stat().st_size
        if self._synced_bytes > self._buffer:
            self._make_table(merged=self._rng.random() < _MERGED)

    def salvage(self) -> None:
        """Does nothing: the node's start salvages the store."""

    def crash(self, *, keeps: bool) -> None:
        """The disk's process is gone. Unsynced writes survive (``keeps``), or a part of them does."""
        self.close()
        if self._pending and not keeps:
            self._lose(self._rng.randrange(len(self._pending)))
        self._cached.clear()
        self.tears_next = False

    # The disk's files.

    @property
    def directory(self) -> Path:
        return self.config.data_directory

    @property
    def logs(self) -> list[Path]:
        """The logs, the oldest first."""
        return sorted((self.directory / STORE_DIRECTORY).glob("*.log"), key=lambda path: int(path.stem))

    @property
    def tables(self) -> list[Path]:
        """The tables in use: LevelDB keeps others until no iterator needs them. Empty while no process has the store open."""
        if not self.there:
            return []
        numbers = map(int, _NUMBER.findall(self.store._db.get_property(b"leveldb.sstables")))
        return [self.directory / STORE_DIRECTORY / f"{number:06}.ldb" for number in sorted(numbers)]

    def close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def opened(self, store: LevelDBStore, identity: DiskIdentity) -> None:
        """A start has found this store and identity. Raises Violation if they are not what they have to be."""
        self._check_identity(identity)
        self.take(store, identity, self._check_content(store))

    def take(self, store: LevelDBStore, identity: DiskIdentity, stored: dict[bytes, bytes] | None = None) -> None:
        """Serves this store from now on. ``stored`` is its content, if not all of that can be read."""
        self._store = store
        self.stored = dict(store.scan(b"")) if stored is None else stored
        self.identity = self._synced_identity = identity
        self._pending.clear()
        self._cached.clear()
        self._find_log()
        if self._level_zero() > _TABLES:
            self._make_table(merged=True)

    def damage_table(self) -> bool:
        """Flips a bit of some block with records. Returns False if there is no such block.

        Mostly a block in the middle: a salvage looks at the first and the last block when it reads what is around the records.
        """
        found, between = [], []
        for table in self.tables:
            of_records = [(table, block, records) for block in _index_of(table) if (records := _records_in(table, block))]
            found += of_records
            between += of_records[1:-1]
        if not found:
            return False
        path, block, records = self._rng.choice(between if between and self._rng.random() < _BETWEEN else found)
        self.rotten |= records
        flip(path, block.offset + self._rng.randrange(block.size), 1 << self._rng.randrange(8))
        self.harm, self._rots = "a block of a table", True
        return True

    def _find_log(self) -> None:
        """Finds the present log. Its whole content counts as synced."""
        self._log = self.logs[-1]
        self._synced_bytes = self._log.stat().st_size

    def _level_zero(self) -> int:
        return int(self.store._db.get_property(b"leveldb.num-files-at-level0"))

    def _make_table(self, *, merged: bool) -> None:
        """Makes a table as LevelDB does by itself: of the log, or by the dice of everything in the store."""
        self._looked_up = 0
        if merged or self._level_zero() >= _TABLES:
            self.store._db.compact_range()
        else:
            self.store._db.compact_range(start=_NOTHING[0], stop=_NOTHING[1])
        self._find_log()

    def _lose(self, first: int) -> None:
        """The write number ``first`` was under way: a part of it is kept, and no later write."""
        kept = [each.end for each in self._pending[:first] if isinstance(each, _Batch)]
        size = max([self._synced_bytes, *kept])
        lost = self._pending[first]
        identities = [each for each in self._pending[first:] if isinstance(each, _Replaced)]
        tail = b""
        if isinstance(lost, _Batch):
            written = self._log.read_bytes()[size : lost.end]
            cut = self._rng.randrange(len(written))
            tail = written[:cut]
            if self.tears_next or self.tears():
                tail += self._other_bytes(written[cut:])
                self.harm = "a torn log"
        with self._log.open("r+b") as log:
            log.truncate(size)
            log.seek(size)
            log.write(tail)
        if identities:
            path = self.directory / IDENTITY_FILE
            if lost is identities[0] and lost.in_place:
                path.write_bytes(path.read_bytes()[: self._rng.randrange(path.stat().st_size)])
            else:
                path.write_bytes(identities[0].before)
        self._pending = self._pending[: first + 1]

    def _other_bytes(self, written: bytes) -> bytes:
        """Zeros, arbitrary earlier bytes of the disk, or the end of the write after a hole of zeros."""
        zeros = bytes(len(written))
        half = self._rng.randrange(len(written))
        return self._rng.choice((zeros, self._rng.randbytes(len(written)), zeros[:half] + written[half:]))

    def _check_identity(self, found: DiskIdentity) -> None:
        """Checks that the identity is the synced one or one that was being written, and that its incarnation is new."""
        possible = [
            self._synced_identity,
            self.identity,
            *[each.identity for each in self._pending if isinstance(each, _Replaced)],
        ]
        same = [each for each in possible if (each.disk, each.mode, each.view) == (found.disk, found.mode, found.view)]
        if not same or found.incarnation <= self._synced_identity.incarnation:
            raise Violation("identity", f"{self.directory.name} starts as {found}, and was {self._synced_identity}")

    def _check_content(self, store: LevelDBStore) -> dict[bytes, bytes]:
        """Checks that the store has everything that was synced, and a prefix of what was being written.

        In a damaged store it checks what is known. Returns what the store holds, or would hold without the damage.
        """
        states = list(self._states())
        if self.harm is None:
            found = dict(store.scan(b""))
            if found in states:
                return found
            raise Violation("files", _difference(self.directory.name, states[0], found))
        reader = _Reader(store)
        wrong = [[key for key, value in state.items() if not reader.has(key, value)] for state in states]
        if all(wrong):
            key = wrong[0][0]
            raise Violation("files", f"{self.directory.name} ({self.harm}): {key.hex()} was synced, and is {reader.words(key)}")
        self._rots = reader.meets_damage
        store.corrupt_reads = 0
        return {**reader.known(states[wrong.index([])]), **reader.gaps}

    def mended(self) -> bool:
        """Whether no damage is left in the files: everything that can be known of their content is known."""
        if self.harm is None:
            return True
        if self.there and not self._rots and not any(key.startswith(layout.GAP) for key in (*self.stored, *self._cached)):
            self.harm = None
            self.rotten.clear()
        return self.harm is None

    def _states(self) -> Iterator[dict[bytes, bytes]]:
        state: dict[bytes, bytes | None] = dict(self.stored)
        for change in [{}, *[each.changes for each in self._pending if isinstance(each, _Batch)]]:
            state.update(change)
            yield {key: value for key, value in state.items() if value is not None}


class _Reader:
    """Reads a store with unreadable blocks, key by key. It uses iterators, whose reads LevelDB does not charge to its tables."""

    def __init__(self, store: LevelDBStore) -> None:
        self._db: Any = store._db
        gaps = Gaps.of(store)
        self.gaps = gaps.pairs()
        self._covers = gaps.covers
        self._found: dict[bytes, bytes | Corrupt | None] = {}

    def has(self, key: bytes, value: bytes) -> bool:
        """Whether the value is there, or the store knows that it does not know the value; a hint may be lost."""
        found = self._look_up(key)
        if found == value or found is CORRUPT:
            return True
        if key.startswith(layout.RECORD):
            return self._covers(key[1:]) if found is None else sealed_of(found) == sealed_of(value)
        return key.startswith((layout.HINT, layout.GAP)) and found is None

    @property
    def meets_damage(self) -> bool:
        """Whether any of the keys that were looked up could not be read."""
        return CORRUPT in self._found.values()

    def known(self, state: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """The part of a state that the store has or cannot read."""
        found = {key: self._look_up(key) for key in state}
        return {key: state[key] if value is CORRUPT else value for key, value in found.items() if value is not None}

    def words(self, key: bytes) -> str:
        found = self._look_up(key)
        return found.hex() if isinstance(found, bytes) else repr(found)

    def _look_up(self, key: bytes) -> bytes | Corrupt | None:
        if key not in self._found:
            self._found[key] = self._read(key)
        return self._found[key]

    def _read(self, key: bytes) -> bytes | Corrupt | None:
        try:
            with self._db.iterator(verify_checksums=True, fill_cache=False) as iterator:
                iterator.seek(key)
                pair = next(iterator, None)
                if pair is None:
                    iterator.prev()  # an iterator keeps its first error
        except (StopIteration, plyvel.Error):
            return CORRUPT
        return pair[1] if pair is not None and pair[0] == key else None


def _records_in(path: Path, block: _Block) -> set[bytes]:
    return {key for key, _, _ in _entries_of(path, block) if key.startswith(layout.RECORD)}


def flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ bit]))


def _difference(name: str, expected: Mapping[bytes, bytes], found: Mapping[bytes, bytes]) -> str:
    gone = [key for key in expected if key not in found]
    changed = [key for key in expected.keys() & found.keys() if expected[key] != found[key]]
    new = found.keys() - expected.keys()
    words = [
        f"{len(keys)} {what}, {min(keys).hex()}" for what, keys in (("gone", gone), ("other", changed), ("new", new)) if keys
    ]
    return f"{name} finds something else than was synced: {'; '.join(words)}"
