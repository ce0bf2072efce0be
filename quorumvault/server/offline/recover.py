"""Recover a cluster of which too few disks open for the others to be copied from. Run by an operator, with all nodes stopped.

A power cut may leave other bytes where the last batch of a store's log should be, and then LevelDB refuses to open the store
(storage/leveldb_log.py has the table). One such disk is copied anew from the two others (rejoin). If it hit two or all three at
once there is nobody to copy from. Then:

    cut      after the last whole batch of a log, unless later batches follow (storage/leveldb_log.py); a copy is kept aside
    read     all of each store; one that cannot be read to its end is left out
    compare  how far each disk is with what the others here remember of it (rollback_marks.py); one that is behind is left out
    unite    every store gets what it lacks of the others, synced: what was torn on one disk may be whole on another
    trust    the note that it could not be opened is removed; its mark passes all that others can remember of it

What was torn had not been synced, so nobody was told that it stands. But a last batch that was acknowledged and has rotted since
looks the same. What is known about that, and what is not:

- A disk that another one here remembers more of has lost acknowledged writes, by rot or because it was put back from an older
  copy. It takes no part, and joins anew when the others run. All disks here are asked, those that are left out too.
- Memory is written within 0.1 s (docs/decisions/0011), and a disk that is elsewhere is not asked. So a loss may stay unseen. An
  acknowledged record is on two disks, and stays unless both lost it: with all three here one disk may have lost its last batch
  unseen. With two it may not, since the record may be on the third and nowhere else. ``Recovery.in_doubt`` says where that is so.
- A mark that has passed all memory hides from a disk elsewhere what it could have proved. So it is raised only on a disk that
  was torn, or is accepted as an older copy: any other is still found out when that one comes.

Only disks that may vote take part: active, listed in the newest view that any of those at hand is in, and distrusted for no other
reason than that they could not be opened. The others are left as they are. An operator who has put machines back from older
copies may have these take part too (``accept_older``): then what was acknowledged after the copies were taken is gone, unless
another disk here has it.

Rules kept here: two lost disks need an operator.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from quorumvault import durable
from quorumvault.config.cluster import NodeConfig
from quorumvault.crypto.keys import Keyring
from quorumvault.errors import Refused, StorageFailed
from quorumvault.model import NODE_NAMES, QUORUM
from quorumvault.ownership import hand_over
from quorumvault.protocol.rollback_marks import NO_MARK, Mark, Marks, contradicts, grown
from quorumvault.protocol.views import votes
from quorumvault.server.replica.copy import merge_piece, pieces_of
from quorumvault.server.replica.owners import OwnerNames
from quorumvault.server.storage import layout
from quorumvault.server.storage.data_directory import (
    IDENTITY_FILE,
    PUT_BACK,
    STORE_DIRECTORY,
    UNTRUSTED_FILE,
    Cause,
    Untrusted,
    check_secret,
    identity_of,
    mark_untrusted,
    why_untrusted,
)
from quorumvault.server.storage.disk_identity import DiskIdentity, lock_data_directory, write_identity
from quorumvault.server.storage.layout import read_marks, read_sequence
from quorumvault.server.storage.leveldb import CANNOT_BE_OPENED, LevelDBStore
from quorumvault.server.storage.leveldb_log import LogScan, scan_logs
from quorumvault.server.storage.store import Store

#: Where logs are kept as they were, in a node's data directory.
TORN_DIRECTORY = "torn"
#: More than a disk writes between any copy of it and today, thousands a second for years; and more often than it is started.
_BEYOND_MEMORY = Mark(incarnation=1 << 20, sequence=1 << 40)

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cut:
    """A log that was cut: it keeps its first ``kept`` bytes. ``copy`` is a file that has the ``cut`` bytes after them too.

    ``entries`` is the number of entries in the torn write; None if its beginning is missing.
    """

    log: Path
    kept: int
    cut: int
    entries: int | None
    copy: Path


@dataclass(frozen=True, slots=True)
class Recovery:
    """By node: ``cuts``; ``added``, the records and registers that its store was given; ``left_out``, why it took no part.

    ``older`` says why a disk is known to be an older copy; it took part since the operator accepted that. ``in_doubt`` names the
    nodes whose log was cut while a disk was absent: if the cut write was acknowledged and rotted since, that disk may have it.
    ``records`` is the number of records on each disk afterwards.
    """

    cuts: Mapping[str, list[Cut]]
    added: Mapping[str, int]
    left_out: Mapping[str, str]
    older: Mapping[str, str]
    in_doubt: Sequence[str]
    records: int


def recover(nodes: Sequence[NodeConfig], tell: Tell, *, accept_older: bool = False) -> Recovery:
    """Cut torn tails off the stores of these nodes, and bring the stores to the same content. Can be repeated.

    ``tell`` hears what is being done. Raises Refused if fewer than two disks can be used, ConfigError if a node runs,
    StorageFailed if a store cannot be written. After an error no disk votes that was cut.
    """
    with ExitStack() as ending:
        choice = _Choice(accept_older=accept_older)
        found = list(_lock(nodes, ending, choice))
        voters = _voters(found, choice)
        choice.require_quorum(voters)
        cuts: dict[str, list[Cut]] = {}
        opened: dict[str, _Opened] = {}
        for disk in voters.values():
            try:
                _note_torn(disk)
                cuts[disk.node] = cut_torn_tail(disk.config.data_directory)
                store = ending.enter_context(closing(open_store(disk.config, disk.identity)))
                at = Mark(disk.identity.incarnation, read_sequence(store))
                opened[disk.node] = _Opened(store, disk.identity.disk, at, read_marks(store))
            except StorageFailed as error:
                choice.left_out[disk.node] = str(error)
        others = [disk for disk in found if disk.node not in voters]
        memory = {node: each.remembers for node, each in opened.items()} | _ask(others, ending)
        usable = _usable(opened, memory, choice, tell)
        choice.require_quorum(usable)
        keyring = Keyring(nodes[0].cluster.secrets.master.id, nodes[0].master_secret)
        added = _unite({node: each.store for node, each in usable.items()}, keyring, tell)
        torn = [node for node in usable if cuts[node] or voters[node].torn]
        older = {node: why for node, why in choice.older.items() if node in usable}
        for node in usable:
            if node in torn or node in older:
                _trust_again(voters[node], usable[node], memory.values())
        in_doubt = torn if len(usable) < len(NODE_NAMES) else []
        records = count_records(next(iter(usable.values())).store)
        return Recovery(cuts, added, choice.left_out, older, in_doubt, records)


class _Choice:
    """The disks that take no part, with the reason, and those that are known to be older copies."""

    def __init__(self, *, accept_older: bool) -> None:
        self._accept_older = accept_older
        self.left_out: dict[str, str] = {}
        self.older: dict[str, str] = {}

    def is_older(self, node: str, why: str) -> None:
        self.older[node] = why
        if not self._accept_older:
            self.left_out[node] = why

    def require_quorum(self, usable: Mapping[str, object]) -> None:
        if len(usable) >= QUORUM:
            return
        reasons = "; ".join(f"{node}: {reason}" for node, reason in sorted(self.left_out.items()))
        unite = ""
        if not self._accept_older and len(usable) + len(self.older) >= QUORUM:
            unite = (
                "or unite these older copies, and lose what was acknowledged after they were taken and is on no disk here: "
                "--accept-older; "
            )
        raise Refused(
            f"{QUORUM} disks are needed to have all that was acknowledged, and {len(usable)} can be used ({reasons}); "
            f"bring another one here; {unite}or go on from one alone and lose what it does not have: --only NODE --accept-loss"
        )


@dataclass(frozen=True, slots=True)
class _Disk:
    """One that is here. ``distrusted``: why its node does not use it, None if it does."""

    config: NodeConfig
    identity: DiskIdentity
    distrusted: Untrusted | None

    @property
    def node(self) -> str:
        return self.config.node

    @property
    def torn(self) -> bool:
        """True if the node, or a recovery that did not end, found that the store does not open."""
        return self.distrusted is not None and Cause.CANNOT_BE_OPENED in self.distrusted.causes


class _Opened(NamedTuple):
    """A disk with its open store: ``at`` is its own mark, ``remembers`` its marks of the others."""

    store: LevelDBStore
    disk: bytes
    at: Mark
    remembers: Marks


def _lock(nodes: Sequence[NodeConfig], ending: ExitStack, choice: _Choice) -> Iterator[_Disk]:
    for config in nodes:
        identity = None
        if config.data_directory.is_dir():
            ending.callback(hand_over, config.data_directory)  # when the stores are closed: LevelDB makes files of root's
            ending.enter_context(lock_data_directory(config.data_directory))
            identity = identity_of(config)
        if identity is None:
            choice.left_out[config.node] = "its disk is not here"
        else:
            yield _Disk(config, identity, why_untrusted(config.data_directory))


def _voters(found: Sequence[_Disk], choice: _Choice) -> dict[str, _Disk]:
    """Return the disks that may vote in the newest view. For the others, note the reason in ``choice``."""
    views = [disk.identity.view for disk in found if disk.identity.view is not None]
    newest = max(views, key=lambda view: view.id, default=None)
    for disk in found:
        identity = disk.identity
        if newest is None or not votes(identity.disk, identity.mode, identity.view):
            choice.left_out[disk.node] = "it has not been whole since it joined"
        elif not newest.lists(identity.disk):
            choice.left_out[disk.node] = f"another disk has taken its place, in view {newest.number}"
        elif disk.distrusted is not None and not disk.torn:
            why = f"it was distrusted: {disk.distrusted.words}"
            if Cause.PUT_BACK in disk.distrusted.causes:
                choice.is_older(disk.node, why)
            else:
                choice.left_out[disk.node] = why
    return {disk.node: disk for disk in found if disk.node not in choice.left_out}


def _note_torn(disk: _Disk) -> None:
    """Mark a torn store as untrusted before it is cut: it opens again then, and must not vote before the stores are united."""
    directory = disk.config.data_directory
    if disk.distrusted is None and any(scan.torn for _, scan in scan_logs(directory / STORE_DIRECTORY)):
        mark_untrusted(directory, f"{CANNOT_BE_OPENED}: the end of a log was torn, and a recovery that cut it off did not end")


def _ask(others: Iterable[_Disk], ending: ExitStack) -> dict[str, Marks]:
    """Read the marks of the disks that take no part, as far as their stores open. Marks only grow, so a stale one still holds."""
    memory: dict[str, Marks] = {}
    for disk in others:
        with suppress(StorageFailed):
            store = LevelDBStore.open(disk.config.data_directory / STORE_DIRECTORY, disk.identity.disk)
            memory[disk.node] = read_marks(ending.enter_context(closing(store)))
    return memory


def _usable(opened: Mapping[str, _Opened], memory: Mapping[str, Marks], choice: _Choice, tell: Tell) -> dict[str, _Opened]:
    """Return the disks that can be read to their end and hold all that others remember of them, or are accepted as older."""
    for node, each in opened.items():
        tell(f"{node}: reading all of its store")
        try:
            count_records(each.store)
        except StorageFailed as error:
            choice.left_out[node] = str(error)
            continue
        if witnesses := [
            other
            for other, marks in sorted(memory.items())
            if other != node and contradicts(marks.get(each.disk, NO_MARK), each.at, each.at.sequence)
        ]:
            remember = "remembers" if len(witnesses) == 1 else "remember"
            choice.is_older(
                node, f"{' and '.join(witnesses)} {remember} more of it than it holds: {PUT_BACK}, or its last writes are gone"
            )
    return {node: each for node, each in opened.items() if node not in choice.left_out}


def cut_torn_tail(data_directory: Path) -> list[Cut]:
    """Cut off what is behind the last whole batch of a store's logs. Raises StoreCorrupt, and cuts nothing, if more follows."""
    scans = scan_logs(data_directory / STORE_DIRECTORY)
    return [_cut(path, scan, data_directory / TORN_DIRECTORY) for path, scan in scans if scan.torn]


def _cut(path: Path, scan: LogScan, aside: Path) -> Cut:
    """The copy is durable before anything is cut."""
    aside.mkdir(mode=0o700, exist_ok=True)
    copy = next(place for number in itertools.count() if not (place := aside / f"{path.name}.{number}").exists())
    durable.copy(path, copy)
    durable.sync_directory(aside.parent)
    durable.extend(path, scan.whole)
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


def _trust_again(disk: _Disk, opened: _Opened, memory: Iterable[Marks]) -> None:
    """Raise the disk's mark beyond all marks of it, then trust it: with a lower one its peers would take it for an older copy."""
    held = opened.at
    for marks in memory:
        held = grown(held, marks.get(opened.disk, NO_MARK))
    sequence = held.sequence + _BEYOND_MEMORY.sequence
    opened.store.write({layout.SEQUENCE_KEY: layout.encode_sequence(sequence)})
    directory = disk.config.data_directory
    started = replace(disk.identity, incarnation=held.incarnation + _BEYOND_MEMORY.incarnation)
    write_identity(directory / IDENTITY_FILE, started)
    (directory / UNTRUSTED_FILE).unlink(missing_ok=True)
    durable.sync_directory(directory)


def count_records(store: Store) -> int:
    """Reads all of it. Raises StorageFailed if there is a block that cannot be read."""
    return sum(key.startswith(layout.RECORD) for key, _ in pairs_of(store))


def pairs_of(store: Store) -> Iterator[tuple[bytes, bytes]]:
    """Yield all records, registers and names of owners of a store, in the order of keys."""
    for keys, values in pieces_of(store):
        yield from zip(keys, values, strict=True)


def _unite(stores: Mapping[str, Store], keyring: Keyring, tell: Tell) -> dict[str, int]:
    """Copy from all stores into the first, then from it into all others, and check that nothing is left to copy."""
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
    """Merge the source into the sink. Returns the number of pairs that the sink lacked."""
    written, owners = 0, OwnerNames(sink)
    for keys, values in pieces_of(source):
        staged = merge_piece(sink, owners, keyring, keys, values)
        if staged:
            sink.write(staged)
            written += len(staged)
    return written
