"""How far a store has come, and how far it remembers other disks to have come (protocol/marks.py): what layout.py lays out."""

from __future__ import annotations

from quorumvault.errors import StoreCorrupt
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.server.storage import layout
from quorumvault.server.storage.store import CORRUPT, Store


def read_sequence(store: Store) -> int:
    """The number of the last group that was written; 0 on a disk that has not taken any. Raises StoreCorrupt."""
    (value,) = store.get([layout.SEQUENCE_KEY])
    if value is None:
        return 0
    try:
        if value is CORRUPT:
            raise ValueError("its block is corrupt")
        return layout.decode_sequence(value)
    except ValueError as error:
        raise StoreCorrupt(f"the store's sequence number cannot be read: {error}") from error


def read_marks(store: Store) -> dict[bytes, Mark]:
    """By disk id. Raises StorageFailed."""
    try:
        return {layout.parse_mark_key(key): Mark(*layout.decode_mark(value)) for key, value in store.scan(layout.MARK)}
    except ValueError as error:
        raise StoreCorrupt(f"what the store remembers of other disks cannot be read: {error}") from error
