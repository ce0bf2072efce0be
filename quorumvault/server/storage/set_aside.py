"""Stores of a node that were set aside, and the disks that they belonged to. Their records may be on no other disk any more.

    <data>/n2/store.set-aside-1/            by the node, when it gave its disk up; disk.json and the note of distrust are in it
    <data>/n2/store.damaged.set-aside-1/    by a recovery, which made the store anew
    <data>/n2.set-aside-1/                  by `init --replace`: the whole data directory
    <data>/n2/n2.set-aside-1/               the same, where a volume is mounted at n2

Rules kept here: donors have no voice.
"""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from quorumvault.config.cluster import NodePlace
from quorumvault.errors import ConfigError, StorageFailed
from quorumvault.protocol.donors import Donor
from quorumvault.protocol.rollback_marks import Mark
from quorumvault.protocol.views import Mode
from quorumvault.server.storage.data_directory import IDENTITY_FILE, STORE_DIRECTORY, Untrusted, is_quarantined, why_untrusted
from quorumvault.server.storage.disk_identity import DiskIdentity, lock_data_directory, read_identity
from quorumvault.server.storage.layout import read_sequence
from quorumvault.server.storage.leveldb import LevelDBStore
from quorumvault.server.storage.torn_store import opened_to_read

logger = logging.getLogger("quorumvault.disk")


@dataclass(frozen=True, slots=True)
class SetAside:
    """A store, and its identity. ``home``: the data directory to lock before the store is opened, if it has its own."""

    store: Path
    identity: DiskIdentity
    distrusted: Untrusted | None
    home: Path | None

    @property
    def may_stand_in(self) -> bool:
        """True if the store was complete when it was set aside, and is distrusted only for damage that reading detects."""
        return (self.distrusted is None or self.distrusted.only_damage) and self.identity.mode is Mode.ACTIVE

    @property
    def view_number(self) -> int:
        return 0 if self.identity.view is None else self.identity.view.number

    def donor(self, store: LevelDBStore) -> Donor:
        """The description that the protocol needs. The disk was active, so it is in a view. Raises StoreCorrupt."""
        identity = self.identity
        assert identity.view is not None
        return Donor(identity.node, identity.disk, identity.view, Mark(identity.incarnation, read_sequence(store)))


def stores_set_aside(config: NodePlace) -> list[SetAside]:
    """This node's stores that were set aside in and beside its data directory. Another cluster's are skipped, and logged."""
    directory = config.data_directory
    homes = [entry for place in (directory, directory.parent) for entry in place.glob(f"{directory.name}*")]
    found = [each for home in homes if is_quarantined(home.name) for each in stores_in(home, config)]
    return [*found, *_stores_beside(directory, config)]


def unused_stores(config: NodePlace) -> list[SetAside]:
    """The stores that this node's process does not use: set aside, or about to be set aside because they are distrusted."""
    directory = config.data_directory
    store, untrusted, identity = directory / STORE_DIRECTORY, why_untrusted(directory), _identity(directory, config)
    found = stores_set_aside(config)
    if untrusted is not None and identity is not None and store.exists():
        found.append(SetAside(store, identity, untrusted, None))
    return found


def open_donor(config: NodePlace, ending: ExitStack) -> tuple[Donor, LevelDBStore] | None:
    """The newest of this node's old disks that could stand in as one of three, open and locked until ``ending`` ends."""
    for aside in sorted(unused_stores(config), key=lambda aside: aside.view_number, reverse=True):
        if not aside.may_stand_in:
            continue
        try:
            store = open_store_set_aside(aside, ending)
            return aside.donor(store), store
        except (ConfigError, StorageFailed, OSError) as error:
            logger.warning("%s was set aside, and nothing can be taken from it: %s", aside.store, error)
    return None


def open_store_set_aside(aside: SetAside, ending: ExitStack) -> LevelDBStore:
    """Open a store for reading, and lock its data directory. Raises StorageFailed, ConfigError if a process runs with it."""
    if aside.home is not None:
        ending.enter_context(lock_data_directory(aside.home))
    return ending.enter_context(opened_to_read(aside.store, aside.identity.disk))


def stores_in(home: Path, config: NodePlace | None) -> list[SetAside]:
    """The store of a data directory, and those set aside in it. If ``config`` is None, those of any node and cluster."""
    with suppress(OSError, ConfigError):
        identity = _identity(home, config)
        own = [] if identity is None else [SetAside(home / STORE_DIRECTORY, identity, why_untrusted(home), home)]
        return [*own, *_stores_beside(home, config)]
    return []


def _stores_beside(home: Path, config: NodePlace | None) -> Iterator[SetAside]:
    for store in sorted(home.glob(f"{STORE_DIRECTORY}*")):
        with suppress(OSError, ConfigError):
            if is_quarantined(store.name) and (identity := _identity(store, config)) is not None:
                yield SetAside(store, identity, why_untrusted(store), None)


def _identity(directory: Path, config: NodePlace | None) -> DiskIdentity | None:
    identity = read_identity(directory / IDENTITY_FILE)
    if identity is None or config is None or (identity.cluster_id, identity.node) == (config.cluster.cluster_id, config.node):
        return identity
    logger.warning("%s is the data of another node or cluster: nothing is taken from it", directory)
    return None
