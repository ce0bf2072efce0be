"""Disks that are lost (losses.py): their nodes get new ones, which join while clients ask and other things go wrong.

Each process tells the others its view, and what it remembers of their disks, now and then, as nodes do with their pings, and
rejoins if its disk is joining. One that is left behind on an old disk does all that too, until it hears that it was replaced.
Nothing rots here; what a copy does with bytes that are rotten is for the tests of copying.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from chaos.testbed.violation import Violation
from quorumvault.model import NODE_NAMES
from quorumvault.protocol.views import Mode
from quorumvault.server.healing.join import Rejoin
from quorumvault.server.healing.requests import Storage
from quorumvault.server.healing.rollback_marks import RollbackMarks
from quorumvault.server.healing.throttle import Throttle
from quorumvault.server.node.membership import Membership, MembershipCallbacks
from quorumvault.server.peers.facts import NodeFacts
from tests.rigs.links import facts_of
from tests.simulation import losses
from tests.simulation.faults import Fault, Mend
from tests.simulation.nodes import Cluster, Node, Process, boot_nonce
from tests.simulation.timeline import drive
from tests.simulation.world import Run, Scenario, World, judged, scenario

#: Between two words of a process to the others about its view.
_TELLS = 0.25
#: Seconds of calm in which whatever joins has to become whole.
_CALM = 10.0
#: Then faults are long over, and what has not joined by itself never will.
_UNTIL = 40.0


class Rejoining:
    """Attaches what it takes to each process of a world in which disks are lost."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cluster = world.cluster
        self._members: dict[Process, Membership] = {}
        self._marks: dict[Process, RollbackMarks] = {}
        world.attach(self._begin)
        world.timeline.at(_UNTIL, None, self._give_up)

    def _give_up(self) -> None:
        """Whoever still asks would go on for ever."""
        for node in self._cluster.values():
            if node.identity.mode is Mode.JOINING:
                node.crash()

    def _begin(self, process: Process) -> None:
        node, disk = process.node, process.disk
        around = MembershipCallbacks(
            storage=lambda: process.own_storage,
            learn=process.coordinator.learn,
            changed=lambda: None,
            note=lambda event: None,
            end=lambda reason: node.end(process),
        )
        member = self._members[process] = Membership(disk.identity, around, lambda: self._rejoin(process))
        marks = self._marks[process] = RollbackMarks(
            lambda: process.own_replica,
            lambda: process.own_storage,
            lambda: process.coordinator.view,
            process.schedule.call_later,
            lambda why: self._put_back(node, why),
        )
        process.observer.counted = marks.acknowledged
        if self._joins(process):
            node.timeline.at(node.timeline.now, process.schedule, lambda: drive(self._rejoin(process).run(), self._ended))
        self._tell(process, member)

    def begin_fault(self, fault: Fault, cluster: Cluster) -> Mend:
        return losses.begin(fault, cluster)

    def _joins(self, process: Process) -> bool:
        """Whether it has to rejoin."""
        return process.disk.identity.mode is Mode.JOINING

    async def _prepare(self, process: Process) -> Storage:
        """The storage of the disk that joins."""
        return process.storage

    def _put_back(self, node: Node, why: str) -> None:
        raise Violation("marks", f"{node.name}, which forgot nothing, gives up its disk: {why}")

    def _rejoin(self, process: Process) -> Rejoin:
        node, disk, nonce = process.node, process.disk, b"join" + boot_nonce(process.node.starts)
        peers = {name: line for name, line in process.lines.items() if name != node.name}
        return Rejoin(
            lambda: disk.identity,
            nonce,
            peers,
            lambda: self._prepare(process),
            lambda: process.established,
            Throttle(0.5),
            self._marks[process],
            lambda: True,
            timeout=node.knobs.timeouts.round,
        )

    def _ended(self, _: object, error: Exception | None) -> None:
        if error is not None:
            raise error

    def _tell(self, process: Process, member: Membership) -> None:
        """Until there is nothing to be told any more, or no use."""
        node, timeline, identity = process.node, process.node.timeline, process.disk.identity
        if identity != member.identity:
            member.became(identity)
        for other in NODE_NAMES:
            if other != node.name:
                node.network.carry((node.name, other), self._hear, other, self._facts(process))
        if timeline.now < _UNTIL and (not self.settled or timeline.now < max(losses.TIMES) + 2):
            timeline.at(timeline.now + _TELLS, process.schedule, self._tell, process, member)

    def _hear(self, name: str, facts: NodeFacts) -> None:
        process = self._cluster[name].at_hand
        if process is not None:
            process.schedule.call_soon(self._take, process, facts)

    def _take(self, process: Process, facts: NodeFacts) -> None:
        self._marks[process].heard(facts)
        if process.schedule.alive:
            self._members[process].heard(facts)

    def _facts(self, process: Process) -> NodeFacts:
        mine = process.disk.identity
        return facts_of(
            mine.node,
            disk=mine.disk,
            incarnation=mine.incarnation,
            mode=mine.mode,
            view=mine.view,
            boot=process.boot,
            sequence=process.disk.sequence,  # as it is durable: the replica has written more, whose sync is under way
            marks=dict(self._marks[process].known),
        )

    @property
    def settled(self) -> bool:
        """Whether all disks are active, in one view, and whoever was left behind has ended."""
        return losses.whole(self._cluster) and not any(
            process.schedule.alive for node in self._cluster.values() for process in node.left_behind
        )

    def check(self) -> None:
        """After so much calm."""
        self._world.timeline.run(self._world.timeline.now + _CALM)
        if not losses.whole(self._cluster):
            raise Violation("rejoin", "a disk is not active, or not in the view of the others, though nothing is broken any more")
        if not self.settled:
            raise Violation("rejoin", "a process whose disk was replaced goes on")


def losing(seed: int) -> Scenario:
    """The seed's scenario, as far as it goes with disks that are lost, which they are."""
    chosen = scenario(seed)
    kept = [fault for fault in chosen.faults if fault.kind != "rot"]
    lost = losses.plan(Random(f"lost disks {seed}"))
    return replace(chosen, faults=tuple(sorted((*kept, *lost), key=lambda fault: fault.begins)))


def run_rejoining(chosen: Scenario, attach: Callable[[World], Rejoining] = Rejoining) -> Run:
    """As world.run, with disks that are lost. All have to be whole before everything is read, and to hold what was given."""
    world = World(chosen, lambda fault, cluster: rejoining.begin_fault(fault, cluster))
    rejoining = attach(world)
    return judged(world, world.play, rejoining.check, world.check, world.read_everything, world.check)
