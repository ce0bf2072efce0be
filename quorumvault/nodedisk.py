"""A node's disk at start: who it is, whether it can be trusted, and whether it may vote.

    identity  store     then
    yes       yes       its durable mode: active, or joining
    none      any       joining, under an identity that lives in memory only and that no view lists; nothing is created
    yes       none      the same: the files are gone, and with them what this disk acknowledged

A node without its disk takes requests and carries them out through the two others, and votes on nothing (view rules 4 and 6).
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from quorumvault.config import NodeConfig
from quorumvault.crypto.keys import fingerprint
from quorumvault.disk import DiskIdentity, raise_incarnation, read_identity
from quorumvault.errors import ConfigError, StorageFailed, StoreMissing
from quorumvault.protocol.views import DISK_BYTES, Mode
from quorumvault.storage import layout
from quorumvault.storage.leveldb import LevelDBStore
from quorumvault.storage.store import Store

logger = logging.getLogger("quorumvault.disk")

IDENTITY_FILE = "disk.json"
STORE_DIRECTORY = "store"


@dataclass(frozen=True, slots=True)
class NodeDisk:
    """``store`` is None on a node that has no disk; ``problem`` then says so, and what to do."""

    identity: DiskIdentity
    store: Store | None
    problem: str | None = None


def open_disk(config: NodeConfig) -> NodeDisk:
    """Raises ConfigError for what the operator has to mend, StorageFailed for a store that cannot be trusted."""
    path = config.data_directory / IDENTITY_FILE
    identity = read_identity(path)
    if identity is None:
        return _without_disk(config, f"{path} does not exist")
    if (identity.cluster_id, identity.node) != (config.cluster.cluster_id, config.node):
        raise ConfigError(path, "", f"expected the data of {config.node} of this cluster; this is another node's or cluster's")
    try:
        store = LevelDBStore.open(config.data_directory / STORE_DIRECTORY, identity.disk)
    except StoreMissing as missing:
        return _without_disk(config, str(missing))
    _check_secret(store, config)
    return NodeDisk(raise_incarnation(path, identity), store)


def _without_disk(config: NodeConfig, why: str) -> NodeDisk:
    problem = (
        f"{config.node} has no disk that the cluster knows ({why}): it stays joining, serves requests through the "
        "other nodes and votes on nothing; stop it and put its data directory back: this version cannot give it a new disk"
    )
    logger.error(problem)
    stranger = DiskIdentity(config.cluster.cluster_id, config.node, os.urandom(DISK_BYTES), 0, Mode.JOINING, None)
    return NodeDisk(stranger, None, problem)


def _check_secret(store: Store, config: NodeConfig) -> None:
    """The store remembers which secret its records were made with: under another one every value would get a second token."""
    master = config.cluster.secrets.master
    key, mine = layout.secret_key(master.id), fingerprint(config.master_secret).encode()
    (known,) = store.get([key])
    if known is None:
        store.write({key: mine})
    elif known != mine:
        if not isinstance(known, bytes):
            raise StorageFailed("the fingerprint of the master secret in the store is corrupt")
        where = config.cluster.file.parent / master.file
        raise ConfigError(
            where, "", f"expected the secret {master.id!r} that this node's records were made with; this is another one"
        )
