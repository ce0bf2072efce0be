"""Disks that are put back from older copies, while clients ask, other disks are lost and other faults happen.

    copy       somebody copies a node's disk while the node runs
    put back   later the node dies and starts from the copy: under the same identity, and without what it acknowledged since
    standing   no process votes before one peer has told it what that peer remembers, and the other peer has too, or is late
               (standing.py)
    given up   a node gives its disk up if a peer remembers more of it; an empty disk replaces it and joins

A copy is put back only after both other nodes have remembered more of the disk for a while: the promise goes no further
(docs/decisions/0011). Both may lose power at that moment. No other disk is lost meanwhile, since that would be two lost disks.
"""

from dataclasses import dataclass
from random import Random

from chaos.testbed.violation import Violation
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.rollback_marks import NO_MARK, Mark, contradicts
from quorumvault.protocol.views import DISK_BYTES, Mode
from quorumvault.server.peers.facts import NodeFacts
from quorumvault.server.storage import layout
from quorumvault.server.storage.disk_identity import DiskIdentity
from tests.simulation import losses
from tests.simulation.disks import Disk
from tests.simulation.faults import Fault, Mend
from tests.simulation.nodes import Cluster, Node, Process
from tests.simulation.rejoining import Rejoining, run_rejoining
from tests.simulation.world import Run, Scenario, World

#: When a disk is copied, how much later the copy may be put back, and the seconds between tries until the others remember enough.
_COPIES, _KEPT, _AGAIN = (0.3, 2.0, 3.7), 1.5, 0.2
#: Consecutive tries at which the others have to remember the disk: longer than they take to write it down.
_ENOUGH = 4
#: How often all nodes lose power when a disk is put back.
_POWER = 0.4
#: Seconds for which a process that one peer has greeted waits for the other; seconds after which an ended process starts again.
_GRACE, _RESTART = 0.3, 0.2
#: The time after which nothing is put back any more, so that all disks can become whole.
_LAST = 7.0


@dataclass(frozen=True)
class _Copy:
    stored: dict[bytes, bytes]
    identity: DiskIdentity


class RollingBack(Rejoining):
    def __init__(self, world: World, seed: int) -> None:
        #: By process: the starts of other processes that it has heard of.
        self._heard_of: dict[Process, set[tuple[str, bytes]]] = {}
        #: By node: the disk that was put back last.
        self._put: dict[str, bytes] = {}
        #: Losses that have begun and may still take effect.
        self._losing: set[Fault] = set()
        self.put_back = 0
        self.found_out = 0
        super().__init__(world)
        self._rng = rng = Random(f"copies {seed}")
        for at in _COPIES:
            node = self._cluster[rng.choice(NODE_NAMES)]
            world.timeline.at(at + rng.random(), None, self._copy, node, rng.random() * _KEPT)

    def _copy(self, node: Node, kept: float) -> None:
        if node.identity.mode is Mode.ACTIVE:
            copy = _Copy(dict(node.disk.stored), node.identity)
            self._world.timeline.at(self._world.timeline.now + kept, None, self._return, node, copy, 0)

    def _return(self, node: Node, copy: _Copy, tries: int) -> None:
        """Puts the copy back, once both others have remembered for long enough that the disk held more."""
        now = self._world.timeline.now
        if now > _LAST or node.identity.disk != copy.identity.disk:
            return
        calm = self.settled and not self._returning and not self._losing
        tries = tries + 1 if calm and self._remembered(node, copy) else 0
        if tries < _ENOUGH:
            self._world.timeline.at(now + _AGAIN, None, self._return, node, copy, tries)
            return
        self.put_back += 1
        self._put[node.name] = copy.identity.disk
        down = [*self._cluster.values()] if self._rng.random() < _POWER else [node]
        for each in down:
            each.crash()
            self._world.timeline.at(now + _RESTART, None, each.start)
        node.former.append(node.disk)
        node.disk = Disk(copy.identity)
        node.disk.stored.update(copy.stored)

    def _remembered(self, node: Node, copy: _Copy) -> bool:
        """Whether the processes of both others remember more of the disk than the copy has."""
        sequence = layout.decode_sequence(copy.stored.get(layout.SEQUENCE_KEY, layout.encode_sequence(0)))
        start = Mark(copy.identity.incarnation + 1, sequence)
        others = [other.process for other in self._cluster.values() if other is not node]
        known = [self._marks[other].known.get(copy.identity.disk, NO_MARK) for other in others if other is not None]
        return len(known) == len(others) and all(contradicts(mark, start, sequence) for mark in known)

    def begin_fault(self, fault: Fault, cluster: Cluster) -> Mend:
        if fault.kind not in losses.LOSSES:
            return super().begin_fault(fault, cluster)
        if self._returning:
            return lambda: None
        mend = super().begin_fault(fault, cluster)
        self._losing.add(fault)

        def mended() -> None:
            mend()  # some losses take the disk only now
            self._losing.discard(fault)

        return mended

    def _begin(self, process: Process) -> None:
        process.established = False
        self._heard_of[process] = set()
        super()._begin(process)

    def _take(self, process: Process, facts: NodeFacts) -> None:
        """Hears facts like the first messages over a link: before the link is up."""
        super()._take(process, facts)
        heard = self._heard_of[process]
        if process.schedule.alive and (facts.node, facts.boot) not in heard:
            heard.add((facts.node, facts.boot))
            process.node.network.carry((process.node.name, facts.node), self._hear, facts.node, self._facts(process))
            if len({name for name, _ in heard}) == len(NODE_NAMES) - 1:
                process.established = True
            else:
                process.schedule.call_later(_GRACE, setattr, process, "established", True)

    def _put_back(self, node: Node, why: str) -> None:
        if node.name not in self._returning:
            super()._put_back(node, why)
        self.found_out += 1
        node.lose_disk(b"%s-%d" % (node.name.encode(), self.found_out) + bytes(DISK_BYTES - len(node.name) - 2))
        self._world.timeline.at(self._world.timeline.now + _RESTART, None, node.start)

    @property
    def _returning(self) -> set[str]:
        """Nodes whose disk was put back and is not yet replaced by a whole one."""
        there = {node.name: node.identity for node in self._cluster.values()}
        return {name for name, disk in self._put.items() if there[name].disk == disk or there[name].mode is Mode.JOINING}

    @property
    def settled(self) -> bool:
        processes = [node.process for node in self._cluster.values()]
        return super().settled and all(process is None or process.established for process in processes)

    def check(self) -> None:
        super().check()
        if self._returning:
            raise Violation("marks", "a disk that was put back votes, though both others remember that it held more")


def run_rollback(chosen: Scenario) -> Run:
    """Runs as run_rejoining does, with disks that are put back too."""
    return run_rejoining(chosen, lambda world: RollingBack(world, chosen.seed))
