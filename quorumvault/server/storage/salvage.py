"""Salvage: a store with blocks that cannot be read is copied into one without, on the same disk, while its node is down.

    registers, revoked keys, names, marks    have to be readable, all of them: without one of these the disk could not vote, so it
                                             is replaced (healing/join.py)
    records                                  all that can be read; for each stretch that cannot there is a gap (gaps.py)
    hints                                    as far as they can be read: they take part in no guarantee

    store.salvaging        ──all is copied, and synced──▶    store.salvaged
    store                  ──renamed──▶                      store.set-aside-1    the bytes that are left, until no gap is
    store.salvaged         ──renamed──▶                      store

The disk stays who it is: it holds what it acknowledged, or says that it does not know. So nothing depends on the others, no view
changes, and two disks, or all three, can be salvaged one after the other. A crash on the way leaves the old store in its place,
or aside with the new one whole: a copy that did not come to its end never has the name of one that did.

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
#: What ``create`` wrote.
_DESCRIPTION: Final = (layout.FORMAT_KEY, layout.DISK_KEY)


def salvage(store: Path, disk: bytes) -> Path | None:
    """Put a store without unreadable blocks in the place of this disk's. Returns the path at which the new one is waiting.

    It takes the old one's place by ``take_place``. Returns None if what the disk cannot vote without is unreadable. Raises
    StorageFailed if the store is gone or does not open, NoRoom if there is none for what is copied.
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
    """The last step, once the old store is set aside."""
    fresh.rename(store)
    durable.sync_directory(store.parent)


def _pairs(old: LevelDBStore, gaps: list[Gap]) -> Iterator[tuple[bytes, bytes]]:
    """What can be read, and in ``gaps`` what cannot. Raises StoreCorrupt if what has to be read cannot be."""
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
