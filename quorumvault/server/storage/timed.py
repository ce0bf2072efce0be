"""A store whose writes are timed: each is one synced batch, so their times are what the disk takes for a sync."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from quorumvault.server.storage.store import Corrupt, Store


class TimedStore:
    """Implements Store over another one. ``on_write(seconds)`` is called on the store's thread, of writes that succeeded."""

    def __init__(self, store: Store, clock: Callable[[], float], on_write: Callable[[float], None]) -> None:
        self._store = store
        self._clock = clock
        self._on_write = on_write

    def get(self, keys: Sequence[bytes]) -> list[bytes | Corrupt | None]:
        return self._store.get(keys)

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        started = self._clock()
        self._store.write(puts, deletes)
        self._on_write(self._clock() - started)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        return self._store.scan(prefix, start)

    def close(self) -> None:
        self._store.close()
