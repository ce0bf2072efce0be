"""A store whose reads are watched: each block that fails its checksum is counted, whoever came upon it.

A store with one bad block cannot be trusted (rule 11), so it makes no difference what was looked for: a record, a hint, a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from quorumvault.errors import StoreCorrupt
from quorumvault.server.storage.store import CORRUPT, Corrupt, Store


class WatchedStore:
    """Implements Store over another one. ``corrupt_reads``: how many have met such a block."""

    def __init__(self, store: Store) -> None:
        self.corrupt_reads = 0
        self._store = store

    def get(self, keys: Sequence[bytes]) -> list[bytes | Corrupt | None]:
        values = self._store.get(keys)
        if CORRUPT in values:
            self.corrupt_reads += 1
        return values

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        self._store.write(puts, deletes)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        with self._counting():
            pairs = self._store.scan(prefix, start)
        return self._watched(pairs)

    def _watched(self, pairs: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        with self._counting():
            yield from pairs

    @contextmanager
    def _counting(self) -> Iterator[None]:
        try:
            yield
        except StoreCorrupt:
            self.corrupt_reads += 1
            raise

    def close(self) -> None:
        self._store.close()
