"""Safeties of the disk, the process and its start, undone one at a time. The simulator replaces these parts by its own."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quorumvault.config.api_keys import KeyTable
from quorumvault.config.cluster import NodeConfig
from quorumvault.errors import StorageFailed
from quorumvault.server.node import node
from quorumvault.server.storage import data_directory, layout
from quorumvault.server.storage.binding import plyvel
from quorumvault.server.storage.disk_identity import read_identity
from quorumvault.server.storage.leveldb import LevelDBStore
from tests.rigs.undone.mutant import Mutant
from tests.rigs.undone.rollback import NO_MARKS

_real_open = LevelDBStore.open
_real_write = LevelDBStore.write
_real_open_disk = data_directory.open_disk
_real_authenticate = KeyTable.authenticate


def _write_later(self: LevelDBStore, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
    """Writes this group together with the next one, but acknowledges it now."""
    late: Mapping[bytes, bytes] = vars(self).get("_late", {})
    vars(self)["_late"] = puts
    _real_write(self, late, deletes)


def _write_or_not(self: LevelDBStore, puts: Mapping[bytes, bytes], deletes: Iterable[bytes] = ()) -> None:
    try:
        _real_write(self, puts, deletes)
    except StorageFailed:
        self._write_failure = None


def _open_empty(cls: type[LevelDBStore], path: Path, disk: bytes) -> LevelDBStore:
    """Forgets all records at each start."""
    store = _real_open(path, disk)
    with store._db.write_batch(sync=True) as batch:
        for key, _ in store.scan(layout.RECORD):
            batch.delete(key)
    return store


def _open_what_is_left(cls: type[LevelDBStore], path: Path, disk: bytes) -> LevelDBStore:
    """Runs RepairDB, which drops what it cannot read and leaves no log. Takes the rest for the whole store."""
    try:
        return _real_open(path, disk)
    except StorageFailed:
        plyvel.repair_db(str(path), paranoid_checks=False)
        (path / "000000.log").touch()
        return _real_open(path, disk)


def _open_disk_or_a_new_one(config: NodeConfig) -> data_directory.NodeDisk:
    """Makes an empty disk, with a vote, under the id of the one that is gone."""
    away = config.data_directory.with_name(f"{config.node}.away") / data_directory.IDENTITY_FILE
    mine = config.data_directory / data_directory.IDENTITY_FILE
    if not mine.exists() and away.exists():
        shutil.copy(away, mine)
        identity = read_identity(mine)
        assert identity is not None
        LevelDBStore.create(config.data_directory / data_directory.STORE_DIRECTORY, identity.disk).close()
    return _real_open_disk(config)


def _open_disk_or_an_empty_one(config: NodeConfig) -> data_directory.NodeDisk:
    """Makes an empty store, with a vote, if the store is gone and its identity is left."""
    store = config.data_directory / data_directory.STORE_DIRECTORY
    identity = read_identity(config.data_directory / data_directory.IDENTITY_FILE)
    if identity is not None and not store.exists():
        LevelDBStore.create(store, identity.disk).close()
    return _real_open_disk(config)


def _authenticate_as_the_first(self: KeyTable, text: str, now: float) -> Any:
    """Treats every second request as one of the first owner."""
    key = _real_authenticate(self, text, now)
    count = vars(KeyTable).get("count", 0)
    type.__setattr__(KeyTable, "count", count + 1)
    if key is None or count % 2:
        return key
    return min(self._keys.values(), key=lambda other: other.owner.name)


MUTANTS = (
    Mutant("written-later", ("durable before acknowledged",), "a group is written together with the next one",
           ((LevelDBStore, "write", _write_later),), faults=("kill", "all")),
    Mutant("write-errors-ignored", ("a distrusted store stops",), "write errors are ignored",
           ((LevelDBStore, "write", _write_or_not),), faults=("failing-syncs", "kill"),
           by=("ended by itself", "lost", "fence")),  # the next start finds a log that no fault has torn
    Mutant("forgets", ("a distrusted store stops",), "a start forgets all records",
           ((LevelDBStore, "open", classmethod(_open_empty)),), faults=("kill",)),
    # Rollback marks would detect each of these three disks before it votes, so they are undone as well.
    Mutant("repairs", ("a distrusted store stops", "rollback marks"), "RepairDB drops what it cannot read",
           ((LevelDBStore, "open", classmethod(_open_what_is_left)), NO_MARKS), faults=("flipped-amid-cuts",)),
    Mutant("empty-disk-votes", ("disk identity", "only active listed disks vote", "rollback marks"), "an empty disk votes",
           ((data_directory, "open_disk", _open_disk_or_a_new_one), (node, "open_disk", _open_disk_or_a_new_one), NO_MARKS),
           faults=("away-amid-cuts",)),
    Mutant("old-id-kept", ("a lost disk gets a new identity", "rollback marks"), "an emptied disk keeps the old id",
           ((data_directory, "open_disk", _open_disk_or_an_empty_one), (node, "open_disk", _open_disk_or_an_empty_one), NO_MARKS),
           faults=("disks-in-turn",)),
    Mutant("sent-away-goes-on", ("a replaced disk stops",), "a node that is sent away goes on",
           ((node.Node, "_end", lambda self, reason: None),), faults=("replaced",)),
    Mutant("another-owner", ("owner isolation",), "a key is another's",
           ((KeyTable, "authenticate", _authenticate_as_the_first),), faults=("kill",)),
)  # fmt: skip
