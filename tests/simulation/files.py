"""Nodes whose disks are real data directories, with a real LevelDB store and a real disk.json; everything else is simulated.

    a crash       leaves what was synced and a part of what was not (data_directories.py); some crashes tear the log
    a start       is the real one: it opens the store, salvages it, or finds that the disk is lost. In the last case the node gets
                  a new disk, which joins. Power may fail between the steps of a start (power_cuts.py)
    damage        file_faults.py
    healing       a node that finds a bad block gives its disk up, is salvaged, and reads what it lost from the others
Only one disk at a time is damaged or lost, and the next one only when everything is mended: the promise goes no further
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from traceback import clear_frames
from typing import Any, Final, TypeVar
from unittest import mock

from msgspec import structs

from chaos.testbed.history import History
from chaos.testbed.violation import Violation
from quorumvault.config.cluster import NodeConfig, parse_cluster
from quorumvault.errors import ConfigError, NoRoom, StorageFailed, StoreCorrupt
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.views import Mode
from quorumvault.server.healing.healer import Healer, HealerCallbacks
from quorumvault.server.healing.join import Rejoin
from quorumvault.server.healing.old_disk import OldDisk, find_old_disk
from quorumvault.server.healing.requests import NoAnswer, Storage
from quorumvault.server.healing.scrub import Neighbours
from quorumvault.server.storage import data_directory, layout, leveldb
from quorumvault.server.storage.data_directory import (
    NodeDisk,
    check_secret,
    create_replacement,
    make_disk,
    mark_untrusted,
    quarantine,
)
from quorumvault.server.storage.disk_identity import DiskIdentity
from tests.rigs.healing import Diary
from tests.simulation import file_faults, losses
from tests.simulation.comparing import learn_settled
from tests.simulation.data_directories import FilesDisk
from tests.simulation.disks import Disk
from tests.simulation.faults import Fault, Mend
from tests.simulation.nodes import Cluster, Node, Process, boot_nonce
from tests.simulation.power_cuts import PowerCut, PowerCuts
from tests.simulation.rejoining import Rejoining
from tests.simulation.timeline import drive
from tests.simulation.world import SECRET, Run, Scenario, World, judged, scenario

T = TypeVar("T")

#: Nobody reads what nodes log about their disks.
logging.getLogger("quorumvault").addHandler(logging.NullHandler())

_CLUSTER: Final = parse_cluster(
    Path("/nowhere/cluster.yaml"),
    "cluster_id: simulated\nsecrets: {master: {id: m1, file: master}}\nnodes:\n"
    + "".join(f"  n{n}: {{api: '127.0.0.1:700{n}', peer: '127.0.0.1:710{n}'}}\n" for n in (1, 2, 3)),
)
#: A place where a sync costs nothing, if there is one.
_MEMORY: Final = Path("/dev/shm")
#: The block size of tables in bytes, the same on all disks of a run: LevelDB's minimum is the first.
_BLOCKS: Final = (1_024, 1_024, 2_048)
#: Seconds after which an ended process is started again, and how often it may end during its start.
_RESTART, _STARTS = 0.2, 3
#: The share of the disks given up for good that their operator sets aside on the same host.
_ASIDE: Final = 0.5
#: The share of crashes in the middle of a write that tear the log, if the log may be torn.
_TORN: Final = 0.3
#: Seconds between two turns of a healing loop; the time of the last turn; and the same time while a disk is not sound.
_TURN, _UNTIL, _UNTIL_SOUND = 0.25, 10.0, 60.0
#: A peer has heard of damage after twice this time.
_SILENCE: Final = 0.25


class _Died(Exception):
    """The process died during this work."""


@dataclass(eq=False)
class FilesNode(Node):
    """``disk`` is the disk that the process has, or would have; ``home`` is the one in the data directory, trusted or not."""

    root: Path = field(kw_only=True)
    may_tear: Callable[[], bool] = field(kw_only=True, default=lambda: False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dice = Random(self.comparing.getrandbits(64))
        self._places = 0
        #: The numbers of steps after which power fails during the next works on the data directory.
        self.cuts: list[int] = []
        #: Whether the data directory is elsewhere, as when a volume is not mounted.
        self.away = False
        #: The id of the disk that is being made in place of a lost one.
        self._replacing = b""
        #: Old disks that the node's processes hold open.
        self.opened: dict[Process, OldDisk] = {}
        self._make_home(self.disk.identity)

    def _make_home(self, identity: DiskIdentity) -> None:
        """Makes a disk as ``init`` does, in its own data directory."""
        self._places += 1
        data = self.root / f"host{self._places}"
        self.config = NodeConfig(replace(_CLUSTER, data=data), self.name, SECRET)
        self.config.data_directory.mkdir(parents=True)
        self.disk = self.home = self._disk(identity)
        with closing(make_disk(self.config.data_directory, identity)) as store:
            check_secret(store, self.config)
            self.home.stored = dict(store.scan(b""))

    def _disk(self, identity: DiskIdentity) -> FilesDisk:
        disk = FilesDisk(self.config, identity, self.dice)
        disk.tears = lambda: self.dice.random() < _TORN and self.may_tear()
        disk.refused = self.start_soon
        return disk

    def lose_disk(self, disk: bytes) -> None:
        """The operator gives the node a new disk: on another host, or with the old disk set aside."""
        self.crash()
        self.former.append(self.home)
        self.cuts.clear()
        if not self.home.there and self.dice.random() < _ASIDE:
            quarantine(self.config.data_directory)
        self._make_home(replace(self.home.identity, disk=disk, incarnation=0, mode=Mode.JOINING, view=None))

    def start(self) -> None:
        """Starts the node as a service manager does: again, if it ends because of its store."""
        for _ in range(_STARTS):
            try:
                super().start()
            except StoreCorrupt as failure:
                mark_untrusted(self.config.data_directory, str(failure))
                self.home.close()
                self.process = None
            else:
                return
        raise Violation("start", f"{self.name} does not start")

    def open_disk(self) -> bool:
        for _ in range(_STARTS):
            try:
                found = self.cut_short(lambda: data_directory.open_disk(self.config))
            except (PowerCut, NoRoom) as cause:
                self.branches[f"a start that ends: {type(cause).__name__}"] += 1
                self.start_soon()
                return False
            except ConfigError as cause:
                raise Violation("start", f"{self.name} does not start: {cause}") from cause
            except StorageFailed:
                self.branches["a store that is refused"] += 1
            else:
                self._use(found)
                return True
        raise Violation("start", f"{self.name} does not start")

    def start_soon(self) -> None:
        self.timeline.at(self.timeline.now + _RESTART, None, self.start)

    def cut_short(self, work: Callable[[], T]) -> T:
        """Does work on the data directory that takes several steps. Raises PowerCut if the power fails meanwhile."""
        with ExitStack() as stack:
            stack.enter_context(mock.patch("os.urandom", self.dice.randbytes))
            if self.cuts:
                stack.enter_context(PowerCuts(self.cuts.pop(0), self.dice).wired())
            try:
                return work()
            except BaseException as error:
                clear_frames(error.__traceback__)  # this closes the stores that are open there
                raise

    def _use(self, found: NodeDisk) -> None:
        if found.store is None:
            if self.home.harm is None and not self.away:
                raise Violation("files", f"{self.name} gives up a disk that nothing happened to: {found.problem}")
            self.branches["a disk that is lost" if found.replaceable else "a disk that is away"] += 1
            self._leave(self.home)
            self.disk = self._disk(found.identity)
            self.disk.may_join = found.replaceable
            return
        if found.identity.disk != self.home.identity.disk:
            self._find_replacement(found)
        elif self.home.harm is None:
            self.home.opened(found.store, found.identity)
        else:
            shadow = Disk(self.home.identity, stored=self.home.stored, rotten=set(self.home.rotten))
            self.home.opened(found.store, found.identity)
            self.former.append(shadow)
        self.branches["a store with gaps"] += any(key.startswith(layout.GAP) for key in self.home.stored)
        self.disk = self.home
        self.former = [disk for disk in self.former if disk is not self.home]

    def _find_replacement(self, found: NodeDisk) -> None:
        """A replacement was made, and the process died before it learned of that."""
        if found.store is None or found.identity.disk != self._replacing or found.identity.mode is not Mode.JOINING:
            raise Violation("identity", f"{self.name} starts with a disk that is not its own: {found.identity}")
        self._leave(self.home)
        self.home = self._disk(found.identity)
        self.home.take(found.store, found.identity)

    def _leave(self, disk: FilesDisk) -> None:
        if disk not in self.former:
            self.former.append(disk)

    def replace_lost(self, process: Process) -> None:
        """Makes a new disk as a node with a lost disk does when it rejoins. Raises PowerCut."""
        disk = process.disk
        assert isinstance(disk, FilesDisk)
        self._replacing = disk.identity.disk
        identity, store = self.cut_short(lambda: create_replacement(self.config, disk.identity))
        disk.take(store, identity)
        self.home = disk
        process.take_disk()
        learn_settled(process, self.comparing)

    def end(self, process: Process) -> None:
        super().end(process)
        if (old := self.opened.pop(process, None)) is not None:
            old.ending.close()

    def close(self) -> None:
        """Closes all disks when the run is over."""
        for process in (self.process, *self.left_behind):
            if process is not None and isinstance(process.disk, FilesDisk):
                process.disk.close()
        for old in self.opened.values():
            old.ending.close()


class Files(Rejoining):
    """Attaches to each process the healer that repairs its disk."""

    def __init__(self, world: World, seed: int) -> None:
        #: Faults that have begun and may still take a disk.
        self._losing: set[Fault] = set()
        self._healers: dict[str, tuple[Process, Healer]] = {}
        self._seed = seed
        for node in world.cluster.values():
            assert isinstance(node, FilesNode)
            node.may_tear = lambda: self.sound and not self._losing
        super().__init__(world)

    @property
    def _nodes(self) -> list[FilesNode]:
        return [node for node in self._cluster.values() if isinstance(node, FilesNode)]

    @property
    def sound(self) -> bool:
        """Whether all disks are active and no damage is left on any of them."""
        return losses.whole(self._cluster) and all(node.home.mended() and not node.away for node in self._nodes)

    @property
    def settled(self) -> bool:
        return super().settled and self.sound

    def begin_fault(self, fault: Fault, cluster: Cluster) -> Mend:
        if fault.kind not in file_faults.KINDS and fault.kind not in losses.LOSSES:
            return super().begin_fault(fault, cluster)
        if not self.sound or self._losing:
            return lambda: None
        self._losing.add(fault)
        kind = file_faults.KINDS.get(fault.kind)
        if kind is None:
            mend: Mend = super().begin_fault(fault, cluster)
        else:
            node = cluster[NODE_NAMES[fault.dice % 3]]
            assert isinstance(node, FilesNode)
            node.branches[fault.kind] += 1
            mend = kind(node, Random(fault.dice))

        def mended() -> None:
            mend()
            self._losing.discard(fault)

        return mended

    def _begin(self, process: Process) -> None:
        super()._begin(process)
        process.node.timeline.at(process.node.timeline.now, process.schedule, self._heal, process)

    def _joins(self, process: Process) -> bool:
        return super()._joins(process) and process.disk.may_join

    def _rejoin(self, process: Process) -> Rejoin:
        rejoin, node = super()._rejoin(process), process.node
        assert isinstance(node, FilesNode)

        def find_old() -> OldDisk | None:
            found = find_old_disk(node.config)
            if found is not None:
                node.branches["an old disk that is found"] += 1
                node.opened[process] = found
            return found

        rejoin.find_old = find_old
        return rejoin

    async def _prepare(self, process: Process) -> Storage:
        node = process.node
        assert isinstance(node, FilesNode)
        if not process.disk.there:
            try:
                node.replace_lost(process)
            except PowerCut:
                node.branches["power cut in a replacement"] += 1
                node.end(process)
                node.start_soon()
                raise _Died from None
            node.branches["a lost disk is replaced"] += 1
        return process.storage

    def _ended(self, _: object, error: Exception | None) -> None:
        if not isinstance(error, _Died):
            super()._ended(_, error)

    def _heal(self, process: Process) -> None:
        """Heals from the moment when the process's disk is active, as a node does."""
        node, timeline = process.node, process.node.timeline
        if not process.disk.there or process.disk.identity.mode is not Mode.ACTIVE:
            if timeline.now < _UNTIL_SOUND:
                timeline.at(timeline.now + _TURN, process.schedule, self._heal, process)
            return
        assert isinstance(node, FilesNode)
        if not process.replica.gaps.count:
            data_directory.remove_quarantined(node.config.data_directory)
        healer = self._healer(node, process)
        self._healers[node.name] = process, healer
        process.observer.missed = healer.handoff.missed
        process.observer.leaves = healer.anti_entropy.left_over
        for once in (healer.handoff.once, healer.anti_entropy.once, healer.scrub.once):
            self._repeat(process, once)

    def _healer(self, node: FilesNode, process: Process) -> Healer:
        knobs = node.knobs
        around = HealerCallbacks(
            name=node.name,
            disk=lambda: process.disk.identity.disk,
            nonce=b"heal" + process.boot,
            peers=process.lines,
            view=lambda: process.coordinator.view,
            neighbours=lambda: self._neighbours(node),
            room_beside=lambda: not process.disk.nearly_full,
            announce=lambda: None,
            give_up=lambda why: self._give_up_disk(node, process, why),
            wall_ms=node.wall_ms,
            rng=Random(f"{self._seed} {node.name} {boot_nonce(node.starts)!r}"),
        )
        return Healer(around, process.storage, knobs.healing, structs.replace(knobs.timeouts, silence=_SILENCE), Diary())

    def _neighbours(self, node: FilesNode) -> Neighbours:
        others = [other for other in self._nodes if other is not node]
        active = [other for other in others if other.process is not None and other.identity.mode is Mode.ACTIVE]
        alive = [other for other in others if other.process is not None]
        damaged = {
            name
            for name, (process, healer) in self._healers.items()
            if process.schedule.alive and healer.scrub.damage is not None
        }
        return Neighbours(
            len(active) == len(others), frozenset(damaged - {node.name}), len(active) == 1 and len(alive) == len(others)
        )

    def _give_up_disk(self, node: FilesNode, process: Process, why: str) -> None:
        if node.home.harm is None:
            raise Violation("scrub", f"{node.name} gives up a disk that nothing happened to: {why}")
        node.branches["a damaged store is given up"] += 1
        mark_untrusted(node.config.data_directory, why)
        node.end(process)
        node.start_soon()

    def _repeat(self, process: Process, once: Callable[[], Coroutine[Any, Any, None]]) -> None:
        timeline = process.node.timeline

        def again(_: object = None, error: Exception | None = None) -> None:
            if error is not None and not isinstance(error, NoAnswer):
                raise error
            if timeline.now < (_UNTIL if self.sound else _UNTIL_SOUND):
                timeline.at(timeline.now + _TURN, process.schedule, lambda: drive(once(), again))

        again()

    def check(self) -> None:
        """In calm all disks become whole, and are still whole after a restart of all nodes."""
        if losses.whole(self._cluster) and not self.sound:
            raise Violation("files", f"not all is mended: {[(node.name, node.home.harm) for node in self._nodes]}")
        super().check()
        for node in self._nodes:
            node.crash()
        for node in self._nodes:
            node.start()
        self._world.timeline.run(self._world.timeline.now + _TURN)


def filing(seed: int) -> Scenario:
    """The seed's scenario, with faults in files and lost disks."""
    chosen = scenario(seed)
    kept = [fault for fault in chosen.faults if fault.kind != "rot"]
    harms = file_faults.plan(Random(f"files {seed}"))
    return replace(chosen, faults=tuple(sorted((*kept, *harms), key=lambda fault: fault.begins)))


def run_files(chosen: Scenario) -> Run:
    """Runs as run_rejoining does, on real data directories."""
    blocks = mock.patch.dict(leveldb._OPTIONS, block_size=Random(f"blocks {chosen.seed}").choice(_BLOCKS))
    with tempfile.TemporaryDirectory(prefix="simulated-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder, blocks:
        root = Path(folder)

        def make(name: str, *lasting: Any) -> FilesNode:
            return FilesNode(name, *lasting, root=root / name)

        try:
            world = World(chosen, lambda fault, cluster: files.begin_fault(fault, cluster), make=make)
        except Violation as found:  # by the first start of a node
            return Run(chosen, History([]), "", 0.0, 0, Counter(), found)
        files = Files(world, chosen.seed)
        done = judged(world, world.play, files.check, world.check, world.read_everything, world.check)
        for node in world.cluster.values():
            assert isinstance(node, FilesNode)
            node.close()
        return done
