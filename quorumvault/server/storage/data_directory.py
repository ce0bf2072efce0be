"""A node's disk at start: its identity, whether it can be trusted, and whether it may vote.

    identity  store       what open_disk does
    yes       yes         opens it in the durable mode of the disk: active, or joining
    yes       unreadable  salvages it: the same disk then holds what could be read, and knows what could not (salvage.py)
    yes       distrusted  for another reason, or it cannot be salvaged: returns no store, because the disk is lost. When both
                          other disks are active, ``create_replacement`` quarantines the store and makes a new identity, and the
                          node rejoins with an empty store (healing/join.py)
    yes       none        the same: the files are gone, and with them everything that this disk acknowledged
    none      any         returns no store and creates nothing, since a volume may not be mounted. The node waits for its
                          operator: ``quorumvault init DIR --replace`` gives it a new disk

    <data>/nX/distrusted           why the store cannot be trusted, in one line. The process that finds out writes it before it
                                   ends (exit 3). The store is quarantined only when both other disks are active, so that three
                                   nodes that lose power at once keep everything they had
    <data>/nX/store.set-aside-1    a quarantined store, kept until the node is complete again without it

A node without a disk carries out requests through the two other replicas, and has no vote.

Rules kept here: a distrusted store stops; disk identity; a lost disk gets a new identity; rollback marks.
"""

import logging
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from quorumvault import durable
from quorumvault.config.cluster import NodeConfig, NodePlace
from quorumvault.crypto.keys import fingerprint
from quorumvault.errors import ConfigError, NoRoom, StorageFailed, StoreCorrupt, StoreMissing
from quorumvault.protocol.rollback_marks import Marks
from quorumvault.protocol.views import DISK_BYTES, Mode
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import LOCK_FILE, DiskIdentity, raise_incarnation, read_identity, write_identity
from quorumvault.server.storage.leveldb import CANNOT_BE_OPENED, LevelDBStore
from quorumvault.server.storage.salvage import salvage, take_place
from quorumvault.server.storage.store import Store
from quorumvault.server.storage.torn_store import opened_to_read, remove_copies

logger = logging.getLogger("quorumvault.disk")

IDENTITY_FILE = "disk.json"
STORE_DIRECTORY = "store"
UNTRUSTED_FILE = "distrusted"
#: Most stores set aside at a time: a disk that spoils another store before the node is complete again needs an operator.
MOST_QUARANTINED = 3
#: The words for a cause that decides what happens to a distrusted disk. Notes on disk contain them, also in earlier versions.
PUT_BACK = "it was put back from an older copy"
_QUARANTINED = ".set-aside-"


class Cause(Enum):
    """A cause of distrust that decides what a recovery may do with the disk. The note's words contain the value."""

    CANNOT_BE_OPENED = CANNOT_BE_OPENED
    UNREADABLE = "checksum"
    PUT_BACK = PUT_BACK


class Untrusted(NamedTuple):
    """The note of a distrusted store: the causes that it names, and its whole text, in one line."""

    causes: frozenset[Cause]
    words: str

    @property
    def only_damage(self) -> bool:
        """True if the readable parts of the store are correct and complete."""
        return bool(self.causes) and self.causes <= {Cause.CANNOT_BE_OPENED, Cause.UNREADABLE}

    @property
    def may_be_read(self) -> bool:
        """True if the device can be read. A device that cannot may end or hold up the process that tries, at each start."""
        return bool(self.causes)


@dataclass(frozen=True, slots=True)
class NodeDisk:
    """``store`` is None on a node without a disk; ``problem`` then says so, and what to do. ``replaceable``: the node may get a
    new disk without an operator; the identity is then only in memory, and in no view. ``remembered``: the rollback marks in the
    lost store. Marks only grow, so these are valid, whatever else the store has lost."""

    identity: DiskIdentity
    store: LevelDBStore | None
    problem: str | None = None
    replaceable: bool = False
    remembered: Marks = field(default_factory=dict)


def open_disk(config: NodeConfig) -> NodeDisk:
    """Open this node's disk. Raises ConfigError for problems that the operator must fix, StorageFailed for a bad store."""
    directory = config.data_directory
    path = directory / IDENTITY_FILE
    remove_copies(directory)
    identity = identity_of(config)
    if identity is None:
        return _without_disk(
            config,
            f"{config.node} has no disk that the cluster knows: {path} does not exist; stop it and put its data directory back, "
            f"or give it a new disk: quorumvault init DIR --replace {config.node}",
        )
    if (untrusted := why_untrusted(directory)) is not None and not _salvaged(config, identity, untrusted):
        return _lost(config, untrusted.words, _remembered(directory / STORE_DIRECTORY, identity, untrusted))
    try:
        store = LevelDBStore.open(directory / STORE_DIRECTORY, identity.disk)
    except StoreMissing as missing:
        return _lost(config, str(missing), {})
    except NoRoom:
        raise
    except StorageFailed as failure:
        mark_untrusted(directory, str(failure))
        raise
    try:
        check_secret(store, config)
    except StoreCorrupt as failure:  # only for this: a disk too full for a write still has everything that it acknowledged
        mark_untrusted(directory, str(failure))
        raise
    return NodeDisk(raise_incarnation(path, identity), store)


def _salvaged(config: NodeConfig, identity: DiskIdentity, untrusted: Untrusted) -> bool:
    """Salvage a store that is distrusted only because of unreadable blocks, and trust it again. Returns False if it is distrusted
    for another reason, or cannot be salvaged. Raises NoRoom."""
    directory = config.data_directory
    store = directory / STORE_DIRECTORY
    unreadable = untrusted.causes == {Cause.UNREADABLE} and identity.mode is Mode.ACTIVE
    if not unreadable or len(_asides(directory)) >= MOST_QUARANTINED:
        return False
    needed, free = store_bytes(directory), shutil.disk_usage(directory).free
    if needed > free:
        raise NoRoom(
            f"{store}: it is damaged, and what can be read of it is copied beside it, which needs {needed:,} bytes; {free:,} are "
            "free: make room, and the next start goes on"
        )
    try:
        fresh = salvage(store, identity.disk)
    except NoRoom:
        raise
    except (StorageFailed, ConfigError) as failure:
        logger.error("the store cannot be salvaged: %s", failure)
        return False
    if fresh is None:
        return False
    if store.exists():
        logger.warning("%s: the store with blocks that cannot be read is now %s", config.node, quarantine(store))
    take_place(fresh, store)
    (directory / UNTRUSTED_FILE).unlink(missing_ok=True)
    durable.sync_directory(directory)
    return True


def identity_of(config: NodePlace) -> DiskIdentity | None:
    """The identity of the node's disk; None if there is none. Raises ConfigError for another cluster's or another node's."""
    path = config.data_directory / IDENTITY_FILE
    identity = read_identity(path)
    if identity is not None and (identity.cluster_id, identity.node) != (config.cluster.cluster_id, config.node):
        raise ConfigError(path, "", f"expected the data of {config.node} of this cluster; this is another node's or cluster's")
    return identity


def mark_untrusted(directory: Path, reason: str) -> None:
    """Have the next start set aside the store in this data directory. Durable when it returns, if the disk still accepts it.

    ``reason``: one line without a value, a key or a token. The directory's name is removed from it, since words in that would
    count as a cause. Never raises, because it is called while the process is ending.
    """
    mark = directory / UNTRUSTED_FILE
    words = reason.replace(f"{directory}{os.sep}", "")
    try:
        durable.replace(mark, f"{words}\n".encode(errors="backslashreplace"))
    except OSError as error:
        logger.critical("%s: that its store cannot be trusted could not be noted: %s", directory, error.strerror)
        with suppress(OSError):
            mark.touch()  # a full disk may still take a name, and a mark without a reason is still a mark


def create_replacement(config: NodeConfig, identity: DiskIdentity) -> tuple[DiskIdentity, LevelDBStore]:
    """Make a new disk in place of a lost one, under the identity that was in memory: durable, joining, empty.

    To be called when both other disks are active, and not on the event loop's thread. After a crash in the middle the disk is
    lost as before. Raises StorageFailed, ConfigError.
    """
    directory = config.data_directory
    path, store = directory / IDENTITY_FILE, directory / STORE_DIRECTORY
    before = read_identity(path)
    try:
        if before is not None and before.mode is Mode.JOINING:
            shutil.rmtree(store, ignore_errors=True)  # it was never complete: the other disks have everything in it
        if store.exists():
            name_in(store, directory)
            logger.warning("%s: the store that cannot be trusted is now %s", config.node, quarantine(store))
        fresh = make_disk(directory, identity)
        (directory / UNTRUSTED_FILE).unlink(missing_ok=True)
        durable.sync_directory(directory)
    except OSError as error:
        raise StorageFailed(f"{directory}: the old store cannot be set aside: {error.strerror}") from None
    check_secret(fresh, config)
    return raise_incarnation(path, identity), fresh


def name_in(store: Path, directory: Path) -> None:
    """Keep in a store that is set aside its identity and the note of distrust: it may still be a donor (set_aside.py)."""
    for name in (IDENTITY_FILE, UNTRUSTED_FILE):
        if (directory / name).exists():
            durable.replace(store / name, (directory / name).read_bytes())


def make_disk(directory: Path, identity: DiskIdentity) -> LevelDBStore:
    """Make a disk in a data directory that has none: first its identity, then an empty store, which is returned open.

    After a crash in the middle there is an identity without a store: such a disk is lost. Raises StorageFailed.
    """
    path = directory / IDENTITY_FILE
    write_identity(path, identity)
    if read_identity(path) != identity:
        raise StorageFailed(f"{path}: the disk identity cannot be read back")
    return LevelDBStore.create(directory / STORE_DIRECTORY, identity.disk)


def store_bytes(directory: Path) -> int:
    """Return the bytes that the store in this data directory takes up; 0 if there is none."""
    size = 0
    with suppress(FileNotFoundError), os.scandir(directory / STORE_DIRECTORY) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # LevelDB removed it meanwhile
                size += entry.stat().st_size
    return size


def remove_quarantined(directory: Path) -> None:
    """Remove stores set aside here, once the node is complete without them: each record that counts is on two other disks."""
    for entry in directory.glob(f"{STORE_DIRECTORY}{_QUARANTINED}*"):
        shutil.rmtree(entry, ignore_errors=True)
        logger.warning("%s, which was set aside, is removed: this node is whole without it", entry)


def quarantine(path: Path, name: str | None = None) -> Path:
    """Rename a file or directory to an unused name, after ``name`` or its own name. Returns the new path. Raises OSError."""
    aside = _unused(path if name is None else path.with_name(name))
    path.rename(aside)
    durable.sync_directory(path.parent)
    return aside


def quarantine_contents(directory: Path) -> Path:
    """Like ``quarantine``, for the contents of a directory that cannot be renamed because a volume is mounted there.

    The identity is moved first: if this is interrupted after that, the remaining files are no node's disk. Raises OSError.
    """
    aside = _unused(directory / directory.name)
    aside.mkdir(mode=0o700)
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name != IDENTITY_FILE):
        if entry.name != LOCK_FILE and not is_quarantined(entry.name):
            entry.rename(aside / entry.name)
    durable.sync_directory(aside)
    durable.sync_directory(directory)
    return aside


def _unused(path: Path) -> Path:
    """An unused name for a file or directory that is set aside."""
    number = 1
    while (aside := path.with_name(f"{path.name}{_QUARANTINED}{number}")).exists():
        number += 1
    return aside


def _asides(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir() if is_quarantined(entry.name)]


def is_quarantined(name: str) -> bool:
    return _QUARANTINED in name


def why_untrusted(directory: Path) -> Untrusted | None:
    """Returns the note of distrust; None for a trusted store. Raises ConfigError if the note cannot be read."""
    try:
        words = (directory / UNTRUSTED_FILE).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(directory / UNTRUSTED_FILE, "", f"expected a file that can be read: {error.strerror}") from None
    return Untrusted(frozenset(cause for cause in Cause if cause.value in words), words)


def _remembered(store: Path, identity: DiskIdentity, untrusted: Untrusted) -> Marks:
    """The marks of other disks in a distrusted store; empty if they cannot be read. Raises NoRoom."""
    if not untrusted.may_be_read:
        return {}
    try:
        with opened_to_read(store, identity.disk) as opened:
            return layout.read_marks(opened)
    except NoRoom:
        raise
    except (StorageFailed, ConfigError) as error:
        logger.warning("%s: what it remembers of other disks is lost with it: %s", store, error)
        return {}


def _lost(config: NodeConfig, why: str, remembered: Marks) -> NodeDisk:
    asides = _asides(config.data_directory)
    if len(asides) >= MOST_QUARANTINED:
        hint = f"{len(asides)} were set aside in {config.data_directory} before; look at the disk, remove them, start again"
        return _without_disk(config, f"{config.node} has lost its disk ({why}), and sets no more aside: {hint}")
    problem = f"{config.node} has lost its disk ({why}): it rejoins with a new one when both others are active"
    return _without_disk(config, problem, replaceable=True, remembered=remembered)


def _without_disk(config: NodeConfig, problem: str, *, replaceable: bool = False, remembered: Marks | None = None) -> NodeDisk:
    logger.error(problem)
    stranger = DiskIdentity(config.cluster.cluster_id, config.node, os.urandom(DISK_BYTES), 0, Mode.JOINING, None)
    return NodeDisk(stranger, None, problem, replaceable, remembered or {})


def check_secret(store: Store, config: NodeConfig) -> None:
    """Check that the master secret is the one of the store's records: under another secret every value would get a second token.

    Raises ConfigError for another secret, StoreCorrupt if the store's note of it cannot be read, StorageFailed if it cannot be
    written.
    """
    master = config.cluster.secrets.master
    key, mine = layout.secret_key(master.id), fingerprint(config.master_secret).encode()
    (known,) = store.get([key])
    if known is None:
        store.write({key: mine})
    elif known != mine:
        if not isinstance(known, bytes):
            raise StoreCorrupt("the fingerprint of the master secret in the store is corrupt")
        where = master.place(config.cluster.file)
        raise ConfigError(
            where, "", f"expected the secret {master.id!r} that this node's records were made with; this is another one"
        )
