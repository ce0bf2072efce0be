"""Three stores full of the same records, as the nodes would have written them, made before the nodes start.

Through the API ten million records take a quarter of an hour; here, two minutes. What is written is made by the vault's own code
with the cluster's own secret: the nodes find records that are authentic, and would give the same tokens themselves. One store is
filled in the order in which values come, so that it has compacted what a node's has; the two others are copies of its files.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from bench.processes import until_idle
from quorumvault.config.cluster import load_node
from quorumvault.crypto.canonical import from_str
from quorumvault.crypto.keys import Keyring
from quorumvault.crypto.tokens import format_tokens
from quorumvault.model import FIRST_EPOCH, NODE_NAMES, Owner, Version, node_number
from quorumvault.protocol.clock import HybridClock
from quorumvault.protocol.records import header
from quorumvault.server.storage import layout
from quorumvault.server.storage.data_directory import IDENTITY_FILE, STORE_DIRECTORY
from quorumvault.server.storage.disk_identity import read_identity
from quorumvault.server.storage.leveldb import LevelDBStore

#: Records in one synced write: what the largest request has.
_BATCH = 10_000


class Corpus:
    """Values by number, 15 characters each, and the tokens that the cluster of this cluster.yaml has for them.

    The same ``seed`` gives the same values. All of it belongs to one owner, in its first epoch.
    """

    def __init__(self, cluster_file: Path, owner: str, seed: int) -> None:
        config = load_node(cluster_file, NODE_NAMES[0])
        self._prefix = f"{seed:06x}"
        self._owner = Owner(owner)
        self._secret = config.cluster.secrets.master.id
        self._keys = Keyring(self._secret, config.master_secret).epoch_keys(self._owner, FIRST_EPOCH)
        self._clock = HybridClock()

    def value(self, number: int) -> str:
        return f"{self._prefix}-{number:08}"

    def values(self, first: int, count: int) -> list[str]:
        return list(map(self.value, range(first, first + count)))

    def tokens(self, values: Sequence[str]) -> list[str]:
        return format_tokens(FIRST_EPOCH, self._keys.digests(map(from_str, values)))

    def owner_entries(self) -> dict[bytes, bytes]:
        """Returns the entries that a store has of the owner: its name and its epoch."""
        register = layout.encode_register(FIRST_EPOCH, self._secret)
        return {layout.owner_key(self._owner.id): self._owner.name.encode(), layout.register_key(self._owner.id): register}

    def records(self, first: int, count: int) -> dict[bytes, bytes]:
        """Entries of a store: what one request with these values would have written."""
        canonicals = list(map(from_str, self.values(first, count)))
        digests = self._keys.digests(canonicals)
        head = header(Version(self._clock.tick(time.time_ns() // 1_000_000), node_number(NODE_NAMES[0])))
        keys = layout.record_keys(self._owner.id, [FIRST_EPOCH] * count, digests)
        return {key: head + sealed for key, sealed in zip(keys, self._keys.sealer.seal(canonicals, digests), strict=True)}


def fill(directory: Path, corpus: Corpus, records: int, tell: Callable[[int], None]) -> None:
    """The first ``records`` values, into all three stores of a cluster that was made and never started.

    ``tell`` hears how many there are so far.
    """
    disks = {node: _disk_of(directory / node) for node in NODE_NAMES}
    first, *others = NODE_NAMES
    with closing(LevelDBStore.open(directory / first / STORE_DIRECTORY, disks[first])) as store:
        store.write(corpus.owner_entries() | {layout.SEQUENCE_KEY: layout.encode_sequence(1)})
        for sequence, at in enumerate(range(0, records, _BATCH), 2):
            batch = corpus.records(at, min(_BATCH, records - at))
            store.write(batch | {layout.SEQUENCE_KEY: layout.encode_sequence(sequence)})
            tell(at + len(batch))
        until_idle(os.getpid())
    for node in others:
        path = directory / node / STORE_DIRECTORY
        shutil.rmtree(path)
        shutil.copytree(directory / first / STORE_DIRECTORY, path)
        with closing(LevelDBStore.open(path, disks[first])) as copy:
            copy.write({layout.DISK_KEY: disks[node]})


def _disk_of(data: Path) -> bytes:
    identity = read_identity(data / IDENTITY_FILE)
    if identity is None:
        raise FileNotFoundError(f"{data / IDENTITY_FILE}: no such file")
    return identity.disk
