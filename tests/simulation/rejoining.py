"""Lost disks (losses.py): their nodes get new disks, which join while clients ask and other faults happen.

From time to time each process tells the others its view, and what it remembers of their disks, as nodes do in their pings. It
rejoins if its disk is joining. A process that is left behind on an old disk does all of this too, until it hears that its disk
was replaced. Nothing rots here; the tests of copying check what a copy does with rotten bytes.
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

#: Seconds between two messages in which a process tells the others its view.
_TELLS = 0.25
#: Seconds of calm in which all joining disks have to become whole.
_CALM = 10.0
#: The time after which a disk that has not joined by itself never will: faults are long over.
_UNTIL = 40.0


class Rejoining:
    """Attaches what is needed for rejoining to each process of a world in which disks are lost."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cluster = world.cluster
        self._members: dict[Process, Membership] = {}
        self._marks: dict[Process, RollbackMarks] = {}
        world.attach(self._begin)
        world.timeline.at(_UNTIL, None, self._give_up)

    def _give_up(self) -> None:
        """Ends nodes that are still joining: they would ask for ever."""
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
        """Whether the process has to rejoin."""
        return process.disk.identity.mode is Mode.JOINING

    async def _prepare(self, process: Process) -> Storage:
        """Returns the storage of the joining disk."""
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
        """Tells the others, until nothing is left to tell or telling has no use."""
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
            sequence=process.disk.sequence,  # the durable one: the replica has written more, not yet synced
            marks=dict(self._marks[process].known),
        )

    @property
    def settled(self) -> bool:
        """Whether all disks are active, in one view, and all processes left behind have ended."""
        return losses.whole(self._cluster) and not any(
            process.schedule.alive for node in self._cluster.values() for process in node.left_behind
        )

    def check(self) -> None:
        """Checks the rules after the calm."""
        self._world.timeline.run(self._world.timeline.now + _CALM)
        if not losses.whole(self._cluster):
            raise Violation("rejoin", "a disk is not active, or not in the view of the others, though nothing is broken any more")
        if not self.settled:
            raise Violation("rejoin", "a process whose disk was replaced goes on")


def losing(seed: int) -> Scenario:
    """The seed's scenario with lost disks, and without the faults that do not go with them."""
    chosen = scenario(seed)
    kept = [fault for fault in chosen.faults if fault.kind != "rot"]
    lost = losses.plan(Random(f"lost disks {seed}"))
    return replace(chosen, faults=tuple(sorted((*kept, *lost), key=lambda fault: fault.begins)))


def run_rejoining(chosen: Scenario, attach: Callable[[World], Rejoining] = Rejoining) -> Run:
    """Runs as world.run does, with lost disks. All disks have to be whole before the final read, and to hold all given tokens."""
    world = World(chosen, lambda fault, cluster: rejoining.begin_fault(fault, cluster))
    rejoining = attach(world)
    return judged(world, world.play, rejoining.check, world.check, world.read_everything, world.check)
