"""A store with faults that a test chooses, around a store without faults."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from quorumvault.errors import StorageFailed, StoreCorrupt
from quorumvault.server.storage.store import CORRUPT, Corrupt, Store


class FaultyStore:
    """``corrupt``: the keys that cannot be read. ``fail_write``: if set, the next write and every later one fail.

    ``fails_late``: failed writes are in the store all the same.
    """

    def __init__(self, inner: Store) -> None:
        self.corrupt: set[bytes] = set()
        self.fail_write = False
        self.fails_late = False
        self.corrupt_reads = 0
        self._inner = inner

    def get(self, keys: Sequence[bytes]) -> list[bytes | Corrupt | None]:
        values = self._inner.get(keys)
        self.corrupt_reads += not self.corrupt.isdisjoint(keys)
        return [CORRUPT if key in self.corrupt else value for key, value in zip(keys, values, strict=True)]

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        if not self.fail_write or self.fails_late:
            self._inner.write(puts, deletes)
        if self.fail_write:
            raise StorageFailed("the disk is full, as the test asked")

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return self._readable(self._inner.scan(prefix, start))

    def step_over(self, start: bytes, end: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        return min([key + b"\0" for key in self.corrupt if start <= key < end], default=end), []

    def close(self) -> None:
        self._inner.close()

    def _readable(self, pairs: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for key, value in pairs:
            if key in self.corrupt:
                self.corrupt_reads += 1
                raise StoreCorrupt("a block is corrupt, as the test asked")
            yield key, value
