"""Makes stores anew during a recovery, and gives them back the trust of their nodes (recover.py).

<data>/store.anew                   the new store while it is filled; if this recovery does not finish, the next one removes it
<data>/store.damaged.set-aside-1    the old store, unchanged, that could not be read to its end; no node removes it
"""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from quorumvault import durable
from quorumvault.protocol.rollback_marks import NO_MARK, Mark, Marks, grown
from quorumvault.protocol.views import Mode, View
from quorumvault.server.offline.disks_at_hand import Disk, Opened
from quorumvault.server.storage import layout
from quorumvault.server.storage.data_directory import (
    IDENTITY_FILE,
    STORE_DIRECTORY,
    UNTRUSTED_FILE,
    check_secret,
    name_in,
    quarantine,
)
from quorumvault.server.storage.disk_identity import write_identity
from quorumvault.server.storage.leveldb import LevelDBStore

_ANEW: Final = "store.anew"
_DAMAGED: Final = "store.damaged"
#: More writes than a disk can make after any copy of it, thousands a second for years; and more starts.
_BEYOND_MEMORY = Mark(incarnation=1 << 20, sequence=1 << 40)


def make_anew(disks: Iterable[Disk], ending: ExitStack) -> dict[str, LevelDBStore]:
    """Make an empty store beside each of these disks' stores, under the disk's id. Raises StorageFailed, ConfigError."""
    made: dict[str, LevelDBStore] = {}
    for disk in disks:
        path = disk.config.data_directory / _ANEW
        shutil.rmtree(path, ignore_errors=True)
        made[disk.node] = ending.enter_context(closing(LevelDBStore.create(path, disk.identity.disk)))
        check_secret(made[disk.node], disk.config)
    return made


@dataclass(frozen=True, slots=True)
class Trust:
    """``memory``: the marks of all disks at hand. A disk with a lower mark than they remember would look like an older copy."""

    newest: View
    memory: Iterable[Marks]

    def again(self, disk: Disk, at: Mark, store: LevelDBStore) -> None:
        """Raise the disk's mark beyond all marks of it, then trust it."""
        beyond = self._beyond(disk, at)
        store.write({layout.SEQUENCE_KEY: layout.encode_sequence(beyond.sequence)})
        self._identify(disk, beyond)

    def anew(self, disk: Disk, before: Opened | None, store: LevelDBStore) -> Path | None:
        """Like ``again``, for a disk whose store was made anew. Returns where the old store is now, if there was one."""
        directory = disk.config.data_directory
        beyond = self._beyond(disk, Mark(disk.identity.incarnation, 0) if before is None else before.at)
        remembered: Mapping[bytes, Mark] = {} if before is None else before.remembers
        marks = {layout.mark_key(other): layout.encode_mark(mark) for other, mark in remembered.items()}
        store.write({layout.SEQUENCE_KEY: layout.encode_sequence(beyond.sequence), **marks})
        store.close()
        if before is not None:
            before.store.close()  # LevelDB removes what it does not know in the directory of that name, which another gets now
        old, aside = directory / STORE_DIRECTORY, None
        if old.exists():
            name_in(old, directory)
            aside = quarantine(old, _DAMAGED)
        (directory / _ANEW).rename(old)
        durable.sync_directory(directory)
        self._identify(disk, beyond)
        return aside

    def _beyond(self, disk: Disk, held: Mark) -> Mark:
        for marks in self.memory:
            held = grown(held, marks.get(disk.identity.disk, NO_MARK))
        return Mark(held.incarnation + _BEYOND_MEMORY.incarnation, held.sequence + _BEYOND_MEMORY.sequence)

    def _identify(self, disk: Disk, at: Mark) -> None:
        """Let the disk vote in the newest view, whether or not it did before, because it has everything that was acknowledged."""
        directory = disk.config.data_directory
        identity = replace(disk.identity, incarnation=at.incarnation, mode=Mode.ACTIVE, view=self.newest)
        write_identity(directory / IDENTITY_FILE, identity)
        (directory / UNTRUSTED_FILE).unlink(missing_ok=True)
        durable.sync_directory(directory)
