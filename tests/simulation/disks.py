"""A disk, as a replica's store sees it: a crash loses what is not synced, and stored data can rot.

A write stays in the cache until ``sync``. A crash before that keeps the last batch whole or drops it, as LevelDB's log does;
the world chooses which.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from quorumvault.errors import StorageFailed, StoreCorrupt
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import DiskIdentity
from quorumvault.server.storage.store import CORRUPT, Corrupt


@dataclass(eq=False)
class Disk:
    """Implements Store. A disk outlives the processes that use it.

    ``full``: the next write fails. ``nearly_full``: there is room only for the node's own bookkeeping. ``slow``: extra seconds
    that a sync takes. ``unreadable``: keys whose block fails its checksum. ``flipped``: keys whose bytes changed undetected.
    """

    #: Kept in its own file, which neither rots nor fills up.
    identity: DiskIdentity
    full: bool = False
    nearly_full: bool = False
    corrupt_reads: int = 0
    slow: float = 0.0
    unreadable: set[bytes] = field(default_factory=set)
    flipped: set[bytes] = field(default_factory=set)
    rotten: set[bytes] = field(default_factory=set)
    stored: dict[bytes, bytes] = field(default_factory=dict)
    _cached: dict[bytes, bytes | None] = field(default_factory=dict)

    #: Whether the node has this disk. A node without a disk still has an identity in memory.
    @property
    def there(self) -> bool:
        return True

    #: Whether the disk, when it is not active, may join by itself.
    may_join = True

    def keep(self, identity: DiskIdentity) -> None:
        """Makes a changed identity durable."""
        self.identity = identity

    def failed(self, failure: StorageFailed) -> None:
        """The disk's process ends because of this failure."""

    @property
    def unsynced(self) -> bool:
        return bool(self._cached)

    def get(self, keys: Sequence[bytes]) -> list[bytes | Corrupt | None]:
        cached, stored = self._cached, self.stored
        if not cached and not self.unreadable:
            return [stored.get(key) for key in keys]
        values = [cached.get(key, CORRUPT if key in self.unreadable else stored.get(key)) for key in keys]
        self.corrupt_reads += CORRUPT in values
        return values

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        if self.full:
            raise StorageFailed("the simulated disk is full")
        self._cached.update(dict.fromkeys(deletes))
        self._cached.update(puts)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        held: Mapping[bytes, bytes | None] = {**self.stored, **self._cached} if self._cached else self.stored
        first, of_all = max(prefix, start), held.items()
        found = sorted([(key, value) for key, value in of_all if key >= first and value is not None and key.startswith(prefix)])
        return self._readable(found, self.unreadable - self._cached.keys())

    def step_over(self, start: bytes, end: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        unreadable = self.unreadable - self._cached.keys()
        return min([key + b"\0" for key in unreadable if start <= key < end], default=end), []

    def _readable(self, pairs: list[tuple[bytes, bytes]], unreadable: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for key, value in pairs:
            if key in unreadable:
                self.corrupt_reads += 1
                raise StoreCorrupt("a simulated block fails its checksum")
            yield key, value

    def holds(self, key: bytes) -> bytes | None:
        """The present value, synced or not, even if it rotted."""
        return self._cached.get(key, self.stored.get(key))

    def unknown(self, key: bytes) -> bool:
        """Whether a gap covers the key."""
        place = key[1:]
        return any(name[1:] <= place < end for name, end in self.stored.items() if name.startswith(layout.GAP))

    @property
    def sequence(self) -> int:
        """The sequence number of the last synced group."""
        return layout.decode_sequence(self.stored.get(layout.SEQUENCE_KEY, layout.encode_sequence(0)))

    def close(self) -> None:
        """Does nothing: the disk outlives its process."""

    def sync(self) -> None:
        for key, value in self._cached.items():
            if value is None:
                self.stored.pop(key, None)
            else:
                self.stored[key] = value
        self._cached.clear()

    def salvage(self) -> None:
        """Salvages as a start does after a process found unreadable records: they are removed, and gaps mark them as unknown."""
        lost = {key for key in self.unreadable if key.startswith(layout.RECORD)}
        for key in lost:
            self.stored.pop(key, None)
            self.stored[layout.GAP + key[1:]] = key[1:] + b"\0"
        self.unreadable -= lost

    def crash(self, *, keeps: bool) -> None:
        """The process died: the unsynced batch is kept or lost."""
        if keeps:
            self.sync()
        self._cached.clear()

    def rot(self, dice: int, *, seen: bool, spared: Container[bytes] = ()) -> None:
        """Makes one stored record unreadable (``seen``), or flips its last bit under a good checksum; never a spared record."""
        records = [key for key in self.stored if key.startswith(layout.RECORD) and key not in spared]
        if not records:
            return
        # Clients still ask for what was written lately.
        key = records[-1 - dice % min(len(records), 8)]
        self.rotten.add(key)
        if seen:
            self.unreadable.add(key)
        else:
            record = self.stored[key]
            self.stored[key] = record[:-1] + bytes([record[-1] ^ 1])
            self.flipped.add(key)
