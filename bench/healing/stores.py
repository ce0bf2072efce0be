"""Makes three stores with the same records, as the nodes would have written them, before the nodes start.

Ten million records take a quarter of an hour through the API, and two minutes here. The vault's own code makes the records with
the cluster's secret, so they are authentic to the nodes, which would give the same tokens. One store is filled in the order in
which values arrive, so that it has compacted as much as a node's store; the two others are copies of its files.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
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

#: The most records in one synced write, as in the largest request; and the most bytes of values, for long ones.
_BATCH, _BATCH_BYTES = 10_000, 4 << 20


def keyring(cluster_file: Path) -> Keyring:
    """Returns the keyring with the master secret of this cluster."""
    config = load_node(cluster_file, NODE_NAMES[0])
    return Keyring(config.cluster.secrets.master.id, config.master_secret)


class Corpus:
    """Values by number, of ``length`` characters each (at least 9), and their tokens in the cluster with these keys.

    The same ``seed`` gives the same values. All values belong to one owner, in its first epoch.
    """

    def __init__(self, ring: Keyring, owner: str, seed: int, length: int = 15) -> None:
        self.length = length
        self._prefix = f"{seed:06x}"
        self._owner = Owner(owner)
        self._secret = ring.secret_id
        self._keys = ring.epoch_keys(self._owner, FIRST_EPOCH)
        self._clock = HybridClock()

    def value(self, number: int) -> str:
        return f"{self._prefix}-{number:08}".ljust(self.length, ".")[-self.length :]

    def values(self, first: int, count: int) -> list[str]:
        return list(map(self.value, range(first, first + count)))

    def tokens(self, values: Sequence[str]) -> list[str]:
        return format_tokens(FIRST_EPOCH, self._keys.digests(map(from_str, values)))

    def owner_entries(self) -> dict[bytes, bytes]:
        """Returns a store's entries about the owner: its name and its epoch."""
        register = layout.encode_register(FIRST_EPOCH, self._secret)
        return {layout.owner_key(self._owner.id): self._owner.name.encode(), layout.register_key(self._owner.id): register}

    def records(self, first: int, count: int) -> dict[bytes, bytes]:
        """Returns the store entries that one request with these values would have written."""
        canonicals = list(map(from_str, self.values(first, count)))
        digests = self._keys.digests(canonicals)
        head = header(Version(self._clock.tick(time.time_ns() // 1_000_000), node_number(NODE_NAMES[0])))
        keys = layout.record_keys(self._owner.id, [FIRST_EPOCH] * count, digests)
        return {key: head + sealed for key, sealed in zip(keys, self._keys.sealer.seal(canonicals, digests), strict=True)}


def fill(directory: Path, corpora: Sequence[Corpus], records: int, tell: Callable[[int], None]) -> None:
    """Writes the first values of each corpus, ``records`` in all, to all three stores of a cluster that never ran.

    ``tell`` is called with the number of records so far.
    """
    disks = {node: _disk_of(directory / node) for node in NODE_NAMES}
    first, *others = NODE_NAMES
    with closing(LevelDBStore.open(directory / first / STORE_DIRECTORY, disks[first])) as store:
        owners = {key: value for corpus in corpora for key, value in corpus.owner_entries().items()}
        store.write(owners | {layout.SEQUENCE_KEY: layout.encode_sequence(1)})
        written = 0
        for sequence, batch in enumerate(_batches(corpora, records // len(corpora)), 2):
            store.write(batch | {layout.SEQUENCE_KEY: layout.encode_sequence(sequence)})
            written += len(batch)
            tell(written)
        until_idle(os.getpid())
    for node in others:
        path = directory / node / STORE_DIRECTORY
        shutil.rmtree(path)
        shutil.copytree(directory / first / STORE_DIRECTORY, path)
        with closing(LevelDBStore.open(path, disks[first])) as copy:
            copy.write({layout.DISK_KEY: disks[node]})


def _batches(corpora: Sequence[Corpus], each: int) -> Iterator[dict[bytes, bytes]]:
    """Yields the entries to write together: those of one owner, or of several owners with few values."""
    batch: dict[bytes, bytes] = {}
    for corpus in corpora:
        most = min(_BATCH, _BATCH_BYTES // corpus.length)
        for at in range(0, each, most):
            batch |= corpus.records(at, min(most, each - at))
            if len(batch) >= most:
                yield batch
                batch = {}
    if batch:
        yield batch


def _disk_of(data: Path) -> bytes:
    identity = read_identity(data / IDENTITY_FILE)
    if identity is None:
        raise FileNotFoundError(f"{data / IDENTITY_FILE}: no such file")
    return identity.disk
