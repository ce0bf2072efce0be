"""Safeties of the files of a disk, undone one at a time: on real data directories."""

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
    """Treats a missing log as an empty one."""
    try:
        _real_check_directory(path)
    except StoreMissing:
        raise
    except StorageFailed as failure:
        if "log is missing" not in str(failure):
            raise


def _a_part_is_whole(store: Path, disk: bytes) -> Path | None:
    """Takes the unfinished copy of an earlier start for the whole store."""
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
        pass  # the rest is copied only as these are consumed
    return Gaps()


def _open_or_make_anew(cls: type[LevelDBStore], path: Path, disk: bytes) -> LevelDBStore:
    """Makes an empty store for the same disk if the store cannot be opened."""
    try:
        return _real_open(path, disk)
    except StorageFailed:
        shutil.rmtree(path, ignore_errors=True)
        return LevelDBStore.create(path, disk)


MUTANTS = (
    Mutant("logs-unread", ("a distrusted store stops",), "logs are not checked before LevelDB opens them",
           ((leveldb, "_check_logs", lambda path: None),), FILES, seed=2),
    Mutant("log-not-missed", ("a distrusted store stops",), "a missing log is overlooked",
           ((leveldb, "_check_directory", _whatever_is_there),), FILES),
    Mutant("half-salvaged", ("what is not known is not absent",), "an unfinished salvage replaces the store",
           ((data_directory, "salvage", _a_part_is_whole),), FILES, seed=1),
    Mutant("identity-in-place", ("disk identity",), "the identity is written in place",
           ((disk_identity, "durable", SimpleNamespace(replace=written_in_place)),), FILES, seed=1),
    Mutant("identity-unsynced", ("disk identity",), "the identity is renamed before it is synced",
           ((disk_identity, "durable", SimpleNamespace(replace=_renamed_unsynced)),), FILES),
    Mutant("made-anew", ("a distrusted store stops", "a lost disk gets a new identity"), "a store that does not open is emptied",
           ((LevelDBStore, "open", classmethod(_open_or_make_anew)),), FILES, seed=2),
    Mutant("gaps-unnoted", ("what is not known is not absent",), "a salvage records no gap",
           ((salvage, "Gaps", _none_of_them),), FILES, seed=2),
    Mutant("distrust-unnoted", ("a distrusted store stops",), "the reason for distrust is not written down",
           ((data_directory, "mark_untrusted", lambda directory, reason: None),), FILES),
    Mutant("incarnation-stays", ("disk identity",), "a start reuses the previous incarnation",
           ((data_directory, "raise_incarnation", lambda path, identity: identity),), FILES, seed=1, by=("identity",)),
)  # fmt: skip
