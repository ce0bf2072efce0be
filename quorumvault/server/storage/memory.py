"""A store in memory: LevelDB's contract, for models, simulators and tests. Its contents last as long as the object."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from quorumvault.errors import StorageFailed
from quorumvault.server.storage.store import Corrupt


class MemoryStore:
    """A dict. Keys are sorted for each scan, which is cheap enough for a store in memory."""

    def __init__(self) -> None:
        self.corrupt_reads = 0
        self._pairs: dict[bytes, bytes] = {}
        self._closed = False

    def get(self, keys: Sequence[bytes]) -> list[bytes | Corrupt | None]:
        self._check_open()
        return [self._pairs.get(key) for key in keys]

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        self._check_open()
        for key in deletes:
            self._pairs.pop(key, None)
        self._pairs.update(puts)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        self._check_open()
        return iter(sorted(pair for pair in self._pairs.items() if pair[0].startswith(prefix) and pair[0] >= start))

    def step_over(self, start: bytes, end: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        return end, []  # never called: everything can be read

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StorageFailed("the store is closed")
