"""Nodes that are broken on purpose, as processes, for the harness to notice.

python -m tests.rigs.broken --list                      the mutants, as JSON
python -m tests.rigs.broken NAME serve --config …       the command ``quorumvault``, with one safety undone

Most are those of the simulator (tests/simulation/mutants.py), on the same code. Those of its own undo what the simulator has
its own parts for: the disk, the process and its start.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from quorumvault.cli import main as quorumvault
from quorumvault.config.api_keys import KeyTable
from quorumvault.config.cluster import NodeConfig
from quorumvault.errors import StorageFailed
from quorumvault.server.node import node
from quorumvault.server.storage import data_directory, layout
from quorumvault.server.storage.binding import plyvel
from quorumvault.server.storage.disk_identity import read_identity
from quorumvault.server.storage.leveldb import LevelDBStore
from tests.simulation.mutants import MUTANTS
from tests.simulation.patches import Mutant, applied

_real_open = LevelDBStore.open
_real_write = LevelDBStore.write
_real_open_disk = data_directory.open_disk
_real_authenticate = KeyTable.authenticate


def _write_unsynced(self: LevelDBStore, puts: Mapping[bytes, bytes]) -> None:
    batch = self._db.write_batch(sync=False)
    for key, value in puts.items():
        batch.put(key, value)
    batch.write()


def _write_later(self: LevelDBStore, puts: Mapping[bytes, bytes]) -> None:
    """What is acknowledged with this group is written with the next one."""
    late: Mapping[bytes, bytes] = vars(self).get("_late", {})
    vars(self)["_late"] = puts
    _real_write(self, late)


def _write_or_not(self: LevelDBStore, puts: Mapping[bytes, bytes]) -> None:
    try:
        _real_write(self, puts)
    except StorageFailed:
        self._write_failure = None


def _open_empty(cls: type[LevelDBStore], path: Path, disk: bytes) -> LevelDBStore:
    """All records are forgotten at each start."""
    store = _real_open(path, disk)
    with store._db.write_batch(sync=True) as batch:
        for key, _ in store.scan(layout.RECORD):
            batch.delete(key)
    return store


def _open_what_is_left(cls: type[LevelDBStore], path: Path, disk: bytes) -> LevelDBStore:
    """RepairDB, which drops what it cannot read."""
    try:
        return _real_open(path, disk)
    except StorageFailed:
        plyvel.repair_db(str(path), paranoid_checks=False)
        return _real_open(path, disk)


def _open_disk_or_a_new_one(config: NodeConfig) -> data_directory.NodeDisk:
    """An empty disk under the name of the one that is gone, with a vote."""
    away = config.data_directory.with_name(f"{config.node}.away") / data_directory.IDENTITY_FILE
    mine = config.data_directory / data_directory.IDENTITY_FILE
    if not mine.exists() and away.exists():
        shutil.copy(away, mine)
        identity = read_identity(mine)
        assert identity is not None
        LevelDBStore.create(config.data_directory / data_directory.STORE_DIRECTORY, identity.disk).close()
    return _real_open_disk(config)


def _open_disk_or_an_empty_one(config: NodeConfig) -> data_directory.NodeDisk:
    """Where the store is gone and the identity is left: an empty store under that identity, and its vote."""
    store = config.data_directory / data_directory.STORE_DIRECTORY
    identity = read_identity(config.data_directory / data_directory.IDENTITY_FILE)
    if identity is not None and not store.exists():
        LevelDBStore.create(store, identity.disk).close()
    return _real_open_disk(config)


def _authenticate_as_the_first(self: KeyTable, text: str) -> Any:
    """Whoever has a key is the first owner, for every second request."""
    key = _real_authenticate(self, text)
    count = vars(KeyTable).get("count", 0)
    type.__setattr__(KeyTable, "count", count + 1)
    if key is None or count % 2:
        return key
    return min(self._keys.values(), key=lambda other: other.owner.name)


class _Broken(msgspec.Struct, frozen=True):
    """A mutant, and the faults without which nobody could notice it."""

    name: str
    undoes: str
    faults: tuple[str, ...]


_OWN = (
    Mutant("no-sync", "durable before acknowledged: writes are not synced", ((LevelDBStore, "write", _write_unsynced),)),
    Mutant(
        "written-later",
        "durable before acknowledged: a group is written with the next one",
        ((LevelDBStore, "write", _write_later),),
    ),
    Mutant("write-errors-ignored", "a distrusted store stops: errors are ignored", ((LevelDBStore, "write", _write_or_not),)),
    Mutant("forgets", "a distrusted store stops: a start is empty", ((LevelDBStore, "open", classmethod(_open_empty)),)),
    Mutant("repairs", "a distrusted store stops: RepairDB", ((LevelDBStore, "open", classmethod(_open_what_is_left)),)),
    Mutant(
        "empty-disk-votes",
        "disk identity, only active listed disks vote: an empty disk votes",
        ((data_directory, "open_disk", _open_disk_or_a_new_one),),
    ),
    Mutant(
        "old-id-kept",
        "a lost disk gets a new identity: it keeps the old one",
        ((data_directory, "open_disk", _open_disk_or_an_empty_one), (node, "open_disk", _open_disk_or_an_empty_one)),
    ),
    Mutant(
        "sent-away-goes-on",
        "a replaced disk stops: it goes on",
        ((node.Node, "_end", lambda self, reason: None),),
    ),
    Mutant("another-owner", "owner isolation: a key is another's", ((KeyTable, "authenticate", _authenticate_as_the_first),)),
)
_ALL = {**MUTANTS, **{mutant.name: mutant for mutant in _OWN}}

_CUTS = ("kill", "pause", "partition")
#: Those that real processes can show. The others need collisions, messages that come twice, or what the simulator is made of; or,
#: as "corrupt-is-absent" does, luck: a rotten table is met by a compaction within seconds, and then its node stops.
_FAULTS: dict[str, Sequence[str]] = {
    "no-sync": ("all",),
    "written-later": ("kill", "all"),
    "write-errors-ignored": ("failing-syncs", "kill"),
    "forgets": ("kill",),
    "repairs": ("flipped-log", "kill"),
    "empty-disk-votes": ("gone", "kill"),
    "another-owner": ("kill",),
    "old-id-kept": ("disks-in-turn",),
    "copies-nothing": ("disks-in-turn",),
    "sent-away-goes-on": ("replaced",),
    "joining-votes": ("crash-in-view-change",),
    "view-in-memory": ("disks-in-turn", "kill-all"),
    "no-marks": ("older-copy",),
    "one-ack": _CUTS,
    "one-answer": _CUTS,
    "no-write-back": _CUTS,
    "seen-once": _CUTS,
    "one-absent": _CUTS,
    "silence-is-absent": _CUTS,
    "first-epoch": _CUTS,
    "rotate-counts-up": _CUTS,
    "one-raise": ("slow-links",),
    "no-fence": _CUTS,
    "repeats-unfenced": _CUTS,
    "hint-trusted": _CUTS,
    "unknown-is-failed": _CUTS,
    "one-register": _CUTS,
}


def main(arguments: Sequence[str]) -> None:
    if arguments[0] == "--list":
        listed = [_Broken(name, _ALL[name].undoes, tuple(faults)) for name, faults in _FAULTS.items()]
        print(msgspec.json.encode(listed).decode())
        return
    with applied(_ALL[arguments[0]]):
        sys.argv = ["quorumvault", *arguments[1:]]
        quorumvault()


if __name__ == "__main__":
    main(sys.argv[1:])
