"""The contract of a replica's store: an ordered map of bytes with one way to write, which is durable when it returns.

Implemented by leveldb.py and memory.py; one test suite holds both to it (tests/unit/server/storage/test_store.py). One thread
owns a store.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, Protocol


class Corrupt(Enum):
    """The result of ``get`` for a key whose block fails its checksum: not a value, and not absent."""

    CORRUPT = "corrupt"


CORRUPT: Final = Corrupt.CORRUPT
#: The bytes of a whole store that are read, and written with one sync, at a time while no node runs.
BATCH_BYTES = 8 << 20


class Store(Protocol):
    #: The number of reads since this store was opened, of whatever kind, that met a block that fails its checksum.
    corrupt_reads: int

    def get(self, keys: Sequence[bytes]) -> list[bytes | Corrupt | None]:
        """The values in the order of the keys; None for absent.

        A key that is requested alone is looked up through everything that could hide it in memory, such as Bloom filters.
        """

    def write(self, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
        """Write all or nothing, durably: first the deletes (absent keys are ignored), then the puts.

        Raises StorageFailed; after that nothing may be written. No record is ever deleted.
        """

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """All pairs whose key starts with ``prefix``, from ``start`` on, in the order of keys, as of the time of the call.

        Raises StorageFailed on a corrupt block, at once or when it is met.
        """

    def step_over(self, start: bytes, end: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """After a scan from ``start`` on raised StoreCorrupt: (the key, at most ``end``, at which a scan may continue; the
        pairs before that key that can still be read, in the order of keys). A key missing among these need not be absent."""

    def close(self) -> None: ...


def write_all(store: Store, pairs: Iterable[tuple[bytes, bytes]]) -> None:
    """Write all pairs, in synced batches of about BATCH_BYTES."""
    batch: dict[bytes, bytes] = {}
    room = BATCH_BYTES
    for key, value in pairs:
        batch[key] = value
        room -= len(key) + len(value)
        if room <= 0:
            store.write(batch)
            batch, room = {}, BATCH_BYTES
    if batch:
        store.write(batch)
