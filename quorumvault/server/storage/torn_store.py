"""A store that this node does not use, opened to be read: as a copy, without what is behind the last whole write.

The store itself stays as it is: LevelDB would make tables of its log, and merge some. The tables are shared with it by links, so
it may get another name meanwhile. Whether a torn write was acknowledged nobody knows (leveldb_log.py), so the disk has no vote
before an operator has united it with others. What it has in front of that is right, and may be nowhere else: records, and what it
remembers of other disks.
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

#: The copy is beside the store, under a name that says nothing of a store: others look for these by their names.
_PREFIX: Final = "reading-"


@contextmanager
def opened_to_read(store: Path, disk: bytes) -> Iterator[LevelDBStore]:
    """Open a copy of the store of this disk. No other process has the store. Raises StorageFailed, NoRoom, ConfigError."""
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
    """Remove what a process that was killed has left of copies in this data directory, which this process has locked."""
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
