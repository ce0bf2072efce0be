"""The disks that an operator has at hand while no node runs: which disks count, and which are donors (recover.py).

Rules kept here: donors have no voice.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from quorumvault.config.cluster import NodeConfig
from quorumvault.errors import Refused, StorageFailed
from quorumvault.model import QUORUM
from quorumvault.ownership import hand_over
from quorumvault.protocol.donors import Donor, stands_in
from quorumvault.protocol.rollback_marks import NO_MARK, Mark, Marks, contradicts
from quorumvault.protocol.views import Mode, View, votes
from quorumvault.server.offline.torn import Cut, cut_torn_tail
from quorumvault.server.offline.unite import Tell, read_through
from quorumvault.server.storage.data_directory import (
    PUT_BACK,
    STORE_DIRECTORY,
    Cause,
    Untrusted,
    check_secret,
    identity_of,
    mark_untrusted,
    why_untrusted,
)
from quorumvault.server.storage.disk_identity import DiskIdentity, lock_data_directory
from quorumvault.server.storage.layout import read_marks, read_sequence
from quorumvault.server.storage.leveldb import CANNOT_BE_OPENED, LevelDBStore
from quorumvault.server.storage.leveldb_log import scan_logs
from quorumvault.server.storage.set_aside import SetAside, open_store_set_aside, stores_in, stores_set_aside


class Choice:
    """The disks that take no part, with the reason, and those that are known to be older copies."""

    def __init__(self, *, accept_older: bool) -> None:
        self._accept_older = accept_older
        self.left_out: dict[str, str] = {}
        self.older: dict[str, str] = {}

    def is_older(self, node: str, why: str) -> None:
        self.older[node] = why
        if not self._accept_older:
            self.left_out[node] = why

    def require_quorum(self, usable: Collection[str]) -> None:
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
class Disk:
    """A disk in its node's data directory. ``distrusted``: why its node does not use it; None if the node does."""

    config: NodeConfig
    identity: DiskIdentity
    distrusted: Untrusted | None

    @property
    def node(self) -> str:
        return self.config.node

    @property
    def torn(self) -> bool:
        """True if the node, or a recovery that did not end, found that the store does not open."""
        return self._found(Cause.CANNOT_BE_OPENED)

    @property
    def unreadable(self) -> bool:
        """True if the node found a block that cannot be read, and nothing worse."""
        return self._found(Cause.UNREADABLE) and not self._found(Cause.PUT_BACK)

    def _found(self, cause: Cause) -> bool:
        return self.distrusted is not None and cause in self.distrusted.causes


@dataclass(frozen=True, slots=True)
class Opened:
    """A disk with its open store: ``at`` is its own mark, ``remembers`` its marks of the others.

    ``gaps``: where the parts end that cannot be read. ``may_stand_in``: as SetAside has it.
    """

    store: LevelDBStore
    identity: DiskIdentity
    at: Mark
    remembers: Marks
    gaps: frozenset[bytes] = frozenset()
    may_stand_in: bool = False

    @property
    def donor(self) -> Donor:
        """What the protocol has to know of one that was active, and so is in a view."""
        assert self.identity.view is not None
        return Donor(self.identity.node, self.identity.disk, self.identity.view, self.at)


def lock(nodes: Sequence[NodeConfig], ending: ExitStack, choice: Choice) -> Iterator[Disk]:
    for config in nodes:
        identity = None
        if config.data_directory.is_dir():
            ending.callback(hand_over, config.data_directory)  # when the stores are closed: LevelDB makes files of root's
            ending.enter_context(lock_data_directory(config.data_directory))
            identity = identity_of(config)
        if identity is None:
            choice.left_out[config.node] = "its disk is not here"
        else:
            yield Disk(config, identity, why_untrusted(config.data_directory))


def donors_at_hand(nodes: Sequence[NodeConfig], named: Iterable[Path], found: Iterable[Disk]) -> dict[str, SetAside]:
    """By name, the disks that were set aside beside these nodes', those in ``named`` data directories, and those of ``found``.

    Raises Refused for a directory that has none, or one of another cluster.
    """
    asides = [aside for config in nodes for aside in stores_set_aside(config)]
    for home in named:
        here = stores_in(home.absolute(), None)
        if not here or any(aside.identity.cluster_id != nodes[0].cluster.cluster_id for aside in here):
            raise Refused(f"{home}: expected the data directory of a disk of this cluster")
        asides += here
    donors = {str(aside.home or aside.store): aside for aside in asides}
    for disk in found:
        donors[disk.node] = SetAside(disk.config.data_directory / STORE_DIRECTORY, disk.identity, disk.distrusted, None)
    return donors


def newest_view(identities: Iterable[DiskIdentity]) -> View | None:
    views = [identity.view for identity in identities if identity.view is not None]
    return max(views, key=lambda view: view.id, default=None)


def voters_among(found: Sequence[Disk], newest: View | None, choice: Choice) -> dict[str, Disk]:
    """Return the disks that may vote in the newest view. For the others, note the reason in ``choice``."""
    for disk in found:
        identity = disk.identity
        if newest is None or not votes(identity.disk, identity.mode, identity.view):
            choice.left_out[disk.node] = "it has not been whole since it joined"
        elif not newest.lists(identity.disk):
            choice.left_out[disk.node] = f"another disk has taken its place, in view {newest.number}"
        elif disk.distrusted is not None and not disk.distrusted.only_damage:
            why = f"it was distrusted: {disk.distrusted.words}"
            if Cause.PUT_BACK in disk.distrusted.causes:
                choice.is_older(disk.node, why)
            else:
                choice.left_out[disk.node] = why
    return {disk.node: disk for disk in found if disk.node not in choice.left_out}


def open_voters(voters: Iterable[Disk], ending: ExitStack, choice: Choice) -> tuple[dict[str, list[Cut]], dict[str, Opened]]:
    """Cut the torn ones, and open all that open. For the others, note the reason in ``choice``."""
    cuts: dict[str, list[Cut]] = {}
    opened: dict[str, Opened] = {}
    for disk in voters:
        try:
            _note_torn(disk)
            cuts[disk.node] = cut_torn_tail(disk.config.data_directory)
            with ExitStack() as opening:
                store = opening.enter_context(closing(open_store(disk.config, disk.identity)))
                at = Mark(disk.identity.incarnation, read_sequence(store))
                opened[disk.node] = Opened(store, disk.identity, at, read_marks(store))
                ending.enter_context(opening.pop_all())
        except StorageFailed as error:
            choice.left_out[disk.node] = str(error)
    return cuts, opened


def open_donors(donors: Mapping[str, SetAside], ending: ExitStack, tell: Tell) -> dict[str, Opened]:
    """Open and read all that open. Marks only grow, so one that a stale disk remembers still holds."""
    opened: dict[str, Opened] = {}
    for name, aside in donors.items():
        try:
            store = open_store_set_aside(aside, ending)
            at = Mark(aside.identity.incarnation, read_sequence(store))
            remembers = read_marks(store)
        except StorageFailed as error:
            tell(f"{name}: nothing can be taken from it: {error}")
            continue
        tell(f"{name}: reading all of its store")
        gaps = read_through(store).gaps
        opened[name] = Opened(store, aside.identity, at, remembers, gaps, aside.may_stand_in)
    return opened


def usable_among(opened: Mapping[str, Opened], memory: Mapping[str, Marks], choice: Choice, tell: Tell) -> dict[str, Opened]:
    """Read the disks. Return those that hold all that others remember of them, or are accepted as older."""
    read: dict[str, Opened] = {}
    for node, each in opened.items():
        tell(f"{node}: reading all of its store")
        read[node] = replace(each, gaps=read_through(each.store).gaps)
        if witnesses := _witnesses(node, each, memory):
            remember = "remembers" if len(witnesses) == 1 else "remember"
            choice.is_older(
                node, f"{' and '.join(witnesses)} {remember} more of it than it holds: {PUT_BACK}, or its last writes are gone"
            )
    return {node: each for node, each in read.items() if node not in choice.left_out}


def standing_in(
    donors: Mapping[str, Opened], usable: Mapping[str, Opened], newest: View, memory: Mapping[str, Marks]
) -> dict[str, Opened]:
    """The donors that count as one of three beside the usable disks: at most one of a node, and none of a node that has one."""
    joining = {each.identity.disk for each in donors.values() if each.identity.mode is Mode.JOINING}
    remembered = [each.remembers for each in usable.values()]
    found: dict[str, Opened] = {}
    for name, each in donors.items():
        node, holder = each.identity.node, newest.disks[each.identity.node]
        taken = {*usable, *(other.identity.node for other in found.values())}
        if node in taken or not each.may_stand_in or _witnesses(name, each, memory):
            continue
        listed = holder == each.identity.disk
        if listed or (holder in joining and usable and stands_in(each.donor, newest, remembered)):
            found[name] = each
    return found


def _witnesses(name: str, each: Opened, memory: Mapping[str, Marks]) -> list[str]:
    """The disks whose marks are ahead of this disk."""
    disk, at = each.identity.disk, each.at
    told = ((other, marks.get(disk, NO_MARK)) for other, marks in sorted(memory.items()) if other != name)
    return [other for other, mark in told if contradicts(mark, at, at.sequence)]


def _note_torn(disk: Disk) -> None:
    """Mark a torn store as untrusted before it is cut: it opens again then, and must not vote before the stores are united."""
    directory = disk.config.data_directory
    if disk.distrusted is None and any(scan.torn for _, scan in scan_logs(directory / STORE_DIRECTORY)):
        mark_untrusted(directory, f"{CANNOT_BE_OPENED}: the end of a log was torn, and a recovery that cut it off did not end")


def open_store(config: NodeConfig, identity: DiskIdentity) -> LevelDBStore:
    """Raises StorageFailed for a store that cannot be trusted, ConfigError if it is in use, or was made with another secret."""
    store = LevelDBStore.open(config.data_directory / STORE_DIRECTORY, identity.disk)
    try:
        check_secret(store, config)
    except BaseException:
        store.close()
        raise
    return store
