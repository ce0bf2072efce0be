"""Getting a cluster back when too few disks open for the others to be copied from: what an operator does, with all nodes stopped.

A power cut may leave a write torn, at the end of a store's log, and a store that is told to trust nothing does not open then. One
such disk, or two, are copied anew from what is left (rejoin). If it hit all three at once there is nobody to copy from. Then:

    cut    behind the last whole batch of a log, unless later batches follow (storage/leveldblog.py); a copy is kept aside
    read   all of each store; one that cannot be read to its end is left out
    unite  every store gets what it lacks of the others, synced: what was torn on one disk may be whole on another
    trust  the note that it could not be opened is removed (nodedisk.py); its sequence number passes all that peers can remember

What was torn had not been synced, so nobody was told that it stands. But a last batch that was acknowledged and has rotted since
looks the same. That is why the stores are united before any of them votes again: an acknowledged record is on two disks, and
stays unless both lost it. Two disks suffice for that, since every record that was acknowledged is on one of any two.

Only disks that may vote take part: active, listed in the newest view that any of those at hand is in, and distrusted for no other
reason than that they could not be opened. The others are left as they are.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from quorumvault.config import NodeConfig
from quorumvault.copying import merge_piece, read_piece
from quorumvault.crypto.keys import Keyring
from quorumvault.disk import DiskIdentity, lock_data_directory, read_identity, sync_directory
from quorumvault.errors import ConfigError, RecoveryRefused, StorageFailed
from quorumvault.model import QUORUM
from quorumvault.nodedisk import DISTRUSTED_FILE, IDENTITY_FILE, STORE_DIRECTORY, check_secret, why_distrusted
from quorumvault.protocol.views import votes
from quorumvault.storage import layout
from quorumvault.storage.leveldb import CANNOT_BE_OPENED, LevelDBStore
from quorumvault.storage.leveldblog import LogScan, scan_logs
from quorumvault.storage.store import Store

#: Where logs are kept as they were, in a node's data directory.
TORN_DIRECTORY = "torn"
#: What is read, and written with one sync, at a time.
BATCH_BYTES = 8 << 20
#: More than a log has batches: it is 8 MiB long, one group of writes apart, and a batch takes some tens of bytes.
_BEYOND_A_LOG = 1 << 20

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cut:
    """What was done to a log: it has its first ``kept`` bytes now, and ``copy`` has the ``cut`` bytes behind them too.

    ``entries``: how many entries the torn write had, if its beginning was there.
    """

    log: Path
    kept: int
    cut: int
    entries: int | None
    copy: Path


@dataclass(frozen=True, slots=True)
class Recovery:
    """By node: what was cut, how many records and registers its store was given, or why it was left out."""

    cuts: Mapping[str, list[Cut]]
    added: Mapping[str, int]
    left_out: Mapping[str, str]
    records: int


def recover(nodes: Sequence[NodeConfig], tell: Tell) -> Recovery:
    """Cut torn tails off the stores of these nodes, and bring the stores to the same content. Can be repeated.

    ``tell`` hears what is being done. Raises RecoveryRefused if fewer than two disks can be used, ConfigError if a node runs,
    StorageFailed if a store cannot be written.
    """
    with ExitStack() as ending:
        identities, left_out = _voters(_lock(nodes, ending))
        _require_quorum(identities, left_out)
        cuts: dict[str, list[Cut]] = {}
        stores: dict[str, LevelDBStore] = {}
        for config in nodes:
            if (identity := identities.get(config.node)) is None:
                continue
            try:
                cuts[config.node] = cut_torn_tail(config.data_directory)
                store = ending.enter_context(closing(open_store(config, identity)))
                tell(f"{config.node}: reading all of its store")
                count_records(store)
                stores[config.node] = store
            except StorageFailed as error:
                left_out[config.node] = str(error)
        _require_quorum(stores, left_out)
        keyring = Keyring(nodes[0].cluster.secrets.master.id, nodes[0].master_secret)
        added = _unite(stores, keyring, tell)
        for config in nodes:
            if config.node in stores:
                _trust_again(config.data_directory, stores[config.node])
        return Recovery(cuts, added, left_out, count_records(next(iter(stores.values()))))


@dataclass(frozen=True, slots=True)
class _Found:
    node: str
    identity: DiskIdentity | None
    distrusted: str | None


def _lock(nodes: Sequence[NodeConfig], ending: ExitStack) -> Iterator[_Found]:
    for config in nodes:
        if not config.data_directory.is_dir():
            yield _Found(config.node, None, None)
            continue
        ending.enter_context(lock_data_directory(config.data_directory))
        yield _Found(config.node, identity_of(config), why_distrusted(config.data_directory))


def identity_of(config: NodeConfig) -> DiskIdentity | None:
    """None if there is none. Raises ConfigError for another cluster's, or another node's."""
    path = config.data_directory / IDENTITY_FILE
    identity = read_identity(path)
    if identity is not None and (identity.cluster_id, identity.node) != (config.cluster.cluster_id, config.node):
        raise ConfigError(path, "", f"expected the data of {config.node} of this cluster; this is another node's or cluster's")
    return identity


def _voters(found: Iterable[_Found]) -> tuple[dict[str, DiskIdentity], dict[str, str]]:
    """Those that may vote in the newest view, and why the others may not."""
    left_out: dict[str, str] = {}
    there: dict[str, DiskIdentity] = {}
    for each in found:
        if each.identity is None:
            left_out[each.node] = "its disk is not here"
        else:
            there[each.node] = each.identity
            if each.distrusted is not None and CANNOT_BE_OPENED not in each.distrusted:
                left_out[each.node] = f"it was distrusted: {each.distrusted}"
    views = [identity.view for identity in there.values() if identity.view is not None]
    newest = max(views, key=lambda view: view.id, default=None)
    voters: dict[str, DiskIdentity] = {}
    for node, identity in there.items():
        if node in left_out:
            continue
        if newest is None or not votes(identity.disk, identity.mode, identity.view):
            left_out[node] = "it has not been whole since it joined"
        elif not newest.lists(identity.disk):
            left_out[node] = f"another disk has taken its place, in view {newest.number}"
        else:
            voters[node] = identity
    return voters, left_out


def _require_quorum(usable: Mapping[str, object], left_out: Mapping[str, str]) -> None:
    if len(usable) < QUORUM:
        reasons = "; ".join(f"{node}: {reason}" for node, reason in sorted(left_out.items()))
        raise RecoveryRefused(
            f"{QUORUM} disks are needed to have all that was acknowledged, and {len(usable)} can be used ({reasons}); "
            f"bring another one here, or go on from one alone and lose what it does not have: --only NODE --accept-loss"
        )


def cut_torn_tail(data_directory: Path) -> list[Cut]:
    """Cut off what is behind the last whole batch of a store's logs. Raises StoreCorrupt, and cuts nothing, if more follows."""
    scans = scan_logs(data_directory / STORE_DIRECTORY)
    return [_cut(path, scan, data_directory / TORN_DIRECTORY) for path, scan in scans if scan.torn]


def _cut(path: Path, scan: LogScan, aside: Path) -> Cut:
    """The copy is durable before anything is cut."""
    aside.mkdir(mode=0o700, exist_ok=True)
    copy = next(place for number in itertools.count() if not (place := aside / f"{path.name}.{number}").exists())
    with path.open("rb") as log, copy.open("xb") as kept:
        os.fchmod(kept.fileno(), 0o600)
        shutil.copyfileobj(log, kept)
        kept.flush()
        os.fsync(kept.fileno())
    sync_directory(aside)
    sync_directory(aside.parent)
    with path.open("r+b") as log:
        log.truncate(scan.whole)
        os.fsync(log.fileno())
    return Cut(path, scan.whole, scan.torn, scan.torn_entries, copy)


def open_store(config: NodeConfig, identity: DiskIdentity) -> LevelDBStore:
    """Raises StorageFailed for a store that cannot be trusted, ConfigError if it is in use, or was made with another secret."""
    store = LevelDBStore.open(config.data_directory / STORE_DIRECTORY, identity.disk)
    try:
        check_secret(store, config)
    except BaseException:
        store.close()
        raise
    return store


def _trust_again(data_directory: Path, store: Store) -> None:
    """What was cut may have had numbers that peers remember of this disk: with less it would be taken for an old copy."""
    (held,) = store.get([layout.SEQUENCE_KEY])
    sequence = layout.decode_sequence(held) if isinstance(held, bytes) else 0
    store.write({layout.SEQUENCE_KEY: layout.encode_sequence(sequence + _BEYOND_A_LOG)})
    (data_directory / DISTRUSTED_FILE).unlink(missing_ok=True)
    sync_directory(data_directory)


def count_records(store: Store) -> int:
    """Reads all of it. Raises StorageFailed if there is a block that cannot be read."""
    return sum(key.startswith(layout.RECORD) for key, _ in pairs_of(store))


def pairs_of(store: Store) -> Iterator[tuple[bytes, bytes]]:
    """All that disks have in common, in the order of keys."""
    after, last = b"", False
    while not last:
        keys, values, last = read_piece(store, after, BATCH_BYTES)
        yield from zip(keys, values, strict=True)
        after = keys[-1] if keys else after


def _unite(stores: Mapping[str, Store], keyring: Keyring, tell: Tell) -> dict[str, int]:
    """One store gets what the others have, then the others what that one has; then nothing is left to give, or it has failed."""
    added = dict.fromkeys(stores, 0)
    first, *others = stores
    for source, sink in [(other, first) for other in others] + [(first, other) for other in others]:
        tell(f"{sink}: gets what {source} has and it has not")
        added[sink] += _pour(stores[source], stores[sink], keyring)
    for source, sink in [pair for other in others for pair in ((first, other), (other, first))]:
        tell(f"{sink}: compared with {source}")
        if _pour(stores[source], stores[sink], keyring):
            raise StorageFailed(f"the store of {sink} does not keep what is written to it")
    return added


def _pour(source: Store, sink: Store, keyring: Keyring) -> int:
    """How many pairs the sink lacked."""
    written, after, last = 0, b"", False
    while not last:
        keys, values, last = read_piece(source, after, BATCH_BYTES)
        staged = merge_piece(sink, keyring, keys, values)
        if staged:
            sink.write(staged)
            written += len(staged)
        after = keys[-1] if keys else after
    return written
