"""Nodes that heal: handoff, anti-entropy and scrub run on simulated processes, during the faults and after them.

While clients ask, each process hands off, compares and scrubs at its own times. In the end every node repairs. Then the disks
have to hold the same content, without a single read.
"""

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any

from chaos.testbed.violation import Violation
from quorumvault.model import NODE_NAMES
from quorumvault.protocol import hinted_handoff
from quorumvault.protocol.messages import Put, RaiseEpoch
from quorumvault.protocol.records import CONFLICT_MARK, sealed_of
from quorumvault.server.healing.healer import Healer, HealerCallbacks
from quorumvault.server.healing.requests import NoAnswer
from quorumvault.server.healing.scrub import Neighbours
from quorumvault.server.replica.owners import is_authentic
from quorumvault.server.storage import layout
from tests.rigs.healing import Diary
from tests.simulation.clients import OWNERS
from tests.simulation.disks import Disk
from tests.simulation.nodes import DISKS, VIEW, Process, boot_nonce
from tests.simulation.timeline import drive
from tests.simulation.world import Run, Scenario, World, judged

#: Seconds between two turns of a healing loop, and the time of the last turn.
_TURN, _UNTIL = 0.25, 9.0
#: Rounds of repairs of all nodes in the end. A conflict mark needs one more round to spread to the others.
_REPAIRS = 3


class Healing:
    """Attaches a healer to each process of a world, future processes included."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._seed = seed
        self.healers: dict[str, Healer] = {}
        #: By node: which node has not acknowledged which record to the present process, or to a former one that kept a hint.
        self._missed: dict[str, list[tuple[str, bytes]]] = {}
        #: Errors in a loop that the node would have logged.
        self.failures: list[Exception] = []
        world.attach(self._begin)

    def _begin(self, process: Process) -> None:
        node = process.node
        around = HealerCallbacks(
            name=node.name,
            disk=lambda: DISKS[node.name],
            nonce=b"heal" + boot_nonce(node.starts),
            peers=process.lines,
            view=lambda: VIEW,
            neighbours=lambda: Neighbours(all_active=False, damaged=frozenset()),
            room_beside=lambda: True,
            announce=lambda: None,
            give_up=lambda why: None,
            wall_ms=node.wall_ms,
            rng=Random(f"{self._seed} {node.name} {node.starts}"),
        )
        healer = Healer(around, process.storage, node.knobs.healing, node.knobs.timeouts, Diary())
        self.healers[node.name] = healer
        missed = self._missed[node.name] = list(_hinted(process.disk))

        def miss(to: str, disk: bytes, request: Put | RaiseEpoch) -> None:
            if isinstance(request, Put):
                keys = layout.record_keys(request.owner, [request.epoch] * len(request.digests), request.digests)
                missed.extend((to, key) for key in keys)
            healer.handoff.missed(to, disk, request)

        process.observer.missed = miss
        process.observer.leaves = healer.anti_entropy.left_over
        # In every third seed only hints heal until the calm: a comparison would make up for lost hints.
        others = (healer.anti_entropy.once, healer.scrub.once) if self._seed % 3 else ()
        for once in (healer.handoff.once, *others):
            self._repeat(process, once)

    def _repeat(self, process: Process, once: Callable[[], Coroutine[Any, Any, None]]) -> None:
        timeline = process.node.timeline

        def again(_: object = None, error: Exception | None = None) -> None:
            if error is not None and not isinstance(error, NoAnswer):
                self.failures.append(error)
            if timeline.now < _UNTIL:
                timeline.at(timeline.now + _TURN, process.schedule, lambda: drive(once(), again))

        again()

    def check_loops(self) -> None:
        for failure in self.failures:
            raise failure

    def hand_off(self) -> None:
        """In calm: when a process owes a peer nothing more, the peer has each record it missed that the process has itself."""
        cluster = self._world.cluster
        for name in NODE_NAMES:
            self._run(name, self.healers[name].handoff.once)
            mine = cluster[name].disk
            for to, key in self._missed[name]:
                if mine.holds(key) is None or key in mine.rotten or self.healers[name].handoff.owed(to).records:
                    continue
                if cluster[to].disk.holds(key) is None:
                    raise Violation("handoff", f"{name} owes {to} nothing any more, which lacks {key.hex()}")

    def repair(self) -> None:
        """In calm: sends the hints that are left, runs a pass of each scrub, and compares until nothing differs."""
        for _ in range(_REPAIRS):
            for name in NODE_NAMES:
                healer = self.healers[name]
                self._run(name, healer.handoff.once)
                passes = healer.scrub.counts.passes
                while healer.scrub.counts.passes == passes:
                    self._run(name, healer.scrub.once)
                if not healer.anti_entropy.counted:
                    self._run(name, healer.anti_entropy.once)
        for _ in range(_REPAIRS):
            for name in NODE_NAMES:
                self._run(name, self.healers[name].anti_entropy.repair)

    def check_scrubbed(self) -> None:
        """Checks that scrub has noticed each store with an unreadable block."""
        for name, healer in self.healers.items():
            if self._world.cluster[name].disk.unreadable and healer.scrub.damage is None:
                raise Violation("scrub", f"{name} has a block that cannot be read, and has not noticed")

    def _run(self, name: str, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        process = self._world.cluster[name].process
        assert process is not None
        ended: list[Exception | None] = []
        timeline = self._world.timeline
        timeline.at(timeline.now + _TURN, process.schedule, lambda: drive(work(), lambda _, error: ended.append(error)))
        timeline.run()
        if not ended:
            raise Violation("healing", f"{name}: it did not end")
        if ended[0] is not None and not isinstance(ended[0], NoAnswer):
            raise ended[0]


def _hinted(disk: Disk) -> Iterator[tuple[str, bytes]]:
    """Which nodes have not acknowledged which records, according to the hints on this disk."""
    nodes = {listed: name for name, listed in VIEW.disks.items()}
    for key, value in disk.stored.items():
        if key.startswith(layout.HINT):
            hint = hinted_handoff.decode(value)
            for record in layout.record_keys(hint.owner, [hint.epoch] * len(hint.digests), hint.digests):
                yield nodes[layout.parse_hint_key(key)[0]], record


def run_healing(chosen: Scenario) -> Run:
    """Runs as world.run does, on nodes that heal. All disks have to be the same before anybody reads, and rules hold after."""
    world = World(chosen)
    healing, check_same = Healing(world, chosen.seed), partial(check_converged, world)
    heal = (healing.hand_off, healing.repair, healing.check_scrubbed, check_same)
    return judged(
        world, world.play, healing.check_loops, world.check, *heal, world.check, world.read_everything, world.check, check_same
    )


def check_converged(world: World) -> None:
    """All disks hold the same records and registers, except in buckets in which one disk has an unreadable block.

    Two more exceptions. Bits flipped in a record that no other disk has: it was never acknowledged, and there is no other copy.
    And tokens in which two values met, or a value and a conflict mark: each disk keeps what it had first, or does not know it.
    """
    disks = [node.disk for node in world.cluster.values()]
    alone = {key for disk in disks for key in disk.flipped if sum(key in other.stored for other in disks) == 1}
    unreadable = {layout.bucket_of(key) for disk in disks for key in disk.unreadable}
    held = [_common(disk, unreadable) for disk in disks]
    keys = set().union(*held) - alone
    differing = sorted(key for key in keys if len({each.get(key) for each in held}) > 1 and not _contested(world, key, held))
    if differing:
        raise Violation("convergence", f"{len(differing)} keys differ after all was healed: {differing[0].hex()}")


def _contested(world: World, key: bytes, held: Sequence[Mapping[bytes, bytes]]) -> bool:
    """Whether values met here: each disk has an authentic value, a conflict mark, or no knowledge of what it had.

    Disks with the same value have to have the same record. A disk that does not know takes neither of two values of others.
    """
    if not world.narrow or not key.startswith(layout.RECORD):
        return False
    found = [record for each in held if (record := each.get(key)) is not None]
    unknown = sum(node.disk.holds(key) is None and node.disk.unknown(key) for node in world.cluster.values())
    place = key.removeprefix(layout.RECORD)
    owner = next(owner for owner in OWNERS if owner.id == layout.parse_place(place)[0])
    rightful = all(record == CONFLICT_MARK or is_authentic(world.keyring, owner, place, record) for record in found)
    return rightful and len(found) + unknown >= len(held) and len(set(found)) == len(set(map(sealed_of, found))) > 1


def _common(disk: Disk, unreadable: set[int]) -> dict[bytes, bytes]:
    return {
        key: value
        for key, value in disk.stored.items()
        if key.startswith(layout.REGISTER) or (key.startswith(layout.RECORD) and layout.bucket_of(key) not in unreadable)
    }
