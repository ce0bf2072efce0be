"""Salvage: copies a store with unreadable blocks into a new store on the same disk, while its node is down.

    registers, revoked keys, names, marks    must all be readable: without any of these the disk could not vote, so it is replaced
                                             (healing/join.py)
    records                                  all readable records are copied; each unreadable range becomes a gap (gaps.py)
    hints                                    are copied as far as they can be read: no guarantee depends on them

    store.salvaging        ──everything copied and synced──▶    store.salvaged
    store                  ──renamed──▶                         store.set-aside-1    kept for its bytes until no gap is left
    store.salvaged         ──renamed──▶                         store

The disk keeps its identity: it holds the records that it acknowledged, or knows that it does not know. So salvage needs no other
disk and changes no view, and two disks, or all three, can be salvaged one after the other. After a crash the old store is still
in its place, or it is set aside and the new store is complete: an incomplete copy never has the name of a complete one.

Rules kept here: what is not known is not absent.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from quorumvault import durable
from quorumvault.errors import StorageFailed, StoreCorrupt
from quorumvault.server.storage import layout
from quorumvault.server.storage.gaps import Gap, Gaps, gap_of, records_around
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.server.storage.store import write_all

logger = logging.getLogger("quorumvault.disk")

_PARTIAL: Final = "store.salvaging"
_WHOLE: Final = "store.salvaged"
_STRICT: Final = (layout.REGISTER, layout.REVOKED, layout.META, layout.GAP)
#: The keys that ``create`` wrote.
_DESCRIPTION: Final = (layout.FORMAT_KEY, layout.DISK_KEY)


def salvage(store: Path, disk: bytes) -> Path | None:
    """Copy this disk's store into a new one without unreadable blocks. Returns the path at which the new store waits.

    ``take_place`` then moves the new store to the old one's place. Returns None if something is unreadable without which the disk
    cannot vote. Raises StorageFailed if the store is gone or does not open, NoRoom if there is no room for the copy.
    """
    partial, whole = store.with_name(_PARTIAL), store.with_name(_WHOLE)
    if whole.exists() and not store.exists():
        return whole
    shutil.rmtree(whole, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with closing(LevelDBStore.open(store, disk)) as old, closing(LevelDBStore.create(partial, disk)) as new:
            stretches: list[Gap] = []
            write_all(new, _pairs(old, stretches))
            gaps = Gaps(stretches)
            new.write(gaps.pairs())
    except StoreCorrupt as error:
        logger.error("%s cannot be salvaged: %s", store, error)
        return None
    else:
        partial.rename(whole)
        durable.sync_directory(whole.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    logger.warning("%s: all that can be read of it was copied; there are %d stretches that cannot", store, gaps.count)
    return whole


def take_place(fresh: Path, store: Path) -> None:
    """Move the new store into place: the last step, once the old store is set aside."""
    fresh.rename(store)
    durable.sync_directory(store.parent)


def _pairs(old: LevelDBStore, gaps: list[Gap]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the readable pairs, and add unreadable ranges to ``gaps``. Raises StoreCorrupt if a required pair is unreadable."""
    for found in _contents(old):
        if isinstance(found, Gap):
            gaps.append(found)
        else:
            yield found


def _contents(old: LevelDBStore) -> Iterator[tuple[bytes, bytes] | Gap]:
    for prefix in _STRICT:
        for key, value in old.scan(prefix):
            if prefix == layout.REGISTER:
                layout.read_register(value)
            if prefix == layout.GAP:
                yield gap_of(key, value)
            elif key not in _DESCRIPTION:
                yield key, value
    try:
        yield from old.scan(layout.HINT)
    except StorageFailed:
        logger.warning("hints of what peers have missed are lost with the blocks that they were in: comparisons find it")
    yield from records_around(old)
