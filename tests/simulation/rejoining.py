"""Disks that are lost: their nodes get new ones, which join while clients ask and other things go wrong.

    lost disk    a node dies with all that it stored, and starts with an empty disk under a new id: after a while, or at once, so
                 that acknowledgements of the old one are still under way
    each process tells the others its view, and what it remembers of their disks, now and then, as nodes do with their pings,
    and rejoins if its disk is joining

No second disk is lost while the first has not been replaced: two that are gone may have had the only copies of what was
acknowledged. Nothing rots here; what a copy does with bytes that are rotten is for the tests of copying.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from chaos.checkers import Violation
from quorumvault.healing.asking import Storage
from quorumvault.healing.pace import Pace
from quorumvault.healing.rejoin import Rejoin
from quorumvault.healing.remembering import Memory
from quorumvault.membership import Around, Membership
from quorumvault.model import NODE_NAMES
from quorumvault.peers.facts import NodeFacts
from quorumvault.protocol.messages import PROTOCOL_VERSION
from quorumvault.protocol.views import DISK_BYTES, Mode
from tests.simulation.nodes import TIMEOUTS, Node, Process, boot_nonce
from tests.simulation.timeline import drive
from tests.simulation.world import Run, Scenario, World, scenario

#: Between two words of a process to the others about its view.
_TELLS = 0.25
#: When a disk is lost, and how long its node is away then, at most.
_LOSSES, _AWAY = (0.5, 2.5, 4.5, 6.0), 0.8
#: Seconds of calm in which whatever joins has to become whole.
_CALM = 10.0
#: Then faults are long over, and what has not joined by itself never will.
_UNTIL = 40.0


class Rejoining:
    """Attaches what it takes to each process of a world, and loses disks at times drawn from the seed."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._cluster = world.cluster
        self.lost = 0
        self.joined = 0
        self._members: dict[Process, Membership] = {}
        self._memories: dict[Process, Memory] = {}
        for node in self._cluster.values():
            node.started = self._begin
            if node.process is not None:
                self._begin(node.process)
        world.timeline.at(_UNTIL, None, self._give_up)
        rng = Random(f"lost disks {seed}")
        for at in _LOSSES:
            node, away = self._cluster[rng.choice(NODE_NAMES)], rng.choice((0.0, rng.random() * _AWAY))
            world.timeline.at(at + rng.random(), None, self._lose, node, away)

    def _lose(self, node: Node, away: float) -> None:
        identities = [each.identity for each in self._cluster.values()]
        if any(each.mode is not Mode.ACTIVE or each.view != identities[0].view for each in identities):
            return
        self.lost += 1
        node.lose_disk(b"%s.%d" % (node.name.encode(), self.lost) + bytes(DISK_BYTES - len(node.name) - 2))
        self._world.timeline.at(self._world.timeline.now + away, None, node.start)

    def _give_up(self) -> None:
        """Whoever still asks would go on for ever."""
        for node in self._cluster.values():
            if node.identity.mode is Mode.JOINING:
                node.crash()

    def _begin(self, process: Process) -> None:
        node = process.node
        around = Around(
            storage=lambda: process.storage,
            learn=process.coordinator.learn,
            changed=lambda: None,
            note=lambda event: None,
            end=lambda reason: node.crash(),
        )
        member = self._members[process] = Membership(node.identity, around, lambda: self._rejoin(process))
        memory = self._memories[process] = Memory(
            lambda: process.replica,
            lambda: process.storage,
            lambda: process.coordinator.view,
            process.schedule.call_later,
            lambda why: self._put_back(node, why),
        )
        process.observer.counted = memory.acknowledged
        if node.identity.mode is Mode.JOINING:
            node.timeline.at(node.timeline.now, process.schedule, lambda: drive(self._rejoin(process).run(), self._ended))
        self._tell(process, member)

    def _put_back(self, node: Node, why: str) -> None:
        raise Violation("marks", f"{node.name}, which forgot nothing, gives up its disk: {why}")

    def _rejoin(self, process: Process) -> Rejoin:
        async def storage() -> Storage:
            return process.storage

        node, nonce = process.node, b"join" + boot_nonce(process.node.starts)
        peers = {name: line for name, line in process.lines.items() if name != node.name}
        return Rejoin(
            lambda: node.identity,
            nonce,
            peers,
            storage,
            lambda: process.established,
            Pace(0.5),
            self._memories[process],
            lambda: True,
            timeout=TIMEOUTS.round,
        )

    def _ended(self, _: object, error: Exception | None) -> None:
        if error is not None:
            raise error
        self.joined += 1

    def _tell(self, process: Process, member: Membership) -> None:
        """Until there is nothing to be told any more, or no use."""
        node, timeline = process.node, process.node.timeline
        if node.identity != member.identity:
            member.became(node.identity)
        for other in NODE_NAMES:
            if other != node.name:
                node.network.carry((node.name, other), self._hear, other, self._facts(process))
        if timeline.now < _UNTIL and (not self.settled or timeline.now < max(_LOSSES) + 1):
            timeline.at(timeline.now + _TELLS, process.schedule, self._tell, process, member)

    def _hear(self, name: str, facts: NodeFacts) -> None:
        process = self._cluster[name].process
        if process is not None:
            process.schedule.call_soon(self._take, process, facts)

    def _take(self, process: Process, facts: NodeFacts) -> None:
        self._memories[process].heard(facts)
        if process.schedule.alive:
            self._members[process].heard(facts)

    def _facts(self, process: Process) -> NodeFacts:
        mine = process.node.identity
        return NodeFacts(
            cluster_id=mine.cluster_id,
            protocol=PROTOCOL_VERSION,
            version="simulated",
            node=mine.node,
            disk=mine.disk,
            incarnation=mine.incarnation,
            mode=mine.mode,
            view=mine.view,
            secrets={},
            fields="",
            keys="",
            boot=boot_nonce(process.node.starts),
            sequence=process.node.disk.sequence,  # as it is durable: the replica has written more, whose sync is under way
            marks=dict(self._memories[process].known),
        )

    @property
    def settled(self) -> bool:
        """Whether all disks are active, in one view."""
        identities = [node.identity for node in self._cluster.values()]
        return all(each.mode is Mode.ACTIVE and each.view == identities[0].view for each in identities)

    def check(self) -> None:
        if not self.settled:
            raise Violation("rejoin", "a disk is not active, or not in the view of the others, though nothing is broken any more")


def losing(seed: int) -> Scenario:
    """The seed's scenario, as far as it goes with disks that are lost."""
    chosen = scenario(seed)
    return replace(chosen, faults=tuple(fault for fault in chosen.faults if fault.kind != "rot"))


def run_rejoining(chosen: Scenario, attach: type[Rejoining] = Rejoining) -> Run:
    """As world.run, with disks that are lost. All have to be whole before everything is read, and to hold what was given."""
    world = World(chosen)
    violation = None
    try:
        rejoining = attach(world, chosen.seed)
        world.play(chosen.calls)
        world.timeline.run(world.timeline.now + _CALM)
        rejoining.check()
        world.check()
        world.read_everything()
        world.check()
    except Violation as found:
        violation = found
    except Exception as error:
        violation = Violation("exception", f"{type(error).__name__}: {error}")
        violation.__cause__ = error
    return Run(chosen, world.history(), world.trace(), world.timeline.now, world.timeline.events, world.branches, violation)
