"""Torn logs: cuts off what a power cut left behind the last whole batch, and keeps a copy of it (storage/leveldb_log.py)."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from quorumvault import durable
from quorumvault.server.storage.data_directory import STORE_DIRECTORY
from quorumvault.server.storage.leveldb_log import LogScan, scan_logs

#: Where unchanged copies of cut logs are kept, in a node's data directory.
TORN_DIRECTORY = "torn"


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut log: it keeps its first ``kept`` bytes. ``copy`` is a file that also has the ``cut`` bytes after them.

    ``entries`` is the number of entries in the torn write; None if its beginning is missing.
    """

    log: Path
    kept: int
    cut: int
    entries: int | None
    copy: Path


def cut_torn_tail(data_directory: Path) -> list[Cut]:
    """Cut off the bytes after the last whole batch of a store's logs. Raises StoreCorrupt, and cuts nothing, if more follows."""
    scans = scan_logs(data_directory / STORE_DIRECTORY)
    return [_cut(path, scan, data_directory / TORN_DIRECTORY) for path, scan in scans if scan.torn]


def _cut(path: Path, scan: LogScan, aside: Path) -> Cut:
    """Cut a log. The copy is durable before anything is cut."""
    aside.mkdir(mode=0o700, exist_ok=True)
    copy = next(place for number in itertools.count() if not (place := aside / f"{path.name}.{number}").exists())
    durable.copy(path, copy)
    durable.sync_directory(aside.parent)
    durable.extend(path, scan.whole)
    return Cut(path, scan.whole, scan.torn, scan.torn_entries, copy)
