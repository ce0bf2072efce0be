"""Opens a store that this node does not use for reading: as a copy that ends after the last whole write.

The store itself stays unchanged, whereas LevelDB would turn its log into tables, and merge some. The copy shares the tables by
links, so the store may be renamed meanwhile. No one knows whether a torn write was acknowledged (leveldb_log.py), so the disk has
no vote until an operator has united it with others. Everything before the torn write is valid, and may be nowhere else: records,
and marks of other disks.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from quorumvault.errors import NoRoom, StorageFailed
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.server.storage.leveldb_log import scan_logs

#: The copy is beside the store. Its name must not look like a store's, because other code finds stores by their names.
_PREFIX: Final = "reading-"


@contextmanager
def opened_to_read(store: Path, disk: bytes) -> Iterator[LevelDBStore]:
    """Open a copy of this disk's store, which no other process may have open. Raises StorageFailed, NoRoom, ConfigError."""
    try:
        torn = {path: scan.whole for path, scan in scan_logs(store) if scan.torn}
    except OSError as error:
        raise StorageFailed(f"{store}: its log cannot be read: {error.strerror}") from None
    copy = store.with_name(_PREFIX + store.name.replace(".", "-"))
    try:
        _copy(store, copy, torn)
        with closing(LevelDBStore.open(copy, disk)) as opened:
            yield opened
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def remove_copies(directory: Path) -> None:
    """Remove copies that a killed process left in this data directory, which this process has locked."""
    for copy in directory.glob(f"{_PREFIX}*"):
        shutil.rmtree(copy, ignore_errors=True)


def _copy(store: Path, copy: Path, torn: dict[Path, int]) -> None:
    """Raises StorageFailed, NoRoom."""
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
        failure = NoRoom if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageFailed
        raise failure(f"{store}: it cannot be copied to be read: {error.strerror}") from None
