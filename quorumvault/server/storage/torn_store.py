"""A store that does not open since its last write was torn, opened to be read: a copy of it without what is behind the last whole
write.

The store itself stays as it is. Whether the torn write was acknowledged nobody knows (leveldb_log.py), so the disk has no vote
before an operator has united it with others. What it has in front of that is right, and may be nowhere else: records, and what
it remembers of other disks.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from quorumvault.errors import StorageFailed
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.server.storage.leveldb_log import scan_logs

#: The copy is beside the store, under a name that says nothing of a store: others look for these by their names.
_PREFIX: Final = "reading-"


@contextmanager
def opened_to_read(store: Path, disk: bytes) -> Iterator[LevelDBStore]:
    """Open the store of this disk, or a copy that ends before the torn write; tables are shared with it.

    No other process has the store. Raises StorageFailed, ConfigError.
    """
    try:
        torn = {path: scan.whole for path, scan in scan_logs(store) if scan.torn}
    except OSError as error:
        raise StorageFailed(f"{store}: its log cannot be read: {error.strerror}") from None
    if not torn:
        with closing(LevelDBStore.open(store, disk)) as opened:
            yield opened
        return
    copy = store.with_name(_PREFIX + store.name.replace(".", "-"))
    try:
        _copy(store, copy, torn)
        with closing(LevelDBStore.open(copy, disk)) as opened:
            yield opened
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _copy(store: Path, copy: Path, torn: dict[Path, int]) -> None:
    """Raises StorageFailed."""
    shutil.rmtree(copy, ignore_errors=True)  # a crash may have left one
    try:
        copy.mkdir(mode=0o700)
        for path in store.iterdir():
            if path.suffix == ".ldb":
                os.link(path, copy / path.name)  # LevelDB never changes a table
            elif path.suffix == ".log" or path.name.startswith(("CURRENT", "MANIFEST")):
                shutil.copyfile(path, copy / path.name)
            if path in torn:
                os.truncate(copy / path.name, torn[path])
    except OSError as error:
        raise StorageFailed(f"{store}: it cannot be copied without its torn write: {error.strerror}") from None
