"""Reads records from a replica's store, up to the size of one reply, and remembers the settled ones (record_cache.py)."""

from collections.abc import Sequence
from typing import Final

from quorumvault.protocol import records
from quorumvault.server.replica.record_cache import RecordCache
from quorumvault.server.storage.store import Corrupt, Store

#: Records read between two checks of the size of a reply.
_READ_AT_ONCE: Final = 64


class Reader:
    """Used on the store's thread only. ``reply_bytes`` bounds the records in one answer."""

    def __init__(self, store: Store, reply_bytes: int, cache: RecordCache) -> None:
        self.cache = cache
        self._store = store
        self._reply_bytes = reply_bytes

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes | Corrupt | None] | None:
        """The store's records under these keys; None if they do not fit into one reply."""
        found: dict[bytes, bytes | Corrupt | None] = {}
        room, order = self._reply_bytes, sorted(keys)  # records that lie in one block are read together
        for start in range(0, len(keys), _READ_AT_ONCE):
            part = order[start : start + _READ_AT_ONCE]
            stored = self._store.get(part)
            found.update(zip(part, stored, strict=True))
            room -= sum([len(record) for record in stored if isinstance(record, bytes)])
            if room < 0:
                return None
        return found

    def read_values(self, keys: Sequence[bytes]) -> list[bytes | None] | None:
        """The records of values under these keys, which are settled if they are there; None for each key without a value.

        None in place of the list if they do not fit into one reply.
        """
        told = self.cache.get(keys)
        if None in told:
            found = self.read([key for key, record in zip(keys, told, strict=True) if record is None])
            if found is None:
                return None
            values = {key: each for key, each in found.items() if isinstance(each, bytes) and records.holds_value(each)}
            self.cache.add(values)
            told = [values.get(key) if record is None else record for key, record in zip(keys, told, strict=True)]
        return told if sum([len(record) for record in told if record is not None]) <= self._reply_bytes else None
