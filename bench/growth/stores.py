"""Makes clusters with a given number of records and owners before their nodes start. Each owner has an API key of its own."""

import base64
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.growth.plan import Store
from bench.healing.size import PATIENCE_SECONDS, wait_counted
from bench.healing.stores import Corpus, fill, keyring
from bench.load import prepare
from bench.report import Tell
from chaos.testbed.cluster import NODES, Cluster

#: Allows 256 requests of one key at once in three nodes; the defaults allow about 140.
_LIMITS = "limits:\n  in_flight: 256\n  key_share: 100\n"
_ALLOW = ("tokenize", "detokenize")


@dataclass(slots=True)
class Filled:
    """A running cluster. ``keys`` and ``corpora`` correspond, owner by owner; each owner has ``each`` values at the start.

    ``made``: the number from which on no value has been used.
    """

    store: Store
    cluster: Cluster
    keys: list[str]
    corpora: list[Corpus]
    each: int
    made: int
    asked: int = 0

    def next_owner(self) -> int:
        """Returns the index of the next owner, in turn."""
        self.asked += 1
        return self.asked % len(self.keys)


@contextmanager
def filled(directory: Path, store: Store, tell: Tell) -> Iterator[Filled]:
    """Makes and starts a cluster with this store, which ends with the block. Raises ClusterError."""
    with prepare(directory) as cluster:
        with (directory / "cluster.yaml").open("a") as configuration:
            configuration.write(_LIMITS)
        owners = [f"owner-{number}" for number in range(store.owners)]
        keys = write_keys(directory / "api_keys.yaml", owners)
        ring = keyring(directory / "cluster.yaml")
        corpora = [Corpus(ring, owner, seed=1, length=store.value_bytes) for owner in owners]
        fill(directory, corpora, store.records, lambda done: tell(f"three stores of {store.records:,} records: {done:,}"))
        cluster.start()
        cluster.wait_ready(reachable=len(NODES), seconds=PATIENCE_SECONDS)
        wait_counted(cluster, 1)
        each = store.records // store.owners
        yield Filled(store, cluster, keys, corpora, each, made=each)


def write_keys(path: Path, owners: list[str]) -> list[str]:
    """Replaces the file's owners and keys by these owners with new keys, all at once: ``keys create`` would write it for each.

    Returns the keys.
    """
    keys = [f"qvk_{_base32(5)}_{_base32(20)}" for _ in owners]
    entries = [
        {"id": key.split("_")[1], "owner": owner, "sha256": hashlib.sha256(key.encode()).hexdigest(), "allow": list(_ALLOW)}
        for key, owner in zip(keys, owners, strict=True)
    ]
    path.write_text(yaml.safe_dump({"owners": owners, "keys": entries}, default_flow_style=None, sort_keys=False))
    return keys


def _base32(count: int) -> str:
    return base64.b32encode(secrets.token_bytes(count)).decode().lower()
