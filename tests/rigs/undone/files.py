"""What a node does with the files of its disk, undone one at a time: on real data directories."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

from quorumvault.errors import StorageFailed, StoreMissing
from quorumvault.server.storage import data_directory, disk_identity, leveldb, salvage
from quorumvault.server.storage.gaps import Gap, Gaps
from quorumvault.server.storage.leveldb import LevelDBStore
from tests.rigs.undone.mutant import FILES, Mutant

_real_open = LevelDBStore.open
_real_check_directory = leveldb._check_directory
_real_salvage = salvage.salvage


def _whatever_is_there(path: Path) -> None:
    """Takes a store without a log for one whose log is empty."""
    try:
        _real_check_directory(path)
    except StoreMissing:
        raise
    except StorageFailed as failure:
        if "log is missing" not in str(failure):
            raise


def _a_part_is_whole(store: Path, disk: bytes) -> Path | None:
    """Takes the copy that an earlier start had begun for all of it."""
    partial = store.with_name(salvage._PARTIAL)
    return partial if partial.exists() else _real_salvage(store, disk)


def written_in_place(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _renamed_unsynced(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(content)
    draft.replace(path)


def _none_of_them(found: Iterable[Gap]) -> Gaps:
    for _ in found:
        pass  # each has to be passed for the rest to be copied
    return Gaps()


def _open_or_make_anew(cls: type[LevelDBStore], path: Path, disk: bytes) -> LevelDBStore:
    """Makes an empty store for the same disk where it cannot be opened."""
    try:
        return _real_open(path, disk)
    except StorageFailed:
        shutil.rmtree(path, ignore_errors=True)
        return LevelDBStore.create(path, disk)


MUTANTS = (
    Mutant("logs-unread", ("a distrusted store stops",), "logs are not read before LevelDB opens them",
           ((leveldb, "_check_logs", lambda path: None),), FILES, seed=2),
    Mutant("log-not-missed", ("a distrusted store stops",), "a log that is gone is not missed",
           ((leveldb, "_check_directory", _whatever_is_there),), FILES),
    Mutant("half-salvaged", ("what is not known is not absent",), "a salvage that was cut short takes the store's place",
           ((data_directory, "salvage", _a_part_is_whole),), FILES, seed=1),
    Mutant("identity-in-place", ("disk identity",), "the identity is written over",
           ((disk_identity, "durable", SimpleNamespace(replace=written_in_place)),), FILES, seed=1),
    Mutant("identity-unsynced", ("disk identity",), "the identity is renamed before it is synced",
           ((disk_identity, "durable", SimpleNamespace(replace=_renamed_unsynced)),), FILES),
    Mutant("made-anew", ("a distrusted store stops", "a lost disk gets a new identity"), "a store that does not open is emptied",
           ((LevelDBStore, "open", classmethod(_open_or_make_anew)),), FILES, seed=2),
    Mutant("gaps-unnoted", ("what is not known is not absent",), "a salvage notes no gap",
           ((salvage, "Gaps", _none_of_them),), FILES, seed=2),
    Mutant("distrust-unnoted", ("a distrusted store stops",), "the next start does not know why the last one ended",
           ((data_directory, "mark_untrusted", lambda directory, reason: None),), FILES),
    Mutant("incarnation-stays", ("disk identity",), "a start has the incarnation of the one before",
           ((data_directory, "raise_incarnation", lambda path, identity: identity),), FILES),
)  # fmt: skip
